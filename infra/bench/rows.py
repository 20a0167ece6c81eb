"""What a bench reports, docs/bench.json, which keeps the last row of each, and the table that a person reads."""

import dataclasses
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Literal

from telecine import provenance

Size = Literal["short", "full"]
PREFACE = """# What was measured against what

`make bench` writes this page from `bench.json`; losses are printed like gains. `ratio` is ours over the peer's, with a
95 % bootstrap interval over interleaved pairs of runs, or their range where there are few. A row claims nothing unless
its quality gate says `equal`.
"""


@dataclasses.dataclass(frozen=True)
class Trial:
    """One call of a bench.

    Attributes:
        size: ``short`` for the suite, ``full`` for the record.
        num_runs: pairs of runs.
        folder: a folder of its own.
        progress: to be called with what is done and what there is to do.
    """

    size: Size
    num_runs: int
    folder: Path
    progress: Callable[[int, int], None]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Comparison:
    """What a bench found; ``ours`` and ``peer`` are means in the unit that ``what`` names.

    Attributes:
        low, high: 95 % interval of ``ratio``; None, as ``ratio``, where the quality gate stayed shut.
        limit: what no work of ours could beat, in words.
        target: what was to be reached, in words.
        quality_gate: ``equal``, or what differed.
        details: figures behind the row, shown below the table.
    """

    what: str
    ours: float
    peer: float
    ratio: float | None
    low: float | None
    high: float | None
    limit: str
    target: str
    holds: bool
    runs: int
    quality_gate: str
    details: dict[str, Any]


def row(name: str, found: Comparison, size: Size) -> dict[str, Any]:
    """The row of the record; a short one says that it was short."""
    machine = provenance.hardware()
    return {
        "id": name,
        **dataclasses.asdict(found),
        "what": found.what if size == "full" else f"{found.what} (short)",
        "commit": provenance.git_commit() or "no-git",
        "hardware": f"{machine['cpu']}, {machine['cpu_count']} cores, {machine['memory_gib']} GiB",
    }


def merge(path: Path, fresh: Iterable[dict[str, Any]]) -> None:
    """Replace these rows in the record, keep the others, and write the page beside it anew."""
    standing = json.loads(path.read_text()) if path.exists() else []
    merged = {each["id"]: each for each in standing} | {each["id"]: each for each in fresh}
    ordered = [merged[name] for name in sorted(merged)]
    path.write_text(json.dumps(ordered, indent=1, sort_keys=True) + "\n")
    path.with_suffix(".md").write_text(f"{PREFACE}\n{markdown(ordered)}\n")


def markdown(found: Iterable[dict[str, Any]]) -> str:
    """Rows as a person reads them: one table, then what is behind each."""
    listed = list(found)
    names = ("id", "ours", "peer", "ratio", "low", "high", "target", "holds", "runs", "quality_gate")
    lines = [names, tuple("---" for _ in names), *(tuple(_cell(each[name]) for name in names) for each in listed)]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return "\n\n".join([table, *(_section(each) for each in listed)])


def _section(found: dict[str, Any]) -> str:
    head = [f"## {found['id']}", f"{found['what']}.", f"Limit: {found['limit']}."]
    details = dict(found["details"])
    tables = {name: details.pop(name) for name in list(details) if isinstance(details[name], dict)}
    facts = [f"* {name.replace('_', ' ')}: {_cell(value)}" for name, value in details.items()]
    facts += [f"* commit {found['commit']}", f"* {found['hardware']}"]
    return "\n\n".join([*head, "\n".join(facts), *(_table(name, table) for name, table in tables.items())])


def _table(name: str, cells: dict[str, dict[str, Any]]) -> str:
    """``{row: {column: value}}`` as a table; a column that a row lacks stays empty."""
    columns = list(dict.fromkeys(column for line in cells.values() for column in line))
    lines = [[name.replace("_", " "), *columns], ["---", *("---:" for _ in columns)]]
    lines += [[label, *(_cell(line.get(column, "")) for column in columns)] for label, line in cells.items()]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(_cell(each) for each in value)
    return f"{value:.2f}" if isinstance(value, float) else str(value)
