"""One training loop: DeepSpeed computes the step; model, loss, data and observers are passed in.

A laptop run is one process with ZeRO stage 0 in float32. Nothing here can be reached from another machine or calls a
compiler: the process group of one rank meets in a HashStore, and DeepSpeed's own operators, which it would compile at
first use and which one rank does not need, are declared unavailable.
"""

import contextlib
import dataclasses
import functools
import logging
import math
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import torch

from telecine.errors import RetryLater
from telecine_components.training import checkpoint
from telecine_components.training.checkpoint import TrainingState
from telecine_components.training.ema import Ema
from telecine_components.training.loader import Batch

Loss = Callable[[torch.nn.Module, Batch, int], torch.Tensor]


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """How long and how fast: AdamW with a linear warm-up to a constant learning rate."""

    num_steps: int
    batch_size: int
    learning_rate: float
    warmup_steps: int
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    ema_decay: float = 0.99
    checkpoint_every_steps: int = 100

    def learning_rate_at(self, step: int) -> float:
        """Learning rate of the 0-based ``step``."""
        return self.learning_rate * min(1.0, (step + 1) / max(1, self.warmup_steps))


@dataclasses.dataclass(frozen=True)
class StepResult:
    """``step`` counts optimiser steps done, ``grad_norm`` is the norm before clipping, times are wall seconds."""

    step: int
    loss: float
    grad_norm: float
    learning_rate: float
    step_time_s: float
    data_wait_s: float


class Checkpoints(Protocol):
    """Where checkpoints are committed (``ctx.checkpoints``)."""

    def latest(self) -> Any: ...

    def save(self, step: int, write: Callable[[Path], None]) -> Any: ...

    def prune(self, keep: int) -> Any: ...


class Engine:
    """A module, its optimizer and its average, stepped by DeepSpeed.

    ``module`` stays the caller's own object, with the current weights at any time; ``model`` is what a loss calls.
    """

    def __init__(self, module: torch.nn.Module, config: TrainingConfig) -> None:
        self.module = module
        self.config = config
        self.optimizer = torch.optim.AdamW(
            module.parameters(), lr=config.learning_rate, betas=(0.9, 0.95), weight_decay=config.weight_decay
        )
        self.ema = Ema(module, config.ema_decay)
        self.model = _initialize(module, self.optimizer, config)

    def step(self, loss: torch.Tensor, step: int) -> tuple[float, float]:
        """Take the 0-based ``step`` along a scalar loss; returns loss and gradient norm before clipping.

        Raises:
            FloatingPointError: where either is not finite; the weights are then still those of the last step.
        """
        self.model.backward(loss)
        # Stage 0 in float32 clips without telling the norm, so it is clipped here and reported.
        grad_norm = torch.nn.utils.clip_grad_norm_(self.module.parameters(), self.config.max_grad_norm).item()
        value = loss.item()
        if not (math.isfinite(value) and math.isfinite(grad_norm)):
            raise FloatingPointError(f"step {step}: loss {value}, gradient norm {grad_norm}; lower the learning rate")
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.learning_rate_at(step)
        self.model.step()
        self.ema.update(self.module, step)
        return value, grad_norm

    def save(self, folder: Path, state: TrainingState) -> None:
        """Write a checkpoint; see :mod:`telecine_components.training.checkpoint`."""
        checkpoint.save(folder, state, self.module, self.optimizer, self.ema.weights)

    def load(self, folder: Path) -> TrainingState:
        """Restore a checkpoint in place."""
        return checkpoint.load(folder, self.module, self.optimizer, self.ema.weights)


def train(
    engine: Engine,
    *,
    batches: Callable[[int, int], Batch],
    loss: Loss,
    checkpoints: Checkpoints,
    observe: Callable[[StepResult], dict[str, float]],
    stop_requested: Callable[[], bool],
    keep_checkpoints: int = 2,
) -> TrainingState:
    """Train from the latest checkpoint to ``config.num_steps``, saving at intervals and at the end.

    Args:
        batches: (position, batch_size) -> batch.
        loss: (module, batch, 0-based step) -> scalar; its randomness must be a function of the step.
        observe: called after each step, before a checkpoint; what it returns joins the history at that step.
        stop_requested: asked between steps.

    Raises:
        RetryLater: after a checkpoint was saved because a stop was requested.
    """
    config = engine.config
    latest = checkpoints.latest()
    state = engine.load(latest.dir) if latest else TrainingState()
    history = {name: list(points) for name, points in state.history.items()}
    for step in range(state.step, config.num_steps):
        result = _take(engine, batches, loss, state.position, step)
        for name, value in {"train/loss": result.loss, **observe(result)}.items():
            history.setdefault(name, []).append((result.step, value))
        state = TrainingState(step=result.step, position=state.position + config.batch_size, history=history)
        stopping = stop_requested() and state.step < config.num_steps
        if stopping or state.step % config.checkpoint_every_steps == 0 or state.step == config.num_steps:
            checkpoints.save(state.step, functools.partial(engine.save, state=state))
            checkpoints.prune(keep_checkpoints)
        if stopping:
            raise RetryLater(f"stopped after step {state.step} of {config.num_steps}; its checkpoint is saved")
    return state


def _take(engine: Engine, batches: Callable[[int, int], Batch], loss: Loss, position: int, step: int) -> StepResult:
    started = time.perf_counter()
    batch = batches(position, engine.config.batch_size)
    read = time.perf_counter()
    value, grad_norm = engine.step(loss(engine.model, batch, step), step)
    done = time.perf_counter()
    return StepResult(step + 1, value, grad_norm, engine.config.learning_rate_at(step), done - started, read - started)


@contextlib.contextmanager
def deterministic(num_threads: int) -> Iterator[None]:
    """Fixed thread count and deterministic kernels for the block: equal inputs then give equal bits."""
    threads, was_deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(num_threads)
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(was_deterministic)
        torch.set_num_threads(threads)


def _initialize(module: torch.nn.Module, optimizer: torch.optim.Optimizer, config: TrainingConfig) -> Any:
    # Read by DeepSpeed while it is imported and initialised: it asserts that LOCAL_RANK is set, and without
    # DS_ACCELERATOR it probes the machine and warns that it found a CPU.
    os.environ.setdefault("DS_ACCELERATOR", "cpu")
    os.environ.setdefault("LOCAL_RANK", "0")
    # One process talks to nobody: gloo's listening socket stays on loopback, whatever the host name resolves to.
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    import deepspeed
    from deepspeed.ops.op_builder.all_ops import ALL_OPS

    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
    # Looked up for the first time, this table is filled by probes that run a compiler; a table that stands is used.
    deepspeed.ops.__compatible_ops__ = dict.fromkeys(ALL_OPS, False)
    if not torch.distributed.is_initialized():
        store = torch.distributed.HashStore()  # type: ignore[attr-defined]
        torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    settings = {
        "train_batch_size": config.batch_size,
        "train_micro_batch_size_per_gpu": config.batch_size,
        "gradient_accumulation_steps": 1,
        "zero_optimization": {"stage": 0},
        "steps_per_print": None,
    }
    engine, *_ = deepspeed.initialize(model=module, optimizer=optimizer, config=settings, dist_init_required=False)
    return engine
