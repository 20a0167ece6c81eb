"""What a manifest says in sum: the funnel in its order, and each measure beside the thresholds it was held against."""

import dataclasses
import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from telecine_components.media.clips import SCHEMA

Row = Mapping[str, Any]

NUM_BINS = 32
"""About so many in a histogram."""
MAX_KINDS = 20
"""Reasons of bad files that are told apart; the rest is one kind."""
OTHER = "other reasons"

_SPREAD = (0.01, 0.99)
_DERIVED: dict[str, Callable[[Row], float]] = {
    "duration_s": lambda row: row["end_s"] - row["start_s"],
    "side_px": lambda row: min(row["width_px"], row["height_px"]),
    "aspect": lambda row: max(row["width_px"], row["height_px"]) / min(row["width_px"], row["height_px"]),
}
_NAMES = SCHEMA.names
MEASURES = (*_DERIVED, "fps", *_NAMES[_NAMES.index("bits_per_pixel") : _NAMES.index("suitability") + 1])
"""What clips are measured by, in the order of the manifest."""
ORDER = (
    *("too_short", "too_long", "too_small", "too_narrow", "too_jerky", "too_compressed", "maybe_cut", "black_bars"),
    *("too_dark", "too_bright", "clipped", "too_blurry", "too_noisy", "overlaid", "logo", "too_blocky", "frozen"),
    *("too_static", "too_fast", "shaky", "flickering", "unsuitable"),
)
"""How curate.filter orders the reasons of its facts and thresholds; other reasons come after them, by name."""


@dataclasses.dataclass(frozen=True)
class Kind:
    """Rows that share a reason: how many, and how many seconds they last (nothing is known of a bad file's)."""

    name: str
    count: int
    seconds: float = 0.0


@dataclasses.dataclass(frozen=True)
class Funnel:
    """``num_files`` holds the files of ``bad``; ``num_clips`` is ``kept.count`` plus all of ``rejected``."""

    num_files: int
    bad: tuple[Kind, ...]
    rejected: tuple[Kind, ...]
    kept: Kind

    @property
    def num_bad(self) -> int:
        return sum(kind.count for kind in self.bad)

    @property
    def num_clips(self) -> int:
        return self.kept.count + sum(kind.count for kind in self.rejected)

    @property
    def seconds(self) -> float:
        """Of all clips."""
        return self.kept.seconds + sum(kind.seconds for kind in self.rejected)

    @property
    def kept_ratio(self) -> float:
        return self.kept.count / max(self.num_clips, 1)


@dataclasses.dataclass(frozen=True)
class Measure:
    """One number of each clip, over all clips that have it.

    Attributes:
        low, high: thresholds outside of which clips were rejected, or None.
        edges: of the bins of the histogram [B + 1]; its outermost bins hold whatever lies beyond as well.
        kept, rejected: clips in each bin [B].
        median_kept: None where no kept clip was measured.
    """

    name: str
    low: float | None
    high: float | None
    edges: npt.NDArray[np.float64]
    kept: npt.NDArray[np.int64]
    rejected: npt.NDArray[np.int64]
    median: float
    median_kept: float | None

    @property
    def bottom(self) -> float:
        """Where its axis begins: at 0, unless clips lie below it."""
        below = (self.kept + self.rejected)[self.edges[1:] <= 0]
        return float(self.edges[0]) if below.any() else max(float(self.edges[0]), 0.0)

    def breaks(self, value: float | None) -> bool:
        """Whether a value lies outside the thresholds."""
        if value is None:
            return False
        return (self.low is not None and value < self.low) or (self.high is not None and value > self.high)


def value_of(row: Row, name: str) -> float | None:
    """A measure of a clip; None where it was not measured, or is no finite number."""
    value = _DERIVED[name](row) if name in _DERIVED else row[name]
    return None if value is None or not math.isfinite(value) else float(value)


def kinds(rows: Sequence[Row]) -> list[str | None]:
    """What each row is counted under: None for a kept clip, a rejected clip's reason, the kind of a bad file's.

    The reason of a bad file is a sentence. What tells it from its neighbours is left out: names, figures, and what
    stands after a colon.
    """
    sentences = Counter(_kind_of_bad(row) for row in rows if row["clip_id"] is None)
    known = {name for name, _ in sorted(sentences.items(), key=lambda item: (-item[1], item[0]))[:MAX_KINDS]}
    named = []
    for row in rows:
        bad = _kind_of_bad(row) if row["clip_id"] is None else None
        named.append(row["reason"] if bad is None else bad if bad in known else OTHER)
    return named


def _kind_of_bad(row: Row) -> str:
    reason = re.sub(r"^same bytes as .*", "same bytes as another file", row["reason"] or "unknown", flags=re.DOTALL)
    return re.sub(r"\d+(\.\d+)?", "\u2026", reason.partition(":")[0]).strip()


