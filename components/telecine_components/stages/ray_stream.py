"""Items made by a Ray cluster: each stage has actors of its own kind, and items stream through them.

An actor does nothing itself: it keeps one worker process of :mod:`telecine_components.stages.pool`, so a decoder that
hangs or crashes costs the same one item here as on a laptop, and the results are equal. What a lost actor had not
committed, Ray gives to another one.
"""

import dataclasses
import json
import math
import os
from collections.abc import Callable, Generator, Mapping, Sequence
from pathlib import Path
from typing import Any

from telecine import errors
from telecine.context import Source
from telecine.errors import TelecineError
from telecine.work.items import Batch
from telecine_components.stages.pool import Crew, Pool

GIB = 1 << 30
MAX_BLOCKS = 1000
"""Parts of a batch that Ray hands out and, after a loss, hands out again."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class RayStream:
    """Executor by Ray Data's streaming, which holds each stage back that runs ahead of the next.

    Attributes:
        stall_s: see :class:`telecine_components.stages.pool.Pool`.
    """

    stall_s: float = 120.0

    def __call__(
        self, batch: Batch, sources: Mapping[int, Source], scratch: Path, stopping: Callable[[], bool]
    ) -> Generator[int, None, None]:
        """See :class:`telecine.work.items.Executor`; what is sent from stage to stage is that an item is committed."""
        import ray.data

        ray.init(ignore_reinit_error=True, log_to_driver=False)
        ray.data.DataContext.get_current().enable_progress_bars = False
        room = ray.cluster_resources()
        rows = [
            {"number": number, "source": json.dumps(dataclasses.asdict(source)), "error": ""}
            for number, source in sources.items()
        ]
        dataset: Any = ray.data.from_items(rows, override_num_blocks=min(len(rows), MAX_BLOCKS))
        stages: Sequence[Any] = batch.stages
        for index, stage in enumerate(stages):
            so_far = dataclasses.replace(batch, stages=stages[: index + 1])
            dataset = dataset.map_batches(
                Actor,
                fn_constructor_args=(so_far, scratch, self.stall_s),
                batch_size=1,
                compute=ray.data.ActorPoolStrategy(min_size=1, max_size=_most(stage, room)),
                num_cpus=stage.cpus,
                num_gpus=stage.gpus,
                memory=stage.memory_gib * GIB,
            )
        for row in dataset.iter_rows():
            if row["error"]:
                name, _, message = row["error"].partition(": ")
                raise getattr(errors, name)(message)
            yield int(row["number"])
            if stopping():
                return


class Actor:
    """Does one stage; what the stages before it made of a source it finds by their commits."""

    def __init__(self, batch: Batch, scratch: Path, stall_s: float) -> None:
        self._crew = Crew(batch, scratch / f"actor-{os.getpid()}", Pool(stall_s=stall_s))

    def __call__(self, rows: dict[str, Any]) -> dict[str, Any]:
        """Make the item of a row; an error of ours is told in the row, any other ends the stream."""
        number, source = int(rows["number"][0]), Source(**json.loads(str(rows["source"][0])))
        if not rows["error"][0]:
            try:
                list(self._crew.make({number: source}, lambda: False))
            except TelecineError as error:
                rows["error"] = [f"{type(error).__name__}: {error}"]
        return rows

    def close(self) -> None:
        """Dismiss the worker process."""
        self._crew.close()


def _most(stage: Any, room: Mapping[str, float]) -> int:
    """How many actors of a stage the whole cluster has room for."""
    needs = {"CPU": stage.cpus, "GPU": stage.gpus, "memory": stage.memory_gib * GIB}
    most: float = min(room.get(name, 0.0) / need for name, need in needs.items() if need)
    return max(1, math.floor(most))
