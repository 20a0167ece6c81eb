"""What a drill reports, and docs/drills.json, which keeps the last full report of each."""

import dataclasses
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Literal

from telecine import provenance

Size = Literal["short", "full"]


@dataclasses.dataclass(frozen=True)
class Trial:
    """One call of a drill.

    Attributes:
        seed: decides every choice that the drill makes.
        size: ``short`` for the suite, ``full`` for the record.
        folder: an empty folder of its own.
        progress: to be called with what is done and what there is to do.
    """

    seed: int
    size: Size
    folder: Path
    progress: Callable[[int, int], None]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Count:
    """What a drill met.

    Attributes:
        what: the drill in one sentence, with what was varied.
        injected: faults that were really injected.
        lost: acknowledged work that was not there afterwards, or came out different.
        doubled: things that exist once and were there twice.
        torn: readers that saw half of something.
        recovered: faults after which the same call ended as if there had been none.
        findings: what was lost, doubled or torn, for a person.
    """

    what: str
    injected: int
    lost: int = 0
    doubled: int = 0
    torn: int = 0
    recovered: int = 0
    findings: tuple[str, ...] = ()

    @property
    def holds(self) -> bool:
        """Whether the contract held, against faults that were really there."""
        return self.injected > 0 and self.lost == self.doubled == self.torn == 0 and self.recovered == self.injected


Drill = Callable[[Trial], Count]


def row(name: str, count: Count, seconds: float, size: Size) -> dict[str, Any]:
    """The row of the record; a short drill says that it was short."""
    values = dataclasses.asdict(count)
    values.pop("findings")
    machine = provenance.hardware()
    what = count.what if size == "full" else f"{count.what} (short)"
    return {
        "id": name,
        **values,
        "what": what,
        "seconds": round(seconds, 1),
        "commit": provenance.git_commit() or "no-git",
        "hardware": f"{machine['cpu']}, {machine['cpu_count']} cores, {machine['memory_gib']} GiB",
    }


def merge(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Replace these rows in the record and keep the others."""
    standing = json.loads(path.read_text()) if path.exists() else []
    merged = {each["id"]: each for each in standing} | {each["id"]: each for each in rows}
    path.write_text(json.dumps([merged[name] for name in sorted(merged)], indent=1, sort_keys=True) + "\n")


def table(rows: Iterable[dict[str, Any]]) -> str:
    """Rows as a person reads them."""
    names = ("id", "injected", "lost", "doubled", "torn", "recovered", "seconds")
    lines = [names, *(tuple(str(each[name]) for name in names) for each in rows)]
    widths = [max(len(line[index]) for line in lines) for index in range(len(names))]
    return "\n".join(
        line[0].ljust(widths[0])
        + "".join(f"  {cell.rjust(width)}" for cell, width in zip(line[1:], widths[1:], strict=True))
        for line in lines
    )
