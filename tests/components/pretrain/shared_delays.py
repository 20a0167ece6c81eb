"""pretrain.train with slow parts: ``shared_delays.py INPUTS TOLD [KILL_AT]``.

What the component is given (inputs, data, checkpoints, tracker, compiler) is the real thing behind a delay. Each delay
leaves a line in the file TOLD: what was slow, at which step, for how long, and what the ledger made of it meanwhile.
"""

import contextlib
import dataclasses
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from telecine import component, settings
from telecine.component import Component
from telecine.context import Context
from telecine.execution import Call, execute
from telecine.reading import Reader
from telecine.tracking import RunTracker
from telecine.work.checkpoints import Checkpoint, Checkpoints

DELAY_S, STEP_S = 0.4, 0.8


class Delays:
    """Makes this process wait, and writes down what the ledger says of the wait."""

    def __init__(self, ctx: Context, told: Path) -> None:
        self._ctx, self._told = ctx, told

    @contextlib.contextmanager
    def after(self, part: str, seconds: float = DELAY_S, *, step: int = -1) -> Iterator[None]:
        """A delay; the block follows it."""
        before, began = self._seconds(), time.perf_counter()
        time.sleep(seconds)
        slept, now = time.perf_counter() - began, self._seconds()
        grown = {cause: now[cause] - before[cause] for cause in now}
        with self._told.open("a") as file:
            print(json.dumps([self._ctx.attempt, part, step, slept, grown]), file=file)
        yield

    def _seconds(self) -> dict[str, float]:
        ledger = self._ctx._attempt.ledger
        assert ledger is not None
        seconds: dict[str, float] = ledger()["times"]["seconds"]
        return seconds


class SlowReader(Reader):
    """Artifacts come late, and so does a shard that is read for the first time while training waits for it."""

    delays: Delays

    def fetch(self, uri: str) -> Path:
        """As :class:`Reader`."""
        with self.delays.after("reading an input"):
            return super().fetch(uri)

    def path(self, store_path: str) -> Path:
        """As :class:`Reader`."""
        reads_ahead = threading.current_thread().name.startswith("loader")
        with self.delays.after("opening a shard") if reads_ahead else contextlib.nullcontext():
            return super().path(store_path)


class SlowCheckpoints:
    """Checkpoints are found late, and the last one is late to be durable: nothing is done beside it."""

    def __init__(self, inner: Checkpoints, delays: Delays, last_step: int) -> None:
        self._inner, self._delays, self._last_step = inner, delays, last_step
        self.prune = inner.prune

    def latest(self, counts: Callable[[int], bool] = lambda _: True) -> Checkpoint | None:
        """As :class:`Checkpoints`."""
        with self._delays.after("finding a checkpoint"):
            return self._inner.latest(counts)

    def save(self, step: int, write: Any, *, score: float | None = None) -> None:
        """As :class:`Checkpoints`."""
        with self._delays.after("saving", step=step) if step == self._last_step else contextlib.nullcontext():
            self._inner.save(step, write, score=score)


class SlowTracker:
    """What is told of a step, and of an evaluation, takes long; after one step the process is killed."""

    def __init__(self, inner: RunTracker, delays: Delays, ctx: Context, kill_at: int) -> None:
        self._inner, self._delays, self._ctx, self._kill_at = inner, delays, ctx, kill_at

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """As :class:`RunTracker`."""
        part, seconds = ("evaluating", DELAY_S) if "eval/loss" in values else ("stepping", STEP_S)
        with self._delays.after(part, seconds, step=step):
            self._inner.metrics(values, step)
        if step == self._kill_at and part == "stepping":
            self._ctx.save_state()
            os.kill(os.getpid(), signal.SIGKILL)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Slow(Component):
    """A component that is given slow parts."""

    told: Path
    kill_at: int

    def load(self) -> Any:
        """As :class:`Component`."""
        entry = super().load()

        def run(inputs: Any, ctx: Context) -> Any:
            delays = Delays(ctx, self.told)
            reader = SlowReader(ctx.store, ctx.scratch)
            reader.delays = delays

            def compiler(graph: torch.fx.GraphModule, _: Any) -> Any:
                with delays.after("compiling"):
                    return graph.forward

            torch.compiler.set_default_backend(compiler)
            slow: dict[str, Any] = {
                "_reader": reader,
                "checkpoints": SlowCheckpoints(ctx.checkpoints, delays, inputs.num_steps),
                "tracker": SlowTracker(ctx.tracker, delays, ctx, self.kill_at),
            }
            return entry(inputs, dataclasses.replace(ctx, **slow))

        return run


def main() -> None:
    """Train; the parts are slow from the first line of the component on."""
    found = component.find("pretrain.train")
    fields = {field.name: getattr(found, field.name) for field in dataclasses.fields(found)}
    slow = Slow(**fields, told=Path(sys.argv[2]), kill_at=int(sys.argv[3]) if len(sys.argv) > 3 else -1)
    inputs = found.parse(json.loads(sys.argv[1]))
    execute(Call(component=slow, inputs=inputs, run="delays", task=found.name, settings=settings.from_environment()))


if __name__ == "__main__":
    main()
