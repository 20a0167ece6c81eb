"""One reason per rejected clip: the first rule, in a fixed order, that it breaks."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from telecine_components.curate.filter.spec import Inputs

Row = Mapping[str, Any]
REASONS: dict[str, Callable[[Row, Inputs], bool]] = {
    "too_short": lambda row, limits: row["end_s"] - row["start_s"] < limits.min_duration_s,
    "too_long": lambda row, limits: row["end_s"] - row["start_s"] > limits.max_duration_s,
    "too_small": lambda row, limits: min(row["width_px"], row["height_px"]) < limits.min_side_px,
    "too_dark": lambda row, limits: row["exposure"] < limits.min_exposure,
    "too_bright": lambda row, limits: row["exposure"] > limits.max_exposure,
    "too_blurry": lambda row, limits: row["blur"] > limits.max_blur,
    "too_static": lambda row, limits: row["motion"] < limits.min_motion,
    "too_fast": lambda row, limits: row["motion"] > limits.max_motion,
}
"""Facts of the file first, then what makes later measures meaningless (darkness hides blur, blur hides motion)."""


def first_reason(row: Row, limits: Inputs) -> str | None:
    """Why a clip is rejected, or None where it is kept."""
    return next((reason for reason, breaks in REASONS.items() if breaks(row, limits)), None)


def funnel(rows: Sequence[Row]) -> dict[str, Any]:
    """Counts of marked rows; ``clips_in`` equals ``kept`` plus all of ``rejected``."""
    clips = [row for row in rows if row["clip_id"] is not None]
    counts = Counter(row["reason"] for row in clips if row["reason"])
    return {
        "clips_in": len(clips),
        "kept": len(clips) - counts.total(),
        "rejected": {reason: counts[reason] for reason in REASONS if counts[reason]},
        "files": len({row["source"] for row in rows}),
        "bad_files": sum(row["clip_id"] is None for row in rows),
    }


def in_words(counts: Mapping[str, Any]) -> str:
    """The funnel in a sentence."""
    rejected = ", ".join(f"{number} {reason}" for reason, number in counts["rejected"].items()) or "none rejected"
    return f"{counts['clips_in']} clips from {counts['files']} files ({counts['bad_files']} unusable): {rejected}"