def funnel(rows: Sequence[Row]) -> Funnel:
    """Count every row once: as a bad file, a rejected clip or a kept one."""
    named = kinds(rows)
    bad = Counter(name for row, name in zip(rows, named, strict=True) if row["clip_id"] is None)
    clips = [(row, name) for row, name in zip(rows, named, strict=True) if row["clip_id"] is not None]
    counts, seconds = Counter(name for _, name in clips), dict[str | None, float]()
    for row, name in clips:
        seconds[name] = seconds.get(name, 0.0) + _DERIVED["duration_s"](row)
    return Funnel(
        num_files=len({row["source"] for row in rows}),
        bad=tuple(Kind(str(name), count) for name, count in sorted(bad.items(), key=lambda item: (-item[1], item[0]))),
        rejected=tuple(Kind(name, counts[name], seconds[name]) for name in _in_order(clips)),
        kept=Kind("kept", counts[None], seconds.get(None, 0.0)),
    )


def _in_order(clips: Iterable[tuple[Row, str | None]]) -> list[str]:
    """Reasons in the order in which clips met them: by the step that gave them, then as the filter orders its own."""
    steps: dict[str, int] = {}
    for row, name in clips:
        if name is not None:
            step = len(row["stages"] or ())
            steps[name] = min(step, steps.get(name, step))
    places = {name: place for place, name in enumerate(ORDER)}
    return sorted(steps, key=lambda name: (steps[name], places.get(name, len(ORDER)), name))


def stages(rows: Iterable[Row]) -> list[tuple[str, str, str]]:
    """Every stage that made a row (component, digest of its code, settings in JSON), in the order of their work."""
    found: dict[tuple[str, str, str], int] = {}
    for row in rows:
        for place, stage in enumerate(row["stages"] or ()):
            key = (stage["name"] or "", stage["version"] or "", stage["settings"] or "")
            found[key] = max(place, found.get(key, 0))
    return sorted(found, key=lambda key: (found[key], key))


def thresholds(rows: Iterable[Row], metadata: Mapping[str, str]) -> dict[str, float]:
    """Every ``min_<measure>`` and ``max_<measure>`` that a stage was set to, or the file's own metadata tells."""
    settings: dict[str, Any] = dict(metadata)
    for _, _, document in stages(rows):
        settings |= json.loads(document or "{}")
    wanted = {f"{side}_{name}" for side in ("min", "max") for name in MEASURES}
    return {name: float(settings[name]) for name in sorted(wanted & set(settings)) if settings[name] is not None}


def measures(rows: Sequence[Row], limits: Mapping[str, float]) -> list[Measure]:
    """Every measure that at least one clip has."""
    clips = [row for row in rows if row["clip_id"] is not None]
    is_kept = np.array([row["reason"] is None for row in clips], np.bool_)
    found = []
    for name in MEASURES:
        values = np.array([_or_nan(value_of(row, name)) for row in clips], np.float64)
        there = ~np.isnan(values)
        if there.any():
            found.append(_measure(name, values[there], is_kept[there], limits))
    return found


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else value


def _measure(
    name: str, values: npt.NDArray[np.float64], is_kept: npt.NDArray[np.bool_], limits: Mapping[str, float]
) -> Measure:
    low, high = limits.get(f"min_{name}"), limits.get(f"max_{name}")
    edges = _edges(values, [limit for limit in (low, high) if limit is not None])
    inside = np.clip(values, edges[0], edges[-1])
    return Measure(
        name=name,
        low=low,
        high=high,
        edges=edges,
        kept=np.histogram(inside[is_kept], edges)[0],
        rejected=np.histogram(inside[~is_kept], edges)[0],
        median=float(np.median(values)),
        median_kept=float(np.median(values[is_kept])) if is_kept.any() else None,
    )


def _edges(values: npt.NDArray[np.float64], limits: Sequence[float]) -> npt.NDArray[np.float64]:
    """Equal bins over nearly all values, and over a threshold unless it lies so far away that it would squeeze them.

    A threshold is an edge, so that no bar holds clips of both its sides.
    """
    first, last = (float(edge) for edge in np.quantile(values, _SPREAD))
    span = last - first or abs(last) * 0.1 or 1.0
    near = sorted(limit for limit in limits if first - span <= limit <= last + span)
    first, last = min([first, *near]), max([last, *near])
    width = (last - first or span) / NUM_BINS
    if len(near) > 1 and near[-1] - near[0] >= width:
        width = (near[-1] - near[0]) / round((near[-1] - near[0]) / width)
    anchor = near[0] if near else first
    before, after = math.floor((first - anchor) / width), math.floor((last - anchor) / width) + 1
    if near:
        before = min(before, -1)  # what lies below it has a bar of its own
    return np.array([anchor + width * place for place in range(before, after + 1)], np.float64)
