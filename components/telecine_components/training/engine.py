"""A model, its optimizer and its average, stepped by DeepSpeed.

DeepSpeed computes: it reduces and shards over ranks; one rank with nothing to shard does without it. What it would do
beside that is kept from it: its operators, which it compiles at first use, are declared unavailable, checkpoints are
ours, and precision is PyTorch's autocast, which it is told of, over weights, gradients and optimizer state in float32.
"""

import contextlib
import copy
import dataclasses
import logging
import math
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from diffusers.models.modeling_utils import ModelMixin
from torch import nn

from telecine.errors import InputError
from telecine_components.training import checkpoint
from telecine_components.training.checkpoint import Files, TrainingState
from telecine_components.training.config import TrainingConfig
from telecine_components.training.ema import Ema, trained
from telecine_components.training.loader import Batch, StepBatches
from telecine_components.training.losses import Objective
from telecine_components.training.ranks import Ranks
from telecine_components.training.sequence import share_sequences
from telecine_components.training.zero import state_of
from telecine_models.moe.diffmoe import DiffMoE
from telecine_models.moe.routing import Routing
from telecine_models.moe.thresholds import copy_buffers, update_thresholds
from telecine_models.video_dit.model import VideoDiT

Loss = Callable[[Any, Sequence[Any]], Objective]
"""(model, batches) -> what is minimised, in one pass; its randomness must be a function of the batches' positions."""

BETAS = (0.9, 0.95)
MAX_BUCKET = 200_000_000
"""Numbers that are reduced at once."""


@dataclasses.dataclass(frozen=True)
class Share:
    """A rank's part of a step: of the mean loss, and how long it was busy before it met the others.

    At ZeRO stage 3 they meet at the first weight of the forward pass: only what comes before it tells them apart.
    """

    loss: float
    busy_s: float


