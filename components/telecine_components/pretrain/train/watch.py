"""What rank 0 tells of a training while it goes on: progress, MLflow's series, the ledger, and a dog that barks."""

import logging
import math
import statistics
from types import TracebackType

import torch

from telecine.context import Context
from telecine_components.pretrain.train.spec import Inputs
from telecine_components.training.ledger import Ledger
from telecine_components.training.loop import StepResult
from telecine_components.training.ranks import Ranks
from telecine_components.training.watchdog import Watchdog
from telecine_models.flops import mfu, peak_flops

log = logging.getLogger(__name__)

LEDGER_EVERY_STEPS = 50


def others_watched(inputs: Inputs, ctx: Context, ledger: Ledger, ranks: Ranks) -> Watchdog:
    """A dog that barks at other ranks alone: what this one does by itself takes as long as it takes."""
    return Watchdog(
        ledger, save=ctx.save_state, roll_call=ranks.roll_call, floor_s=inputs.hang_floor_s, patience_s=math.inf
    )


class Watcher:
    """Watches one attempt; a context manager."""

    def __init__(self, inputs: Inputs, ctx: Context, ledger: Ledger, ranks: Ranks) -> None:
        self._inputs, self._ctx, self._ledger, self._ranks = inputs, ctx, ledger, ranks
        self._peak = peak_flops(torch.cuda.get_device_name(ranks.device)) if ranks.device.type == "cuda" else None
        self._executed = 0
        self._notable: dict[str, float] = {}
        self._watchdog = Watchdog(ledger, save=ctx.save_state, roll_call=ranks.roll_call, floor_s=inputs.hang_floor_s)

    def __enter__(self) -> "Watcher":
        log.info("event=train_start num_steps=%d ranks=%d", self._inputs.num_steps, self._ranks.size)
        self._watchdog.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._watchdog.__exit__(kind, error, trace)
        log.info("event=train_end executed=%d goodput=%.3f", self._executed, self._goodput())

    def observe(self, result: StepResult) -> None:
        """Say how a step went."""
        self._executed += 1
        speed = self._speed(result)
        shown = {name.removeprefix("perf/"): value for name, value in speed.items()}
        told = {"loss": result.loss, "executed": float(self._executed), **shown, **self._noted(result)}
        self._ctx.progress(result.step, self._inputs.num_steps, **told)
        values = {"train/loss": result.loss, "train/grad_norm": result.grad_norm, "train/lr": result.learning_rate}
        values |= _rank_times(result)
        if result.step % LEDGER_EVERY_STEPS == 0 or result.step == self._inputs.num_steps:
            values |= {f"goodput/{cause}_s": seconds for cause, seconds in self._ledger.total().items()}
            values["goodput/productive_ratio"] = self._goodput()
            values["guard/rollbacks"] = float(result.num_rollbacks)
        self._ctx.tracker.metrics(values | speed, result.step)

    def evaluated(self, loss: float, step: int) -> dict[str, float]:
        """Say what a look at the held-out loss found."""
        self._ctx.tracker.metrics({"eval/loss": loss}, step)
        return {"eval/loss": loss}

    def _noted(self, result: StepResult) -> dict[str, float]:
        """What a person has to see beside progress: rollbacks, and the slowest of several ranks when last compared."""
        if result.num_rollbacks:
            self._notable["rollbacks"] = float(result.num_rollbacks)
        if result.ranks is not None and len(result.ranks.step_s) > 1:
            times = result.ranks.step_s
            slowest = max(range(len(times)), key=times.__getitem__)
            self._notable |= {
                "slowest_rank": float(slowest),
                "slowest_rank_s": times[slowest],
                "median_rank_s": statistics.median_low(times),
            }
        return self._notable

    def _speed(self, result: StepResult) -> dict[str, float]:
        per_s = 1 / max(result.step_time_s, 1e-9)
        speed = {
            "perf/step_time_s": result.step_time_s,
            "perf/data_wait_s": result.data_wait_s,
            "perf/samples_per_s": result.num_samples * per_s,
            "perf/flops_per_s": result.flops * per_s,
        }
        reached = mfu(result.flops * per_s / self._ranks.size, self._peak)
        return speed if reached is None else speed | {"perf/mfu": reached}

    def _goodput(self) -> float:
        ratio: float = self._ledger.document()["productive_ratio"]
        return ratio


def _rank_times(result: StepResult) -> dict[str, float]:
    """Seconds for which each of several ranks was busy with its median step, where they were compared."""
    times = result.ranks.step_s if result.ranks is not None else []
    return {f"ranks/{rank}_busy_s": seconds for rank, seconds in enumerate(times)} if len(times) > 1 else {}
