"""The cluster's attempts at a piece of work, numbered in the store before anything is asked of the cluster.

``<work>/cluster/<number>.json`` claims a number, ``<number>.made.json`` says that its object stood, and
``<number>.ended.json`` how that ended. Each is made once, by whoever is first, and stands: so two workers at once make
one object, and a worker that comes later finds it. ``<number>.log`` keeps what pods said that no attempt could ship.
"""

import dataclasses
import re
import time
from typing import Any

from telecine.kube import Ref
from telecine.storage import Store, to_json
from telecine.work.runs import Pointer


@dataclasses.dataclass(frozen=True, kw_only=True)
class Record:
    """A claimed number.

    Attributes:
        ref: the object.
        run, task: whose name its pods carry.
        logs: the attempts' logs that the work had before.
        pointed: when that task's pointer had last changed, empty where there was none.
        created: seconds since the epoch.
    """

    number: int
    ref: Ref
    run: str
    task: str
    logs: list[str]
    pointed: str
    created: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ended:
    """How a number ended.

    Attributes:
        code: the component's exit code where it was told.
        hardware: the node is to blame.
        at: seconds since the epoch.
    """

    reason: str
    code: int | None = None
    node: str = ""
    hardware: bool = False
    at: float = dataclasses.field(default_factory=time.time)


def newest(store: Store, prefix: str) -> Record | None:
    """The record with the highest number."""
    numbers = _numbers(store, prefix)
    return read(store, prefix, numbers[-1]) if numbers else None


def read(store: Store, prefix: str, number: int) -> Record | None:
    """One record, if it stands."""
    values = store.read_json(f"{prefix}/cluster/{number}.json")
    return Record(**{**values, "ref": Ref(**values["ref"])}) if values else None


def claim(store: Store, prefix: str, number: int, ref: Ref, *, run: str, task: str) -> bool:
    """Take a number; False where somebody else was first."""
    logs = [entry.path for entry in store.entries(f"{prefix}/logs")]
    pointed = pointer_changed(store, run, task)
    record = Record(number=number, ref=ref, run=run, task=task, logs=logs, pointed=pointed, created=time.time())
    return store.create(f"{prefix}/cluster/{number}.json", to_json(dataclasses.asdict(record)))


def pointer(store: Store, run: str, task: str) -> Pointer | None:
    """What a task points to."""
    values = store.read_json(_pointer_path(run, task))
    return Pointer(**values) if values else None


def pointer_changed(store: Store, run: str, task: str) -> str:
    """When a task's pointer last changed, by the store's clock; empty where there is none."""
    entry = store.head(_pointer_path(run, task))
    return f"{entry.modified.isoformat()} {entry.etag}" if entry else ""


def is_made(store: Store, prefix: str, number: int) -> bool:
    """Whether the number's object is known to have stood."""
    return store.head(f"{prefix}/cluster/{number}.made.json") is not None


def mark_made(store: Store, prefix: str, number: int) -> None:
    """Record that the number's object stands."""
    store.create(f"{prefix}/cluster/{number}.made.json", to_json({"at": time.time()}))


def ended(store: Store, prefix: str, number: int) -> Ended | None:
    """How a number ended, None where that is not known."""
    values = store.read_json(f"{prefix}/cluster/{number}.ended.json")
    return Ended(**values) if values else None


def mark_ended(store: Store, prefix: str, number: int, how: Ended) -> Ended:
    """Record how a number ended; the first record stands and is returned."""
    store.create(f"{prefix}/cluster/{number}.ended.json", to_json(dataclasses.asdict(how)))
    return ended(store, prefix, number) or how


def broken_nodes(store: Store, prefix: str) -> list[str]:
    """Nodes whose hardware ended an attempt at this work."""
    ends = [ended(store, prefix, number) for number in _numbers(store, prefix)]
    return sorted({how.node for how in ends if how is not None and how.hardware and how.node})


def log_path(prefix: str, number: int) -> str:
    """Where the words of a number's pods are kept."""
    return f"{prefix}/cluster/{number}.log"


def _pointer_path(run: str, task: str) -> str:
    return f"runs/{run}/tasks/{task}.json"


def _numbers(store: Store, prefix: str) -> list[int]:
    names: list[Any] = [
        re.fullmatch(r"(\d+)\.json", e.path.rpartition("/")[2]) for e in store.entries(f"{prefix}/cluster")
    ]
    return sorted(int(found[1]) for found in names if found)
