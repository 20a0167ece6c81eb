"""What a run is doing: the join of its pointers, its attempts' heartbeats and its commits."""

import time
from typing import Any

from telecine import settings
from telecine.errors import RetryLater
from telecine.storage import Store
from telecine.work import attempts, runs, waits
from telecine.work.runs import Pointer
from telecine.work.waits import Wait

SILENT_S = 15.0
MAX_COSTS = 3
"""Causes that a line of goodput names beside productive time."""
STALE_S = 300.0
"""A wait that nobody has written for so long is told with its age."""


def of(store: Store, run: str) -> dict[str, Any]:
    """One JSON value for everything that can be said about a run."""
    record = store.read_json(f"runs/{run}/run.json") or {}
    waiting = {wait.task: wait for wait in waits.of(store, run)}
    tasks = [_task(store, pointer, waiting.pop(pointer.task, None)) for pointer in runs.pointers(store, run)]
    tasks += [_waiting(wait) for wait in waiting.values()]
    claim = store.read_json(runs.mlflow_claim(run, settings.from_environment().tracker_id)) or {}
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


def coarse(progress: dict[str, Any]) -> str:
    """An attempt's progress in steps of ten per cent, for a log that is written where something has changed."""
    return f"{int(attempts.Progress(**progress).ratio * 10) * 10} % done"


def _task(store: Store, pointer: Pointer, wait: Wait | None) -> dict[str, Any]:
    state, detail, mine = pointer.decision, _settled(pointer), None
    if pointer.decision == "running":
        mine = attempts.state(store, f"work/{pointer.component}/{pointer.key}", str(pointer.attempt))
        state, detail = _running(mine) if mine else ("starting", "")
    if wait is not None and state not in ("running", *runs.SETTLED):
        return _waiting(wait)
    elif pointer.decision == "failed" and pointer.exit_code == RetryLater.exit_code:
        state = "waits"
    return {
        "task": pointer.task,
        "component": pointer.component,
        "key": pointer.key,
        "started": pointer.started,
        "state": state,
        "detail": detail,
        "exit_code": pointer.exit_code,
        "progress": mine["progress"] if mine else None,
        "ledger": mine.get("ledger") if mine else None,
        "heartbeat_age_s": round(float(mine["age_s"]), 1) if mine else None,
        "outputs": pointer.outputs,
        "mlflow_run_id": pointer.mlflow_run_id,
    }


def _waiting(wait: Wait) -> dict[str, Any]:
    """A task whose job has not come to life, or is between two pods."""
    on = f" on {wait.node}" if wait.node else ""
    for_s, old_s = time.time() - wait.since, time.time() - wait.at
    stale = f"; nobody has looked for {_span(old_s)}" if old_s > STALE_S else ""
    return {
        "task": wait.task,
        "component": wait.component,
        "key": wait.key,
        "started": wait.since,
        "state": "starting" if wait.phase == "running" else wait.phase,
        "detail": f"{wait.reason}{on}; {wait.object}, for {_span(for_s)}{stale}",
        "exit_code": 0,
        "progress": None,
        "ledger": None,
        "heartbeat_age_s": None,
        "outputs": None,
        "mlflow_run_id": None,
    }


def _span(seconds: float) -> str:
    """A length of time as a person says it: 40 s, 12 min, 3 h."""
    if seconds < 120:
        return f"{max(seconds, 0):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.0f} h"


def _settled(pointer: Pointer) -> str:
    if pointer.decision == "failed" and pointer.exit_code == RetryLater.exit_code:
        return f"after {pointer.seconds:.1f} s, goes on where it stopped when it is tried again: {pointer.error}"
    if pointer.decision == "failed":
        return f"after {pointer.seconds:.1f} s, exit {pointer.exit_code}: {pointer.error}"
    return f"{pointer.seconds:6.1f} s  {pointer.reason}"


def _running(mine: dict[str, Any]) -> tuple[str, str]:
    """State and detail of a task whose pointer says that it runs, by its attempt's last heartbeat."""
    done, age_s, who = _progress(mine["progress"]), float(mine["age_s"]), f"pid {mine['pid']} on {mine['host']}"
    done += goodput(mine.get("ledger"))
    if not attempts.is_alive(mine):
        how = "ended without saying how" if "ended" in mine else "is gone"
        again = "the same call goes on from its last checkpoint"
        return "died", f"{done}; {who} {how}, last heartbeat {age_s:.0f} s ago; {again}"
    if age_s > SILENT_S:
        return "silent", f"{done}; no heartbeat for {age_s:.0f} s from {who}"
    return "running", f"{done}  heartbeat {age_s:.0f} s ago"


def goodput(ledger: dict[str, Any] | None) -> str:
    """Where the time went and goes, as a person reads it: the productive share, then what cost most."""
    if not ledger:
        return ""
    total: dict[str, float] = ledger["total"]
    whole = sum(total.values()) or 1.0
    costs = sorted(((seconds, cause) for cause, seconds in total.items() if cause != "productive"), reverse=True)
    worst = [f"{cause} {seconds / whole:.0%}" for seconds, cause in costs[:MAX_COSTS] if seconds >= 0.01 * whole]
    at = f"; in {ledger['cause']} for {_span(ledger['cause_s'])}" if ledger["cause"] else ""
    return f"; goodput {ledger['productive_ratio']:.0%}" + (f" ({', '.join(worst)})" if worst else "") + at


def _progress(progress: dict[str, Any]) -> str:
    state = attempts.Progress(**progress)
    if not state.total:
        return "no progress told yet"
    eta = f", about {state.eta_s:.0f} s left" if state.eta_s is not None else ""
    values = "".join(f" {name}={value:.4g}" for name, value in state.values.items())
    return f"{state.done}/{state.total} ({state.ratio:.0%}{eta}){values}"
