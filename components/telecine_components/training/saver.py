"""Checkpoints beside the steps.

``save`` returns at once. A thread copies the state into memory that is used again, while the next step computes its
gradients, which changes nothing of it; then it writes, hashes, uploads, commits and prunes. ``settle`` waits for the
copy, before the weights move (as in CheckFreq, Mohan et al. 2021). One checkpoint is in flight: the next one waits for
it. A thread is enough, because what takes time there (copies, write, SHA-256, fsync, requests) runs without Python's
lock.

    with Saver(ctx.checkpoints, keep=Keep(last=2)) as saver:
        for step in ...:
            loss(module).backward()
            saver.settle()
            optimizer.step()
            saver.save(step, {"weights.safetensors": module.state_dict()}, {"step": step})
"""

import dataclasses
import json
import logging
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from telecine.work.retention import Keep
from telecine_components.training.snapshot import Snapshot

log = logging.getLogger(__name__)

DOCUMENT = "state.json"


class Checkpoints(Protocol):
    """Where checkpoints are committed (``ctx.checkpoints``)."""

    def save(
        self, step: int, write: Callable[[Path], Mapping[str, str] | None], *, score: float | None = None
    ) -> None: ...

    def prune(self, keep: Keep) -> None: ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class Durable:
    """A checkpoint that has been committed.

    Attributes:
        waited_s: how long the step waited for the checkpoint before this one.
        seconds: from the call of ``save`` to the commit, pruning not included.
        num_bytes: of all its files.
    """

    step: int
    waited_s: float
    seconds: float
    num_bytes: int


class Saver:
    """Saves checkpoints in the background, for one caller; as a context manager it ends when nothing is in flight.

    Args:
        keep: which checkpoints stay after each commit.
        on_durable: called after a commit, from the background thread; what it raises ends the run like a failed save.
    """

    def __init__(
        self, checkpoints: Checkpoints, *, keep: Keep, on_durable: Callable[[Durable], None] = lambda _: None
    ) -> None:
        self._checkpoints, self._keep, self._on_durable = checkpoints, keep, on_durable
        self._snapshots: dict[str, Snapshot] = {}
        self._background = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._copying: Future[None] | None = None
        self._in_flight: Future[None] | None = None

    def __enter__(self) -> "Saver":
        return self

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        self._background.shutdown()
        if error is None:
            self.wait()
        elif self._in_flight and (second := self._in_flight.exception()):
            # What ended the run is what a person has to hear.
            log.warning("event=checkpoint_failed error=%r", str(second))

    def save(
        self,
        step: int,
        tensors: Mapping[str, Mapping[str, Tensor]],
        document: Mapping[str, Any],
        *,
        score: float | None = None,
    ) -> float:
        """Commit the state as it is now as checkpoint ``step``, in the background.

        Args:
            tensors: by file name, then by name; they may change again after :meth:`settle` or :meth:`wait`.
            document: what ``state.json`` holds; turned into text at once, so keep long series among the tensors.
            score: how good the state is, lower is better, for ``Keep.best``.

        Returns:
            Seconds for which it waited for the checkpoint before this one.

        Raises:
            InputError: a tensor of a type that a checkpoint cannot hold.
            Exception: whatever the checkpoint before this one met in the background; this one is then not begun.
        """
        began = time.perf_counter()
        self.wait()
        waited_s = time.perf_counter() - began
        text = json.dumps(document, sort_keys=True).encode()
        files = {name: self._snapshots.setdefault(name, Snapshot()) for name in tensors}
        for name, file in files.items():
            file.lay_out(tensors[name])
        ready = (
            _recorded_event() if any(each.is_cuda for named in tensors.values() for each in named.values()) else None
        )

        def copy() -> None:
            for name, file in files.items():
                file.take(tensors[name], ready)

        def write(folder: Path) -> dict[str, str]:
            (folder / DOCUMENT).write_bytes(text)
            return {name: file.write(folder / name) for name, file in files.items()}

        def commit() -> None:
            copying.result()
            self._checkpoints.save(step, write, score=score)
            seconds = time.perf_counter() - began
            self._checkpoints.prune(self._keep)
            num_bytes = len(text) + sum(file.num_bytes for file in files.values())
            done = Durable(step=step, waited_s=waited_s, seconds=seconds, num_bytes=num_bytes)
            self._on_durable(done)

        self._copying = copying = self._background.submit(copy)
        self._in_flight = self._background.submit(commit)
        return waited_s

    def settle(self) -> None:
        """Wait until a state that is being saved is copied and may change; raises what the copy met."""
        copying, self._copying = self._copying, None
        if copying is not None:
            copying.result()

    def wait(self) -> None:
        """Wait until nothing is in flight, and raise what the background met."""
        in_flight, self._in_flight, self._copying = self._in_flight, None, None
        if in_flight is not None:
            in_flight.result()


def _recorded_event() -> torch.cuda.Event:
    """When all that the GPU has been given until now is done."""
    event = torch.cuda.Event()
    event.record()
    return event
