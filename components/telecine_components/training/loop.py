"""One training loop: model, loss, data, checkpoints and observers are passed in.

A step is read, computed, reduced, judged, taken. What may end it early: a request to stop, which saves and says try
again; a bad step, which goes back to the last checkpoint and leaves its data out. Every decision is one of all ranks,
made from reduced numbers.
"""

import dataclasses
import logging
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from telecine.errors import RetryLater
from telecine.work.retention import Keep
from telecine_components.training.checkpoint import TrainingState
from telecine_components.training.config import TrainingConfig
from telecine_components.training.engine import Engine, Loss
from telecine_components.training.guard import Guard, GuardConfig, Verdict
from telecine_components.training.ledger import Ledger
from telecine_components.training.loader import StepBatches
from telecine_components.training.saver import Checkpoints as Saves
from telecine_components.training.saver import Saver
from telecine_components.training.straggler import StragglerWatch, Window

log = logging.getLogger(__name__)

STEPS_COMPARED = 50
"""Over which the ranks' times are compared."""


@dataclasses.dataclass(frozen=True)
class StepResult:
    """One step, on all ranks.

    Attributes:
        step: optimiser steps done.
        grad_norm: before clipping.
        flops: of the step, by the plan's count.
        step_time_s: wall seconds since the step before was done, without checkpoints and evaluations, on this rank.
        data_wait_s: of these, waiting for its batches.
        num_rollbacks: of the run so far.
        ranks: how the ranks compare, where a window of steps ended with this one.
    """

    step: int
    loss: float
    grad_norm: float
    learning_rate: float
    num_samples: int
    flops: float
    step_time_s: float
    data_wait_s: float
    num_rollbacks: int = 0
    ranks: Window | None = None


class Checkpoints(Saves, Protocol):
    """Where checkpoints are committed and found (``ctx.checkpoints``)."""

    def latest(self, counts: Callable[[int], bool] = ...) -> Any: ...


