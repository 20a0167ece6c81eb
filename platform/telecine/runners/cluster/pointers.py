"""What a task of a run points to while a cluster does its work, where the component cannot say so itself."""

import dataclasses
from typing import TYPE_CHECKING

from telecine.errors import TelecineError
from telecine.launch import Launch
from telecine.redaction import mask
from telecine.runners.cluster import records
from telecine.runners.cluster.words import State
from telecine.storage import Store
from telecine.work import commits, runs
from telecine.work.runs import Pointer

if TYPE_CHECKING:
    from telecine.runners.cluster.jobs import Submission


def to_waiting(store: Store, launch: Launch) -> None:
    """Point to work that is about to be asked for; what a living pod wrote stands."""
    now = records.pointer(store, launch.run, launch.task)
    if now is not None and now.key == launch.key and now.decision == "running":
        return
    inputs = {field.name: getattr(launch.inputs, field.name) for field in dataclasses.fields(launch.inputs)}
    pointer = Pointer(
        task=launch.task,
        component=launch.component.name,
        key=launch.key,
        decision="running",
        reason="handed over to the cluster",
        inputs=inputs,
    )
    runs.point(store, launch.run, pointer)


def to_refusal(store: Store, launch: Launch, error: TelecineError) -> None:
    """Point to why the work could not be asked for; an attempt that an earlier call asked for goes on and stands."""
    now = records.pointer(store, launch.run, launch.task)
    if now is None or now.attempt is not None:
        return
    refused = dataclasses.replace(
        now, decision="failed", reason="refused", error=mask(str(error)), exit_code=error.exit_code
    )
    runs.point(store, launch.run, refused)


def to_commit(store: Store, made: "Submission", record: commits.Record) -> None:
    """Point to the commit, where the job did so in another task's name, or has not come to it."""
    now = records.pointer(store, made.run, made.task)
    if now is not None and now.key == made.key and now.decision in runs.SETTLED:
        return
    ours = (record["run"], record["task"]) == (made.run, made.task)
    pointer = Pointer(
        task=made.task,
        component=made.component,
        key=made.key,
        decision="ran" if ours else "reused",
        reason=f"{made.object} ran it" if ours else f"run {record['run']} did the same work meanwhile",
        inputs=record["inputs"],
        outputs=commits.resolved_outputs(store, record),
        attempt=record["attempt"],
        mlflow_run_id=record["mlflow_run_id"],
        seconds=record["seconds"] if ours else 0.0,
    )
    runs.point(store, made.run, pointer)


def to_failure(store: Store, made: "Submission", found: State) -> None:
    """Point to the failure, where the component could not do so; an attempt that goes on unwatched is none."""
    now = records.pointer(store, made.run, made.task)
    if found.phase == "locked_out" and now is not None and now.key == made.key and now.attempt is not None:
        return
    if now is not None and now.key == made.key and now.decision == "failed" and now.error == found.reason:
        return
    attempt = now if now is not None and now.key == made.key else None
    blank = Pointer(task=made.task, component=made.component, key=made.key, decision="failed", reason="", inputs={})
    failed = dataclasses.replace(
        attempt or blank,
        decision="failed",
        reason=f"{made.object} ended",
        error=mask(found.reason),
        exit_code=found.code or 1,
    )
    runs.point(store, made.run, failed)
