"""What a run did and why, and what would happen if the same run were started now."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from telecine import component
from telecine.errors import InputError
from telecine.storage import Store
from telecine.work import address, commits, explain, runs
from telecine.work.digests import Digests
from telecine.work.runs import Pointer


@dataclasses.dataclass(frozen=True)
class Forecast:
    """``verdict``: ``reused``, ``runs``, ``waits`` (for what an earlier task writes), ``skipped`` or ``refused``."""

    verdict: str
    why: str


def of(store: Store, digests: Digests, run: str, changes: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Each task's decision and forecast.

    Args:
        changes: other input values to assume, as ``{"<task>.<input>": value}``.

    Raises:
        InputError: if a change names no task or no input of the run.
    """
    pointers = runs.pointers(store, run)
    changed = _by_task(pointers, changes or {})
    makers: dict[str, str] = {}
    unsettled: set[str] = set()
    tasks = []
    for pointer in pointers:
        forecast = _forecast(pointer, changed.get(pointer.task, {}), makers, unsettled, store, digests)
        if forecast.verdict not in ("reused", "skipped"):
            unsettled.add(pointer.task)
        makers |= {uri: pointer.task for uri in (pointer.outputs or {}).values() if isinstance(uri, str)}
        tasks.append(
            {
                "task": pointer.task,
                "decision": pointer.decision,
                "reason": pointer.error or pointer.reason,
                "seconds": pointer.seconds,
                "now": forecast.verdict,
                "why": forecast.why,
            }
        )
    return {"run": run, "tasks": tasks}


def render(report: dict[str, Any]) -> str:
    """The report as a person reads it."""
    width = max((len(task["task"]) for task in report["tasks"]), default=0)
    then = [f"{t['task']:{width}}  {t['decision']:8}{t['seconds']:7.1f} s  {t['reason']}" for t in report["tasks"]]
    now = [f"{t['task']:{width}}  {t['now']:8}  {t['why']}" for t in report["tasks"]]
    return "\n".join([f"run {report['run']}: what it did", *then, "", "the same run, started now", *now])


def _forecast(
    pointer: Pointer,
    changes: Mapping[str, Any],
    makers: Mapping[str, str],
    unsettled: set[str],
    store: Store,
    digests: Digests,
) -> Forecast:
    if pointer.decision == "skipped":
        return Forecast("skipped", pointer.reason)
    if pointer.key == "":
        return Forecast("refused", pointer.error or pointer.reason)
    try:
        found = component.find(pointer.component)
    except InputError as error:  # it is not installed here
        return Forecast("refused", str(error))
    if found.effects:
        return Forecast("runs", "it has effects, so every run does it anew")
    upstream = sorted({makers[v] for v in pointer.inputs.values() if isinstance(v, str) and v in makers} & unsettled)
    try:
        inputs = found.parse(pointer.inputs | dict(changes))
        where = address.resolve(found, inputs, store=store, digests=digests, run=pointer.task)
    except InputError as error:
        return Forecast("waits", f"for {', '.join(upstream)}") if upstream else Forecast("refused", str(error))
    record = commits.read(store, where.commit_path)
    if record is None:
        return Forecast("runs", explain.why_new(store, where))
    broken = commits.broken_files(store, record, digests)
    if broken:
        return Forecast("runs", f"a committed file does not hold: {broken[0]}")
    if upstream:
        return Forecast("waits", f"runs again unless {', '.join(upstream)} writes the same bytes as before")
    return Forecast("reused", explain.why_reused(record))


def _by_task(pointers: list[Pointer], changes: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    tasks = {pointer.task for pointer in pointers}
    grouped: dict[str, dict[str, Any]] = {}
    for name, value in changes.items():
        task, _, field = name.rpartition(".")
        if task not in tasks:
            raise InputError(f"--set {name}: expected <task>.<input>=value with a task of {', '.join(sorted(tasks))}")
        grouped.setdefault(task, {})[field] = value
    return grouped