class NoCheckpoints:
    """What a rank that follows has: rank 0 saves and restores for it."""

    def latest(self, counts: Callable[[int], bool] = lambda _: True) -> None:
        """None."""

    def save(self, step: int, write: Callable[[Path], Mapping[str, str] | None], *, score: float | None = None) -> None:
        """Nothing."""

    def prune(self, keep: Keep) -> None:
        """Nothing."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Hooks:
    """What a loop is watched and steered by; on ranks that follow, what is left out does nothing.

    Attributes:
        observe: called on rank 0 after each step.
        evaluate: called on every rank where ``config.eval_every_steps`` says so and after the last step; what it
            returns on rank 0 joins the history, ``eval/loss`` being what the best checkpoints are chosen by.
        stop_requested: asked between steps.
    """

    observe: Callable[[StepResult], None] = lambda _: None
    evaluate: Callable[[int], dict[str, float]] = lambda _: {}
    stop_requested: Callable[[], bool] = lambda: False


def train(
    engine: Engine,
    *,
    steps: Callable[[int], StepBatches],
    loss: Loss,
    checkpoints: Checkpoints,
    hooks: Hooks = Hooks(),
    ledger: Ledger | None = None,
    eval_every_steps: int = 0,
) -> TrainingState:
    """Train from the latest checkpoint to ``config.num_steps``, saving at intervals and at the end.

    Args:
        steps: this rank's batches of a step of the data's plan, from 0.

    Raises:
        RetryLater: after a checkpoint was saved because a stop was requested.
        FloatingPointError: bad steps after more rollbacks in a row than ``config.max_rollbacks``, or before there was
            a checkpoint to go back to.
    """
    return Loop(engine, steps, loss, checkpoints, hooks, ledger or Ledger(), eval_every_steps).run()


class Loop:
    """A run of :func:`train`."""

    def __init__(
        self,
        engine: Engine,
        steps: Callable[[int], StepBatches],
        loss: Loss,
        checkpoints: Checkpoints,
        hooks: Hooks,
        ledger: Ledger,
        eval_every_steps: int,
    ) -> None:
        self.engine, self.config, self.ranks = engine, engine.config, engine.ranks
        self._steps, self._loss, self._checkpoints = steps, loss, checkpoints
        self._hooks, self._ledger, self._eval_every = hooks, ledger, eval_every_steps
        self._guard = Guard(guard_config(self.config))
        self._stragglers = StragglerWatch(rank=self.ranks.number, window=STEPS_COMPARED)
        self._state = TrainingState()

    def run(self) -> TrainingState:
        """Train to the end; see :func:`train`."""
        config = self.config
        keep = Keep(
            last=config.keep_last,
            interval=config.checkpoint_every_steps,
            best=config.keep_best,
            every_steps=config.keep_every_steps,
        )
        with self._ledger.spend("checkpoint_restore"):
            self._restore()
        self._guard.load(self._state.guard) if self._state.guard else None
        self._ledger.restored(self._state.step)
        # Around the steps there is nothing but what is left to save when they end.
        with self._ledger.spend("checkpoint_save"), Saver(self._checkpoints, keep=keep) as saver:
            while self._state.step < self.config.num_steps:
                with self._ledger.spend("productive"):
                    stopping = self._take(saver)
                if stopping and self._state.step < self.config.num_steps:
                    saver.wait()
                    raise RetryLater(
                        f"stopped after step {self._state.step} of {self.config.num_steps}; its checkpoint is saved"
                    )
        return self._state

    def _take(self, saver: Saver) -> bool:
        """One step, and a checkpoint where one is due; returns whether a stop was requested on rank 0."""
        step, began = self._state.step, time.perf_counter()
        with self._ledger.spend("data_wait"):
            data = self._steps(self._state.data_step)
        waited_s = time.perf_counter() - began
        share = self.engine.backward(data, self._loss)
        with self._ledger.spend("checkpoint_save"):
            saver.settle()
        grad_norm = self.engine.update(step)
        asked = float(self.ranks.leads and self._hooks.stop_requested())
        loss, stop = self.ranks.total(share.loss, asked)
        verdict = self._guard.see(step, loss, grad_norm)
        if verdict is not None:
            self._go_back(verdict, saver)
            return False
        window = self._compare(step, share.busy_s, waited_s)
        if window is not None:
            self._ledger.move(window.lost_s, "productive", "straggler")
        result = StepResult(
            step=step + 1,
            loss=loss,
            grad_norm=grad_norm,
            learning_rate=self.config.learning_rate_at(step),
            num_samples=data.num_samples,
            flops=data.flops,
            step_time_s=self._ledger.step(step + 1),
            data_wait_s=waited_s,
            num_rollbacks=len(self._state.rollbacks),
            ranks=window,
        )
        self._advance(result)
        self._save_if_due(saver, stopping=stop > 0)
        return stop > 0

    def _advance(self, result: StepResult) -> None:
        """Count the step, tell those who watch, evaluate where it is time to."""
        values = {"train/loss": result.loss, "train/grad_norm": result.grad_norm, "train/lr": result.learning_rate}
        if self.ranks.leads:
            self._hooks.observe(result)
        if result.step == self.config.num_steps or (self._eval_every and result.step % self._eval_every == 0):
            with self._ledger.spend("evaluation"):
                values |= self._hooks.evaluate(result.step)
                self.ranks.meet()  # who waits for the others' evaluation must not seem to hang in a step
        history = self._state.history
        for name, value in values.items() if self.ranks.leads else ():
            history.setdefault(name, []).append((result.step, value))
        self._state = dataclasses.replace(
            self._state,
            step=result.step,
            data_step=self._state.data_step + 1,
            num_samples=self._state.num_samples + result.num_samples,
            guard=self._guard.state(),
        )

    def _save_if_due(self, saver: Saver, *, stopping: bool) -> None:
        state = self._state
        last = state.step == self.config.num_steps
        if not (stopping or last or state.step % self.config.checkpoint_every_steps == 0):
            return
        with self._ledger.spend("checkpoint_save"):
            files = self.engine.collect(state)
            if self.ranks.leads:
                self._ledger.mark(state.step)
                saver.save(state.step, files, state.document(), score=_newest(state, "eval/loss"))
            if last:
                saver.wait()
            self.ranks.meet()  # rank 0 may have waited for the checkpoint before

    def _go_back(self, verdict: Verdict, saver: Saver) -> None:
        """Restore the last checkpoint before the bad step and go on with the data after it.

        One that a stop left behind, or another attempt that is ahead, does not count: where a run goes back to is a
        function of its losses.
        """
        skipped, earlier = self._state.data_step + 1, self._state.rollbacks
        line = self._guard.go_back(verdict)
        with self._ledger.spend("checkpoint_restore"):
            saver.wait()
            self._restore(
                lambda step: step <= verdict.step and step % self.config.checkpoint_every_steps == 0, why=verdict
            )
        self._guard.load(self._state.guard, keep_rollbacks=True) if self._state.guard else None
        self._ledger.rolled_back(self._state.step)
        told = {"step": verdict.step, "to_step": self._state.step, "data_step": skipped, "reason": verdict.words}
        self._state = dataclasses.replace(self._state, data_step=skipped, rollbacks=[*earlier, told])
        if self.ranks.leads:
            log.warning("event=rolled_back to_step=%d %s", self._state.step, line)

    def _restore(self, counts: Callable[[int], bool] = lambda _: True, why: Verdict | None = None) -> None:
        found = self._checkpoints.latest(counts) if self.ranks.leads else None
        if not self.ranks.told(found is not None):
            if why is not None:
                raise FloatingPointError(f"{why.words}, before the first checkpoint; lower the learning rate")
            return
        self._state = self.engine.load(found.dir if found is not None else None)

    def _compare(self, step: int, busy_s: float, data_wait_s: float) -> Window | None:
        """The window of steps that ends with this one, if one does; a rank that is much slower is named."""
        window: Window | None = self._stragglers.step(step + 1, compute_s=busy_s, data_wait_s=data_wait_s)
        if window is not None and window.slow and self.ranks.leads:
            log.warning("event=straggler step=%d reason=%r", window.step, window.words)
        return window


def guard_config(config: TrainingConfig) -> GuardConfig:
    """When a step of this training is bad."""
    watches = {"spike_z": config.spike_score} if config.spike_score else {"window": 0}
    return GuardConfig(max_rollbacks=config.max_rollbacks, **watches)


def _newest(state: TrainingState, name: str) -> float | None:
    points = state.history.get(name)
    return points[-1][1] if points and points[-1][0] == state.step and math.isfinite(points[-1][1]) else None
