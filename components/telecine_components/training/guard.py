"""Judges each step's loss and gradient norm: a number that is none, or a loss far above those before, is a bad step.

The trainer then goes back to its last checkpoint and leaves out the samples of the steps since, or of the bad step
alone; either way what it goes on with is a function of the verdicts, so a resumed run that has the guard's state in
its checkpoint judges as the undisturbed one. Every rank has to be given the same numbers, the reduced ones.

    verdict = guard.see(step, loss, grad_norm)
    if verdict is not None:
        line = guard.go_back(verdict)  # raises FloatingPointError after too many in a row
        …  # restore the checkpoint
"""

import dataclasses
import math
import statistics
from collections import deque
from typing import Any, Literal

_NORMAL_MAD = 1.4826
"""The standard deviation of a normal distribution over its median absolute deviation."""
_LEAST_SPREAD_RATIO = 0.01
"""Losses that hardly vary make a spike of nothing: the spread counts as this share of the median at least."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class GuardConfig:
    """When a step is bad.

    Attributes:
        window: good losses that a loss is held against; before there are as many no loss is a spike. 0: never.
        spike_z: robust z-score from which a loss is a spike: its distance above the window's median in units of
            1.4826 times the median absolute deviation, which is the standard deviation where losses are normal.
        max_rollbacks: rollbacks in a row before training gives up.
        calm_steps: good steps after which a rollback is not in a row with those before.

    Raises:
        ValueError: a bound that cannot work.
    """

    window: int = 100
    spike_z: float = 8.0
    max_rollbacks: int = 3
    calm_steps: int = 100

    def __post_init__(self) -> None:
        if self.window and self.window < 8:
            raise ValueError(f"GuardConfig: window must be 0 or at least 8 steps, got {self.window}")
        if not self.spike_z > 0:
            raise ValueError(f"GuardConfig: spike_z must be above 0, got {self.spike_z}")
        if self.max_rollbacks < 0:
            raise ValueError(f"GuardConfig: max_rollbacks must be at least 0, got {self.max_rollbacks}")
        if self.calm_steps < 1:
            raise ValueError(f"GuardConfig: calm_steps must be at least 1, got {self.calm_steps}")


@dataclasses.dataclass(frozen=True)
class Verdict:
    """A bad step: its 0-based number, what it is, and one line that says so."""

    step: int
    kind: Literal["not_finite", "spike"]
    words: str


class Guard:
    """Sees every step of a training, in their order."""

    def __init__(self, config: GuardConfig | None = None) -> None:
        self.config = config or GuardConfig()
        self._losses: deque[float] = deque(maxlen=max(1, self.config.window))
        self._good_steps = 0
        self._rollbacks: list[int] = []

    def see(self, step: int, loss: float, grad_norm: float) -> Verdict | None:
        """None for a good step. A bad one leaves no trace: the next is held against the good ones before it.

        Args:
            step: 0-based.
            grad_norm: before clipping; of the whole model, over all ranks.
        """
        verdict = self._judge(step, loss, grad_norm)
        if verdict is None:
            self._losses.append(loss)
            self._good_steps += 1
            if self._good_steps >= self.config.calm_steps:
                self._rollbacks = []
        return verdict

    def go_back(self, verdict: Verdict) -> str:
        """Decide to go back because of a verdict, before anything is restored; returns what is to be logged of it.

        Raises:
            FloatingPointError: it has gone back too often in a row.
        """
        if len(self._rollbacks) >= self.config.max_rollbacks:
            before = f", after going back because of steps {self._rollbacks}" if self._rollbacks else ""
            raise FloatingPointError(
                f"{verdict.words}{before}: that is more than max_rollbacks {self.config.max_rollbacks} in a row; "
                "lower the learning rate or look at the data of these steps"
            )
        self._rollbacks.append(verdict.step)
        self._good_steps = 0
        return (
            f"step={verdict.step} kind={verdict.kind} reason={verdict.words!r} "
            f"rollbacks={len(self._rollbacks)}/{self.config.max_rollbacks}"
        )

    def state(self) -> dict[str, Any]:
        """What a resumed run needs to judge equally, as JSON values."""
        return {"losses": list(self._losses), "good_steps": self._good_steps, "rollbacks": list(self._rollbacks)}

    def load(self, state: dict[str, Any], *, keep_rollbacks: bool = False) -> None:
        """Take a state over.

        Args:
            keep_rollbacks: of this guard, where it goes back itself: its checkpoint does not know of them yet.
        """
        losses = [float(loss) for loss in state["losses"]]
        self._losses = deque(losses, maxlen=max(1, self.config.window))
        if not keep_rollbacks:
            self._good_steps = int(state["good_steps"])
            self._rollbacks = [int(step) for step in state["rollbacks"]]

    def _judge(self, step: int, loss: float, grad_norm: float) -> Verdict | None:
        if not (math.isfinite(loss) and math.isfinite(grad_norm)):
            return Verdict(step, "not_finite", f"step {step}: loss {loss:g}, gradient norm {grad_norm:g}")
        window = self.config.window
        if not window or len(self._losses) < window:
            return None
        middle, z = robust_z(list(self._losses), loss)
        if z < self.config.spike_z:
            return None
        told = f"{z:.1f} deviations above the median {middle:.4g} of the last {window}, limit {self.config.spike_z:g}"
        return Verdict(step, "spike", f"step {step}: loss {loss:.4g} is {told}")


def robust_z(losses: list[float], loss: float) -> tuple[float, float]:
    """Median of ``losses``, and how far ``loss`` lies above it in robust standard deviations (median and MAD)."""
    middle = statistics.median(losses)
    spread = _NORMAL_MAD * statistics.median(abs(each - middle) for each in losses)
    return middle, (loss - middle) / max(spread, _LEAST_SPREAD_RATIO * abs(middle), 1e-12)
