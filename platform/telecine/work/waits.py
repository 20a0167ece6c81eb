"""What a task waits for in a cluster: ``<store>/runs/<run>/waits/<task>.json``, written by whoever watches its job.

It is no pointer: that belongs to the component itself, which may not have begun.
"""

import dataclasses
import time
from typing import Any

from telecine.storage import Store


@dataclasses.dataclass(frozen=True, kw_only=True)
class Wait:
    """One task's job as it was last seen.

    Attributes:
        component, key: the work.
        object: kind and name of the job, ``Job train-3f2a9c1b04-1``.
        phase: refused, queued, starting, running or away.
        reason: in plain words.
        since: when this phase was first seen, seconds since the epoch.
        at: when the job was last seen.
        node: where it runs.
        placed: when it was first seen to have that node; None while it has none.
        pending_s: time for which it has been waiting to start, without a break.
        hopeless_s: the part of it for which nothing pointed to an end.
    """

    task: str
    component: str
    key: str
    object: str
    phase: str
    reason: str
    since: float = dataclasses.field(default_factory=time.time)
    at: float = dataclasses.field(default_factory=time.time)
    node: str = ""
    placed: float | None = None
    pending_s: float = 0.0
    hopeless_s: float = 0.0


def write(store: Store, run: str, wait: Wait) -> None:
    """Record what a task waits for; the newest record stands."""
    store.write_json(_path(run, wait.task), dataclasses.asdict(wait))


def read(store: Store, run: str, task: str) -> Wait | None:
    """What a task was last seen to wait for."""
    values: dict[str, Any] | None = store.read_json(_path(run, task))
    return Wait(**values) if values else None


def of(store: Store, run: str) -> list[Wait]:
    """Every wait of a run, in the order they began."""
    records = [store.read_json(entry.path) for entry in store.entries(f"runs/{run}/waits")]
    return sorted((Wait(**values) for values in records if values), key=lambda wait: wait.since)


def clear(store: Store, run: str, task: str) -> None:
    """A task waits no more."""
    store.delete(_path(run, task))


def _path(run: str, task: str) -> str:
    return f"runs/{run}/waits/{task}.json"
