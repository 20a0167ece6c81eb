"""Runs: one id for everything that a person started, and what each of its tasks points to.

``<store>/runs/<run>/run.json`` says where the run came from, ``<task>.json`` which work a task met and why.
"""

import dataclasses
import hashlib
import re
import time
from typing import Any

from telecine.errors import InputError
from telecine.storage import Store, to_json

MAX_LENGTH = 40
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


def slug(dag_id: str, airflow_run_id: str) -> str:
    """Label of a run, at most 40 characters of ``[a-z0-9-]``, the same for the same DAG and Airflow run id."""
    digest = hashlib.sha256(f"{dag_id}\n{airflow_run_id}".encode()).hexdigest()[:10]
    stem = re.sub(r"[^a-z0-9]+", "-", dag_id.lower()).strip("-")[: MAX_LENGTH - len(digest) - 1].strip("-")
    return f"{stem}-{digest}"


def check_slug(run: str) -> str:
    """The slug itself; raises :class:`InputError` for what cannot be a label and a folder name."""
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,39}", run):
        raise InputError(f"a run must be 1 to {MAX_LENGTH} characters of a-z, 0-9 and -, got {run!r}")
    return run


def register(store: Store, run: str, **origin: Any) -> dict[str, Any]:
    """Record where a run came from; the first record stands."""
    path = f"runs/{run}/run.json"
    store.create(path, to_json({"run": run, "started": time.time(), **origin}))
    record: dict[str, Any] = store.read_json(path)
    return record


def point(store: Store, run: str, pointer: Pointer) -> None:
    """Record what a task of a run met; the newest record stands."""
    store.write_json(f"runs/{run}/tasks/{pointer.task}.json", dataclasses.asdict(pointer))


def pointers(store: Store, run: str) -> list[Pointer]:
    """Every task of a run in the order they began."""
    records = [store.read_json(entry.path) for entry in store.entries(f"runs/{run}/tasks")]
    return sorted((Pointer(**record) for record in records if record), key=lambda pointer: pointer.started)


def names(store: Store) -> list[str]:
    """Every run, newest first."""
    records = [(store.read_json(f"runs/{run}/run.json") or {"started": 0.0}, run) for run in store.folders("runs")]
    return [run for record, run in sorted(records, key=lambda pair: pair[0]["started"], reverse=True)]