class Engine:
    """What a loop steps, evaluates, saves and restores. All ranks call each method together.

    ``module`` stays the caller's own object; below ZeRO stage 3 it has the current weights at any time. ``model`` is
    what a loss calls.
    """

    def __init__(self, module: nn.Module, config: TrainingConfig, ranks: Ranks = Ranks()) -> None:  # noqa: B008 - a value
        self.module, self.config, self.ranks = module.to(ranks.device), config, ranks
        parameters = [parameter for _, parameter in trained(module)]
        self._twin = copy.deepcopy(module) if config.zero_stage == 3 and ranks.leads else None
        self._mixtures = [layer for layer in module.modules() if isinstance(layer, DiffMoE)]
        _prepare(module, config)
        self.optimizer = torch.optim.AdamW(
            parameters, lr=config.learning_rate, betas=BETAS, weight_decay=config.weight_decay, fused=True
        )
        self.model = _initialize(module, self.optimizer, config, ranks)
        self._sharing = share_sequences(ranks, config.sequence_parallel) if config.sequence_parallel > 1 else None
        self._state = state_of(config.zero_stage, self.model, self.optimizer)
        self.ema = Ema(module, config.ema_decay)
        self._routings: list[Sequence[Routing]] = []
        self._packs = _can_pack(module, config)

    def backward(self, data: StepBatches, loss: Loss) -> Share:
        """Gradients of the mean loss over a step's samples, micro-batch by micro-batch.

        Args:
            data: this rank's part of the step; ranks that share sequences have the same.
        """
        began = time.perf_counter()
        self._routings = []
        passes = self._passes(data)
        busy_s = self._since(began)
        # Ranks meet where gradients are reduced, at the end of a step or of each pass, or where weights or tokens are
        # gathered.
        meets_in = {2: 0, 3: -1}.get(self.config.zero_stage, len(passes) - 1) if self._sharing is None else -1
        value = torch.zeros((), dtype=torch.float64)
        for number, (together, counts) in enumerate(passes):
            with self._shared():
                with torch.autocast(self.ranks.device.type, torch.bfloat16, enabled=self.config.precision == "bf16"):
                    objective = loss(self.model, together)
                # Of a loss that several ranks have, each counts its part.
                total = objective.total() / data.num_samples * counts / self.config.sequence_parallel
                self.model.set_gradient_accumulation_boundary(number == len(passes) - 1)
                busy_s = self._since(began) if number == meets_in else busy_s
                # Reducing over ranks takes the mean; what is wanted is the sum of their parts.
                self.model.backward(total * self.ranks.size)
            value += total.detach().to("cpu", torch.float64)
            if counts:
                self._routings.append(objective.routings)
        return Share(value.item(), busy_s)

    @contextlib.contextmanager
    def _shared(self) -> Iterator[None]:
        """Have ranks share sequences for the block; outside of it each rank is by itself."""
        if self._sharing is None:
            yield
            return
        dit: Any = self.module
        dit.sharing = self._sharing
        try:
            yield
        finally:
            dit.sharing = None

    def _since(self, began: float) -> float:
        """Seconds until what was asked for is done, which on a GPU it is not when a call returns."""
        if self.ranks.device.type == "cuda":
            torch.cuda.synchronize(self.ranks.device)
        return time.perf_counter() - began

    def update(self, step: int) -> float:
        """Take the 0-based ``step`` along the gradients; returns their norm before clipping.

        Where nothing is sharded a norm that is not finite leaves the weights as they are.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.learning_rate_at(step)
        if self.config.zero_stage:
            self.model.step()
            grad_norm = float(self.model.get_global_grad_norm())
        else:
            # Stage 0 in float32 clips without telling the norm.
            parameters = [parameter for _, parameter in trained(self.module)]
            grad_norm = nn.utils.clip_grad_norm_(parameters, self.config.max_grad_norm).item()
            if not math.isfinite(grad_norm):
                self.optimizer.zero_grad()
                return grad_norm
            self.model.step()
        if self._mixtures:
            update_thresholds(self._mixtures, self._routings)
        self.ema.update(self.module, step)
        return grad_norm

    @contextlib.contextmanager
    def averaged(self) -> Iterator[nn.Module]:
        """The module with the averaged weights, for rank 0 to evaluate by itself; nothing of use elsewhere."""
        whole = checkpoint.whole_average(self.module, self.ema, self.ranks)
        if self.config.zero_stage < 3:
            with self.ema.swapped_into(self.module):
                yield self.module
            return
        if self._twin is not None:
            copy_buffers(self.module, self._twin)
            with torch.no_grad():
                for name, parameter in trained(self._twin):
                    parameter.copy_(whole[name])
        yield self._twin or self.module

    def collect(self, state: TrainingState) -> Files:
        """A checkpoint's tensors by file, on rank 0; see :mod:`telecine_components.training.checkpoint`."""
        return checkpoint.collect(self.module, self._state, self.ema, state, self.ranks)

    def load(self, folder: Path | None) -> TrainingState:
        """Restore a checkpoint in place; rank 0 names its folder."""
        return checkpoint.restore(folder, self.module, self._state, self.ema, self.ranks)

    def _passes(self, data: StepBatches) -> list[tuple[list[Batch], float]]:
        """Batches that run together, and what they count: spare ones for nothing, as in each pass all ranks take part.

        A step whose tokens are not bounded is one pass. Where weights are spread it is not, because DeepSpeed gathers
        them for the model's own forward. What is given beside the text is not packed either.
        """
        mine, spares = ([_on(batch, self.ranks.device) for batch in each] for each in (data.batches, data.spares))
        if self._packs and not self.config.max_tokens and not any(batch.beside for batch in (*mine, *spares)):
            return [(mine, 1.0)] if mine else [(spares[:1], 0.0)]
        return [([batch], 1.0) for batch in mine] + [([batch], 0.0) for batch in spares]


def _can_pack(module: nn.Module, config: TrainingConfig) -> bool:
    return isinstance(module, VideoDiT) and module.size.mixture != "expert_choice" and config.zero_stage < 3


def _on(batch: Batch, device: torch.device) -> Batch:
    return batch if batch.x0.device == device else batch.map(lambda tensor: tensor.to(device))


