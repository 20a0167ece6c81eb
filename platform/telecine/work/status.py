"""What a run is doing: the join of its pointers, its attempts' heartbeats and its commits."""

import time
from typing import Any

from telecine.storage import Store
from telecine.work import attempts, runs
from telecine.work.runs import Pointer

SILENT_S = 15.0


def of(store: Store, run: str) -> dict[str, Any]:
    """One JSON value for everything that can be said about a run."""
    record = store.read_json(f"runs/{run}/run.json") or {}
    tasks = [_task(store, pointer) for pointer in runs.pointers(store, run)]
    claim = store.read_json(f"runs/{run}/mlflow.json") or {}
    return {**record, "run": run, "store": store.uri, "mlflow_run_id": claim.get("run_id"), "tasks": tasks}


def render(report: dict[str, Any]) -> str:
    """The report as a person reads it."""
    origin = f"{report['dag_id']} {report['airflow_run_id']}" if report.get("dag_id") else "a shell"
    lines = [f"run {report['run']}, from {origin}", f"store {report['store']}"]
    width = max((len(task["task"]) for task in report["tasks"]), default=0)
    for task in report["tasks"]:
        lines.append(f"  {task['task']:{width}}  {task['state']:9} {task['detail']}")
    if not report["tasks"]:
        lines.append("  no task has begun")
    return "\n".join(lines)


def _task(store: Store, pointer: Pointer) -> dict[str, Any]:
    state, detail, progress = pointer.decision, _settled(pointer), None
    if pointer.decision == "running":
        state, detail, progress = _running(store, pointer)
    return {
        "task": pointer.task,
        "component": pointer.component,
        "key": pointer.key,
        "started": pointer.started,
        "state": state,
        "detail": detail,
        "exit_code": pointer.exit_code,
        "progress": progress,
        "outputs": pointer.outputs,
        "mlflow_run_id": pointer.mlflow_run_id,
    }


def _settled(pointer: Pointer) -> str:
    if pointer.decision == "failed":
        return f"after {pointer.seconds:.1f} s: {pointer.error}"
    return f"{pointer.seconds:6.1f} s  {pointer.reason}"


def _running(store: Store, pointer: Pointer) -> tuple[str, str, dict[str, Any] | None]:
    beats = attempts.states(store, f"work/{pointer.component}/{pointer.key}")
    mine = next((beat for beat in beats if beat["attempt"] == pointer.attempt), None)
    if mine is None:
        return "starting", "", None
    progress = mine["progress"]
    silent_s = time.time() - float(mine["beat"])
    if silent_s > SILENT_S:
        return "silent", f"no heartbeat for {silent_s:.0f} s from pid {mine['pid']} on {mine['host']}", progress
    state = attempts.Progress(**progress)
    eta = f", about {state.eta_s:.0f} s left" if state.eta_s is not None else ""
    values = "".join(f" {name}={value:.4g}" for name, value in state.values.items())
    return "running", f"{state.done}/{state.total} ({state.ratio:.0%}{eta}){values}", progress
