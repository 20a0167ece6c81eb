"""Reading logs again: every attempt of a run's tasks, in the order of time; see :mod:`telecine.work.logbook`."""

import dataclasses
import time
from collections.abc import Iterator
from datetime import UTC, datetime

from telecine.errors import InputError
from telecine.storage import Store
from telecine.work import attempts, runs
from telecine.work.runs import Pointer

POLL_S = 1.0
QUIET_S = 60.0
"""A followed run has ended once none of its attempts has lived for this long; Airflow pauses between tasks."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Line:
    """One line of a run's log. ``attempt`` is empty for what the pointer says; ``label`` tells attempts apart."""

    time: float
    task: str
    label: str
    attempt: str
    text: str

    def __str__(self) -> str:
        return f"{datetime.fromtimestamp(self.time, UTC):%Y-%m-%d %H:%M:%S} {self.label}  {self.text}"


def of(store: Store, run: str, task: str | None = None) -> list[Line]:
    """Every line of a run, or of one task, in the order of time.

    Raises:
        InputError: the run has no such task.
    """
    pointers = _chosen(runs.pointers(store, run), run, task)
    lines = [line for pointer in pointers for line in _of_task(store, run, pointer)]
    order = {pointer.task: place for place, pointer in enumerate(pointers)}
    return sorted(lines, key=lambda line: (line.time, order[line.task]))


def follow(store: Store, run: str, task: str | None = None) -> Iterator[Line]:
    """The lines there are, then each new one; ends a minute after the last attempt did."""
    shown: dict[tuple[str, str], int] = {}
    lived = time.monotonic()
    while time.monotonic() - lived < QUIET_S:
        fresh: dict[tuple[str, str], int] = {}
        for line in of(store, run, task):
            source = (line.task, line.attempt)
            fresh[source] = fresh.get(source, 0) + 1
            if fresh[source] > shown.get(source, 0):
                yield line
        shown = fresh
        pointers = _chosen(runs.pointers(store, run), run, task)
        if any(_lives(store, pointer) for pointer in pointers):
            lived = time.monotonic()
        elif task is not None and all(pointer.decision != "running" for pointer in pointers):
            return
        time.sleep(POLL_S)


def render(lines: list[Line]) -> str:
    """``time task line``, the task's column as wide as the longest."""
    width = max((len(line.label) for line in lines), default=0)
    return "\n".join(str(dataclasses.replace(line, label=f"{line.label:{width}}")) for line in lines)


def parse(text: str) -> Iterator[tuple[float, str]]:
    """Time and text of each line of a log; a line cut off by a crash counts as far as it goes."""
    for line in text.splitlines():
        stamp, _, rest = line.partition(" ")
        try:
            yield datetime.fromisoformat(stamp).timestamp(), rest
        except ValueError:
            continue


def _chosen(pointers: list[Pointer], run: str, task: str | None) -> list[Pointer]:
    chosen = [pointer for pointer in pointers if task in (None, pointer.task)]
    if not chosen and task is not None:
        known = ", ".join(pointer.task for pointer in pointers) or "none yet"
        raise InputError(f"run {run} has no task {task!r}; its tasks are {known}")
    return chosen


def _of_task(store: Store, run: str, pointer: Pointer) -> list[Line]:
    """The logs of this task's attempts, and one line from the pointer where it settled without one."""
    found = {}
    for entry in store.entries(f"work/{pointer.component}/{pointer.key}/logs") if pointer.key else ():
        lines = list(parse(store.read(entry.path).decode(errors="replace")))
        if lines and f" run={run} task={pointer.task} " in f"{lines[0][1]} ":
            found[entry.path.rpartition("/")[2].removesuffix(".log")] = lines
    kept = [
        Line(time=at, task=pointer.task, label=_label(pointer.task, number, len(found)), attempt=attempt, text=text)
        for number, (attempt, lines) in enumerate(sorted(found.items()), 1)
        for at, text in lines
    ]
    return kept + _settled(pointer) if not kept or pointer.decision == "reused" else kept


def _settled(pointer: Pointer) -> list[Line]:
    text = f"event={pointer.decision} {pointer.error or pointer.reason}"
    return [Line(time=pointer.started, task=pointer.task, label=pointer.task, attempt="", text=text)]


def _label(task: str, number: int, num_attempts: int) -> str:
    return task if num_attempts == 1 else f"{task}#{number}"


def _lives(store: Store, pointer: Pointer) -> bool:
    states = attempts.states(store, f"work/{pointer.component}/{pointer.key}") if pointer.key else []
    return any(state["attempt"] == pointer.attempt and attempts.is_alive(state) for state in states)
