"""Runs: one id for everything that a person started, and what each of its tasks points to.

``<store>/runs/<run>/run.json`` says where the run came from, ``tasks/<task>.json`` beside it which work a task met and
why, ``mlflow-<tracker>.json`` which MLflow run is its parent there.
"""

import dataclasses
import re
import time
from collections.abc import Iterator
from typing import Any

from telecine.errors import InputError
from telecine.storage import Entry, Store, to_json

SETTLED = ("ran", "reused", "lost", "skipped")
"""Decisions after which a task has nothing left to do."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pointer:
    """What one task of a run met.

    Attributes:
        decision: ``running``, ``ran``, ``reused``, ``lost`` (a race, to an equal commit), ``skipped`` or ``failed``.
        reason: in plain words why it was, or was not, reused.
        inputs: the values as given, artifacts as URIs.
        exit_code: that of a failure.
        seconds: what the task took here, waiting excluded.
    """

    task: str
    component: str
    key: str
    decision: str
    reason: str
    inputs: dict[str, Any]
    outputs: dict[str, Any] | None = None
    attempt: str | None = None
    mlflow_run_id: str | None = None
    error: str | None = None
    exit_code: int = 0
    seconds: float = 0.0
    started: float = dataclasses.field(default_factory=time.time)


def check_task(task: str) -> str:
    """The task's name itself; raises :class:`InputError` for what cannot be a file's name and a word of a log line."""
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,249}", task):
        raise InputError(f"--task must be 1 to 250 characters of letters, digits, '_', '.' and '-', got {task!r}")
    return task


def register(store: Store, run: str, **origin: Any) -> dict[str, Any]:
    """Record where a run came from; the first record stands."""
    path = f"runs/{run}/run.json"
    store.create(path, to_json({"run": run, "started": time.time(), **origin}))
    record: dict[str, Any] = store.read_json(path)
    return record


def mlflow_claim(run: str, tracker_id: str) -> str:
    """Where the store keeps which MLflow run of one tracker is a run's parent."""
    return f"runs/{run}/mlflow-{tracker_id}.json"


def point(store: Store, run: str, pointer: Pointer) -> None:
    """Record what a task of a run met; the newest record stands."""
    store.write_json(f"runs/{run}/tasks/{pointer.task}.json", dataclasses.asdict(pointer))


def pointers(store: Store, run: str) -> list[Pointer]:
    """Every task of a run in the order they began."""
    return sorted((pointer for _, pointer in entries(store, run)), key=lambda pointer: pointer.started)


def entries(store: Store, run: str) -> Iterator[tuple[Entry, Pointer]]:
    """Every task's pointer with the object that holds it, whose age the store knows."""
    for entry in store.entries(f"runs/{run}/tasks"):
        record = store.read_json(entry.path)
        if record:
            yield entry, Pointer(**record)


def names(store: Store) -> list[str]:
    """Every run, newest first, by when its first record was made: one listing, however many there are."""
    made = [entry for entry in store.entries("runs") if entry.path.endswith("/run.json")]
    return [entry.path.split("/")[1] for entry in sorted(made, key=lambda entry: entry.modified, reverse=True)]
