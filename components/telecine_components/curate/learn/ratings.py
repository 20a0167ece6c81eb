"""What people say of clips: a CSV file of ratings, checked line by line."""

import csv
import dataclasses
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from telecine.errors import InputError
from telecine_components.curate.suitability.model import HIGHEST, LOWEST

_KNOWN = {"clip_id", "source", "start_s", "end_s", "rating", "rater"}
_OVERLAP = 0.5

Row = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class _Line:
    """A line of a file, with the number by which editors call it."""

    file: str
    number: int
    values: Mapping[str, str]

    def refuse(self, problem: str) -> NoReturn:
        raise InputError(f"curate.learn: ratings_uri, {self.file} line {self.number}: {problem}")

    def number_of(self, name: str) -> float:
        """A finite number; raises InputError for anything else."""
        text = self.values[name]
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            self.refuse(f"{name} must be a finite number, got {text!r:.60}")
        return value


def read_ratings(path: Path, rows: Sequence[Row]) -> dict[str, float]:
    """Mean rating by clip_id.

    A line names a ``clip_id``, or a ``source`` and with it all its clips, or those that lie at least by half between
    ``start_s`` and ``end_s``. Several raters of one clip are told apart by ``rater`` and count alike.

    Args:
        rows: the clips of the manifest.

    Raises:
        InputError: no such columns, or a line that does not fit, by its number.
    """
    given: dict[str, dict[str, float]] = defaultdict(dict)
    for line in _lines(path):
        rating, rater = line.number_of("rating"), line.values.get("rater", "")
        if not LOWEST <= rating <= HIGHEST:
            line.refuse(f"rating must lie between {LOWEST:g} and {HIGHEST:g}, got {rating:g}")
        for clip_id in _rated(line, rows):
            if rater in given[clip_id]:
                who = f"{rater!r} rated" if rater else "no column rater, and"
                line.refuse(f"clip {clip_id} is rated twice ({who} it before); keep one, or name the raters")
            given[clip_id][rater] = rating
    return {clip_id: math.fsum(by.values()) / len(by) for clip_id, by in given.items()}


def _lines(path: Path) -> list[_Line]:
    what = "curate.learn: ratings_uri must be a CSV file"
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream, strict=True)
            columns = [name.strip() for name in reader.fieldnames or ()]
            _check_columns(columns)
            reader.fieldnames = columns
            lines = [_line(path.name, reader.line_num, values, columns) for values in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{what}, got {path.name}: {error}") from None
    if not lines:
        raise InputError(f"{what} with a line for each rating, got a header alone")
    return lines


def _line(file: str, number: int, values: Mapping[Any, Any], columns: Sequence[str]) -> _Line:
    if None in values or any(values[name] is None for name in columns):
        _Line(file, number, {}).refuse(
            f"must have {len(columns)} values as the header has, got {list(values.values())}"
        )
    return _Line(file, number, {name: values[name].strip() for name in columns})


def _check_columns(columns: Sequence[str]) -> None:
    named = set(columns)
    fits = "rating" in named and ("clip_id" in named) != ("source" in named)
    spans = {"start_s", "end_s"} & named
    fits &= not spans or (len(spans) == 2 and "source" in named)
    if not fits or named - _KNOWN or len(columns) != len(named):
        raise InputError(
            "curate.learn: ratings_uri must have the columns rating and clip_id, or rating and source with or without "
            f"start_s and end_s, and may have rater; line 1 has {','.join(columns) or 'nothing'}"
        )


def _rated(line: _Line, rows: Sequence[Row]) -> list[str]:
    """Ids of the clips that a line is about."""
    if "clip_id" in line.values:
        wanted = line.values["clip_id"]
        found = [wanted for row in rows if row["clip_id"] == wanted][:1]
        return found or line.refuse(f"no clip {wanted!r} in clips_uri")
    source, span = line.values["source"], _span(line)
    found = [row["clip_id"] for row in rows if row["source"] == source and _lies_within(row, span)]
    between = "" if span == _ALWAYS else f" between {span[0]:g} and {span[1]:g} s"
    return found or line.refuse(f"no clip of {source!r}{between} in clips_uri")


_ALWAYS = (-math.inf, math.inf)


def _span(line: _Line) -> tuple[float, float]:
    if "start_s" not in line.values or not (line.values["start_s"] or line.values["end_s"]):
        return _ALWAYS
    start_s, end_s = line.number_of("start_s"), line.number_of("end_s")
    if not start_s < end_s:
        line.refuse(f"start_s must lie before end_s, got {start_s:g} and {end_s:g}")
    return start_s, end_s


def _lies_within(row: Row, span: tuple[float, float]) -> bool:
    overlap_s = min(row["end_s"], span[1]) - max(row["start_s"], span[0])
    return bool(overlap_s >= _OVERLAP * (row["end_s"] - row["start_s"]))
