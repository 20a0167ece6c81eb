"""Where the seconds of a run went: cuts through its wall time, read from what its processes said and committed.

A cut is a moment and the name of the part that ends there; a part's seconds are those since the cut before it. So the
parts of one run cannot overlap, and what its last cut leaves of the wall time stays unexplained.
"""

import dataclasses
import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import Any

COMPONENT = "inside the components"
MLFLOW_DATABASE = "MLflow's database and the import for it, once"
BOTH_DATABASES = "both databases, side by side, and the imports for them, once"
PREPARATION = (MLFLOW_DATABASE, BOTH_DATABASES)
COMPONENT_START = "component processes: start"
COMPONENT_EXIT = "component processes: exit"

_LOGGED = re.compile(r"(\d{4}-\d\d-\d\dT\S+Z) \[\w+ *\] (.*)")
_STARTING = re.compile(r"\[DAG TEST\] starting task_id=(\S+)")


@dataclasses.dataclass(frozen=True, order=True)
class Line:
    """Something that was said, in seconds since the epoch."""

    moment: float
    text: str


@dataclasses.dataclass(frozen=True, order=True)
class Cut:
    """Where a part of a run ends, in seconds since the epoch."""

    moment: float
    part: str


class NotUnderstood(Exception):
    """A line that the cuts are made from is not there."""


def parts(began: float, cuts: Sequence[Cut]) -> dict[str, float]:
    """Seconds of each part, in the order in which parts first appear; raises for cuts that go back in time."""
    seconds: dict[str, float] = {}
    for before, cut in itertools.pairwise([Cut(began, ""), *cuts]):
        if cut.moment < before.moment:
            raise NotUnderstood(f"{cut.part!r} ends {before.moment - cut.moment:.3f} s before {before.part!r}")
        seconds[cut.part] = seconds.get(cut.part, 0.0) + cut.moment - before.moment
    return seconds


def union_s(spans: Iterable[tuple[float, float]]) -> float:
    """Seconds that lie in at least one span: work done side by side counts once."""
    total, reached = 0.0, float("-inf")
    for begin, end in sorted(spans):
        total += max(0.0, end - max(begin, reached))
        reached = max(reached, end)
    return total


def span(record: dict[str, Any]) -> tuple[float, float]:
    """When a component was inside its function, by its commit record."""
    return record["committed"] - record["seconds"], record["committed"]


def airflow_lines(text: str) -> list[Line]:
    """The stamped lines of an Airflow log; the others belong to the line before them."""
    found = (_LOGGED.match(line) for line in text.splitlines())
    return [Line(datetime.fromisoformat(match[1]).timestamp(), match[2]) for match in found if match]


def of_demo(said: Sequence[Line], log: Sequence[Line], records: dict[str, dict[str, Any]], ended: float) -> list[Cut]:
    """Cuts of a demo that did everything anew.

    Args:
        said: what the demo printed.
        log: what its Airflow printed.
        records: the commit of each task.
        ended: when the demo's process ended.
    """
    cuts = [
        Cut(moment_of(said, "home "), "demo: start, check of the request"),
        Cut(moment_of(said, "run "), BOTH_DATABASES),
    ]
    part = "Airflow: start, reading the DAG files"
    for task, lines in _tasks(log):
        cuts.append(Cut(lines[0].moment, part))
        cuts += _of_task(lines, records[task]) if task in records else [Cut(lines[-1].moment, "closing the MLflow run")]
        part = "Airflow: between tasks"
    cuts.append(Cut(moment_of(said, "funnel "), "Airflow: end"))
    return [*cuts, Cut(ended, "demo: summary, end")]


def of_process(said: Sequence[Line], record: dict[str, Any], ended: float) -> list[Cut]:
    """Cuts of one ``telecine run`` in a shell that did its work anew."""
    return [*_of_component(said, record), Cut(ended, COMPONENT_EXIT)]


def _of_task(lines: Sequence[Line], record: dict[str, Any]) -> list[Cut]:
    return [
        Cut(moment_of(lines, "Task started"), "Airflow: a task's process, its API"),
        Cut(moment_of(lines, "::endgroup::"), "Airflow: before a task's execute"),
        *_of_component(lines, record),
        Cut(moment_of(lines, "::group::Post Execute"), COMPONENT_EXIT),
        Cut(lines[-1].moment, "Airflow: ending a task"),
    ]


def _of_component(lines: Sequence[Line], record: dict[str, Any]) -> list[Cut]:
    began, ended = span(record)
    return [
        Cut(moment_of(lines, "event=settings "), COMPONENT_START),
        Cut(moment_of(lines, "event=start "), "looking the work up"),
        Cut(began, "MLflow: import, connection, run; hashing"),
        Cut(ended, COMPONENT),
        Cut(moment_of(lines, "event=done "), "commit, MLflow's last figures"),
    ]


def moment_of(lines: Iterable[Line], beginning: str) -> float:
    """When the first line that begins like this was said; raises :class:`NotUnderstood` where there is none."""
    for line in lines:
        if line.text.startswith(beginning):
            return line.moment
    raise NotUnderstood(f"there is no line that begins with {beginning!r}")


def _tasks(log: Sequence[Line]) -> Iterator[tuple[str, list[Line]]]:
    """Each task with the lines from its start to its end; a task that was tried twice does not end and raises."""
    at = 0
    while at < len(log):
        started = _STARTING.match(log[at].text)
        if started:
            wanted = f"[DAG TEST] end task task_id={started[1]} "
            last = next((i for i in range(at, len(log)) if log[i].text.startswith(wanted)), None)
            if last is None:
                raise NotUnderstood(f"Airflow's log holds the start of {started[1]} and no end")
            yield started[1], list(log[at : last + 1])
            at = last
        at += 1
