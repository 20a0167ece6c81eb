"""How a model is trained: sizes, rates, schedules, precision, sharding and checkpoints."""

import dataclasses
import math

SCHEDULES = ("constant", "wsd", "cosine")
"""Shapes of the learning rate after its warm-up."""
PRECISIONS = ("fp32", "bf16")
"""What products are computed in; weights, optimizer and averages stay in float32."""
ZERO_STAGES = (0, 1, 2, 3)
"""What ZeRO (arXiv 1910.02054) shards over the ranks: nothing, optimizer state, gradients too, weights too."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """AdamW, its learning rate over time, and how often the state is kept.

    Attributes:
        batch_size: samples of a step, on all ranks together; a mean where shapes differ.
        schedule: ``constant``; ``wsd`` falls linearly over the last ``decay_ratio`` of the steps (arXiv 2404.06395);
            ``cosine`` falls from the warm-up on (arXiv 1608.03983).
        final_lr_ratio: share of the learning rate that is left at the last step of ``wsd`` and ``cosine``.
        precision: one of :data:`PRECISIONS`.
        zero_stage: one of :data:`ZERO_STAGES`.
        sequence_parallel: ranks that share each sample's tokens.
        max_tokens: tokens of one forward pass; a step of more is accumulated. 0 for no bound.
        recompute: keep no activations of a block, compute them again in the backward pass.
        compile: compile each block, which needs a compiler.
        keep_last, keep_best, keep_every_steps: which checkpoints stay: the newest, those of the lowest held-out loss,
            and those of every so many steps (0 for none).
        spike_score: robust deviations of the loss from its recent median that count as a spike; 0 watches for numbers
            that are not finite alone.
        max_rollbacks: rollbacks in a row after which the run ends.
        hang_floor_s: least time without a step that counts as a hang.
    """

    num_steps: int
    batch_size: int
    learning_rate: float
    warmup_steps: int
    schedule: str = "constant"
    decay_ratio: float = 0.2
    final_lr_ratio: float = 0.0
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    ema_decay: float = 0.99
    precision: str = "fp32"
    zero_stage: int = 0
    sequence_parallel: int = 1
    max_tokens: int = 0
    recompute: bool = False
    compile: bool = False
    checkpoint_every_steps: int = 100
    keep_last: int = 2
    keep_best: int = 0
    keep_every_steps: int = 0
    spike_score: float = 0.0
    max_rollbacks: int = 3
    hang_floor_s: float = 600.0

    def __post_init__(self) -> None:
        for name, known in (("schedule", SCHEDULES), ("precision", PRECISIONS), ("zero_stage", ZERO_STAGES)):
            value = getattr(self, name)
            if value not in known:
                raise ValueError(f"TrainingConfig: {name} must be one of {list(known)}, got {value!r}")

    def learning_rate_at(self, step: int) -> float:
        """Learning rate of the 0-based ``step``."""
        warm = min(1.0, (step + 1) / max(1, self.warmup_steps))
        return self.learning_rate * warm * self._left(step)

    def _left(self, step: int) -> float:
        """Share that the schedule leaves of the learning rate: 1 at its start, ``final_lr_ratio`` at the last step."""
        if self.schedule == "constant":
            return 1.0
        if self.schedule == "wsd":
            begin = self.num_steps - max(1, round(self.decay_ratio * self.num_steps))
        else:
            begin = min(self.warmup_steps, self.num_steps - 1)
        done = min(1.0, max(0.0, (step + 1 - begin) / (self.num_steps - begin)))
        curve = 1 - done if self.schedule == "wsd" else 0.5 * (1 + math.cos(math.pi * done))
        return self.final_lr_ratio + (1 - self.final_lr_ratio) * curve