def _prepare(module: nn.Module, config: TrainingConfig) -> None:
    """Recomputation and compilation, each block by itself: what differs between blocks is then compiled once."""
    blocks = _blocks(module)
    if config.recompute:
        able = [
            each for each in module.modules() if isinstance(each, ModelMixin) and each._supports_gradient_checkpointing
        ]
        if not able:
            raise InputError(f"training: recompute needs a model that can, got {type(module).__name__}; turn it off")
        for each in able:
            each.enable_gradient_checkpointing()
    if config.compile:
        if not torch.cuda.is_available() and not any(map(shutil.which, ("c++", "g++", "clang++"))):
            raise InputError("training: compile needs a C++ compiler on a CPU, and there is none; turn it off")
        # How many tokens an expert gets is in the data, which no graph can hold: blocks with experts stay as they are.
        for block in blocks:
            if not any(isinstance(part, DiffMoE) for part in block.modules()):
                block.compile(dynamic=True)


def _blocks(module: nn.Module) -> list[nn.Module]:
    found = [child for name, child in module.named_modules() if name.rpartition(".")[2] == "blocks"]
    return [block for blocks in found for block in blocks.children()]


class Alone(nn.Module):
    """Where there is nothing to reduce or to shard: PyTorch by itself, with what is used of DeepSpeed's engine."""

    def __init__(self, module: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        super().__init__()
        self.module, self._optimizer = module, optimizer

    def forward(self, *arguments: Any, **named: Any) -> Any:
        """The module's."""
        return self.module(*arguments, **named)

    def set_gradient_accumulation_boundary(self, is_boundary: bool) -> None:
        """Nothing to do: gradients add up until a step."""

    def backward(self, loss: torch.Tensor) -> None:
        """Add to the gradients."""
        loss.backward()

    def step(self) -> None:
        """Take the step."""
        self._optimizer.step()
        self._optimizer.zero_grad()


def _initialize(module: nn.Module, optimizer: torch.optim.Optimizer, config: TrainingConfig, ranks: Ranks) -> Any:
    if ranks.size == 1 and config.zero_stage == 0:
        return Alone(module, optimizer)
    # Read by DeepSpeed while it is imported: without it it probes the machine and warns that it found a CPU.
    if ranks.device.type == "cpu":
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    _ensure_group()
    import deepspeed
    from deepspeed.ops.op_builder.all_ops import ALL_OPS

    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
    # Looked up for the first time, this table is filled by probes that run a compiler; a table that stands is used.
    deepspeed.ops.__compatible_ops__ = dict.fromkeys(ALL_OPS, False)
    engine, *_ = deepspeed.initialize(
        model=module, optimizer=optimizer, config=_settings(module, config, ranks), dist_init_required=False
    )
    return engine


def _settings(module: nn.Module, config: TrainingConfig, ranks: Ranks) -> Mapping[str, Any]:
    """What DeepSpeed is told. Sizes of batches are ours: a loss comes scaled, and a step says where it ends."""
    # Buckets are allocated whole: those of DeepSpeed's default take gigabytes whatever the model's size.
    bucket = min(MAX_BUCKET, sum(parameter.numel() for _, parameter in trained(module)))
    settings: dict[str, Any] = {
        "train_batch_size": ranks.size,
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "steps_per_print": None,
        # It switches an autocast off that it was not told of. No module is named, so that all is reduced in float32.
        "torch_autocast": {
            "enabled": config.precision == "bf16",
            "dtype": "bfloat16",
            "lower_precision_safe_modules": [],
        },
        "zero_optimization": {
            "stage": config.zero_stage,
            "overlap_comm": ranks.device.type == "cuda",
            "reduce_bucket_size": bucket,
            "allgather_bucket_size": 2 * bucket,  # it must be even
        },
    }
    # At stage 0 the norm is clipped here, because DeepSpeed does not tell it; its own default clips to 1.
    return settings | {"gradient_clipping": config.max_grad_norm if config.zero_stage else 0.0}


def _ensure_group() -> None:
    """A process that trains alone, outside of :func:`telecine_components.training.ranks.together`."""
    os.environ.setdefault("LOCAL_RANK", "0")
    if not dist.is_initialized():
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
        dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)  # type: ignore[attr-defined]
