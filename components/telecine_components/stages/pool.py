"""Items made by worker processes of this machine: one is killed when it hangs, replaced when it dies, and never trusted
with the batch.
"""

import collections
import contextlib
import dataclasses
import logging
from collections.abc import Callable, Generator, Mapping
from multiprocessing import connection
from pathlib import Path

from telecine.context import Source
from telecine.errors import RetryLater
from telecine.work.items import Batch
from telecine_components.stages.worker import Worker

log = logging.getLogger(__name__)

MAX_TRIES = 2
"""A worker may die of something else than its item, so each item that killed one gets another try."""
POLL_S = 0.5
DYING_S = 10.0
"""So long a process that let go of its end may take to end."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pool:
    """Executor with processes of this machine. Each takes an item through all stages: a free one is never idle.

    Attributes:
        num_workers: processes at most.
        stall_s: a worker that gives no sign of life for so long while it is at an item is killed.
        setup_s: and one for so long while it is set up, which ends the batch: no item is to blame for it.
    """

    num_workers: int = 1
    stall_s: float = 120.0
    setup_s: float = 600.0

    def __call__(
        self, batch: Batch, sources: Mapping[int, Source], scratch: Path, stopping: Callable[[], bool]
    ) -> Generator[int, None, None]:
        """See :class:`telecine.work.items.Executor`."""
        with contextlib.closing(Crew(batch, scratch, self)) as crew:
            yield from crew.make(sources, stopping)


class Crew:
    """Workers that stay for batch after batch of the same stages."""

    def __init__(self, batch: Batch, scratch: Path, pool: Pool) -> None:
        scratch.mkdir(parents=True, exist_ok=True)
        self._batch, self._scratch, self._pool = batch, scratch, pool
        self._poll_s = min(POLL_S, pool.stall_s / 4)
        self._workers: list[Worker] = []
        self._queue: collections.deque[tuple[int, Source]] = collections.deque()
        self._tries: collections.Counter[int] = collections.Counter()

    def make(self, sources: Mapping[int, Source], stopping: Callable[[], bool]) -> Generator[int, None, None]:
        """Yield the number of each source once its items are committed; those begun are ended when asked to stop.

        Raises:
            RetryLater: a worker hung while it was set up.
            Exception: what a stage raised, but bad data; the workers are dismissed then.
        """
        self._queue.extend(sources.items())
        while True:
            if stopping():
                self._queue.clear()
            self._feed()
            busy = [worker for worker in self._workers if worker.task is not None]
            if not busy:
                return
            heard = connection.wait([worker.connection for worker in busy], self._poll_s)
            for worker in busy:
                worker.listen_in(2 * self._poll_s)
                number = self._attend(worker) if worker.connection in heard else self._check(worker)
                if number is not None:
                    yield number

    def close(self) -> None:
        """Dismiss the workers; an item that one is at is lost, and no part of it is seen."""
        while self._workers:
            self._workers.pop().end()

    def _feed(self) -> None:
        while self._queue:
            idle = next((worker for worker in self._workers if worker.task is None), None)
            if idle is None and len(self._workers) == self._pool.num_workers:
                return
            if idle is None:
                idle = Worker(self._batch, self._scratch, beat_s=self._pool.stall_s / 4)
                self._workers.append(idle)
            idle.give(*self._queue.popleft())

    def _attend(self, worker: Worker) -> int | None:
        """Hear a worker; the number of the item that is now committed, if one is."""
        said = worker.hear()
        if said is None:
            return self._bury(worker)
        word, value = said
        if word == "failed":
            raise value
        if word == "done":
            worker.task = None
            return int(value)
        return None

    def _bury(self, worker: Worker) -> int | None:
        was_ready, (number, source) = worker.is_ready, worker.task or (-1, None)
        self._workers.remove(worker)
        how = worker.end(wait_s=DYING_S)
        if not was_ready:
            raise RuntimeError(f"a worker process ended with {how} while it was set up; see its output above")
        assert source is not None
        log.warning("event=worker_died source=%r how=%s", source.name, how)
        self._tries[number] += 1
        if self._tries[number] < MAX_TRIES:
            self._queue.appendleft((number, source))
            return None
        return self._refuse(number, source, f"the decoder crashed on it {MAX_TRIES} times: {how}")

    def _check(self, worker: Worker) -> int | None:
        """Kill a worker that hangs; the number of the item it was at."""
        at_most_s = self._pool.stall_s if worker.is_ready else self._pool.setup_s
        if worker.task is None or worker.silent_s < at_most_s:
            return None
        number, source = worker.task
        self._workers.remove(worker)
        worker.end()
        if not worker.is_ready:
            raise RetryLater(
                f"a worker process gave no sign of life for {at_most_s:g} s while it was set up; "
                "the same call goes on with what is missing"
            )
        return self._refuse(number, source, f"the decoder hung: no progress for {self._pool.stall_s:g} s")

    def _refuse(self, number: int, source: Source, reason: str) -> int:
        self._batch.open(self._scratch).refuse(source, self._batch.stages, reason)
        return number
