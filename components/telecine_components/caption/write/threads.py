"""An executor for work that waits more than it computes: threads of this process."""

import concurrent.futures
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from telecine.context import Source
from telecine.work.items import Batch


@dataclasses.dataclass(frozen=True, kw_only=True)
class Threads:
    """Makes up to ``num_threads`` items at a time, and commits each as soon as it is made."""

    num_threads: int

    def __call__(
        self, batch: Batch, sources: Mapping[int, Source], scratch: Path, stopping: Callable[[], bool]
    ) -> Iterator[int]:
        """See :class:`telecine.work.items.Executor`; what one item raises ends all, once those begun have ended."""
        items, waiting = batch.open(scratch), iter(sources.items())
        begun: dict[concurrent.futures.Future[object], int] = {}
        with concurrent.futures.ThreadPoolExecutor(self.num_threads) as pool:
            while True:
                while len(begun) < self.num_threads and not stopping() and (task := next(waiting, None)):
                    begun[pool.submit(items.through, task[1], batch.stages)] = task[0]
                if not begun:
                    return
                ended, _ = concurrent.futures.wait(begun, return_when=concurrent.futures.FIRST_COMPLETED)
                for future in ended:
                    number = begun.pop(future)
                    future.result()
                    yield number
