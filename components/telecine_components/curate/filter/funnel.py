"""One reason per rejected clip: the first rule, in a fixed order, that it breaks."""

import dataclasses
import math
import operator
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from telecine.errors import InputError
from telecine_components.curate.filter.spec import Inputs

Row = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Rule:
    """A clip breaks it if what it reads lies on the wrong side of a threshold.

    Attributes:
        limit: name of the threshold; ``min_`` or ``max_`` says which side is wrong.
        reads: columns of the manifest.
        value: what is compared, computed from them.
    """

    limit: str
    reads: tuple[str, ...]
    value: Callable[..., float]

    def breaks(self, row: Row, limits: Inputs) -> bool:
        """Whether a clip breaks the rule; raises InputError if it was not measured."""
        values = [row[name] for name in self.reads]
        if not all(value is not None and math.isfinite(value) for value in values):
            raise InputError(
                f"curate.filter: clip {row['clip_id']} of {row['source']} has no {' and '.join(self.reads)}, which "
                f"{self.limit} needs; run curate.split of this version again"
            )
        wrong = operator.lt if self.limit.startswith("min_") else operator.gt
        return bool(wrong(self.value(*values), getattr(limits, self.limit)))


def _of(limit: str) -> Rule:
    """The rule of a threshold that is called like its column."""
    return Rule(limit, (limit.partition("_")[2],), float)


# Both are rounded to microseconds, and so is their difference: from 3.1 to 4.1 it is less than 1 in binary numbers.
_LASTS = (("start_s", "end_s"), lambda start_s, end_s: round(end_s - start_s, 6))
_SIDES = ("width_px", "height_px")
RULES: dict[str, Rule] = {
    "too_short": Rule("min_duration_s", *_LASTS),
    "too_long": Rule("max_duration_s", *_LASTS),
    "too_small": Rule("min_side_px", _SIDES, min),
    "too_narrow": Rule("max_aspect", _SIDES, lambda width, height: max(width, height) / min(width, height)),
    "too_jerky": _of("min_fps"),
    "too_compressed": _of("min_bits_per_pixel"),
    "maybe_cut": _of("max_cut_doubt"),
    "black_bars": _of("max_black_bars"),
    "too_dark": _of("min_exposure"),
    "too_bright": _of("max_exposure"),
    "clipped": _of("max_clipping"),
    "too_blurry": _of("max_blur"),
    "too_noisy": _of("max_noise"),
    "overlaid": _of("max_overlay_text"),
    "logo": _of("max_logo"),
    "too_blocky": _of("max_blockiness"),
    "frozen": _of("max_freeze"),
    "too_static": _of("min_motion"),
    "too_fast": _of("max_motion"),
    "shaky": _of("min_stability"),
    "flickering": _of("max_flicker"),
    "unsuitable": _of("min_suitability"),
}
"""By reason. Facts of the file first, then what makes later measures meaningless (darkness hides blur, blur hides
motion, letters may be made of blocks), and the score that weighs all of them last."""


def first_reason(row: Row, limits: Inputs) -> str | None:
    """Why a clip is rejected, or None where it is kept."""
    return next((reason for reason, rule in RULES.items() if rule.breaks(row, limits)), None)


def funnel(rows: Sequence[Row]) -> dict[str, Any]:
    """Counts of marked rows; ``clips_in`` equals ``kept`` plus all of ``rejected``, by whoever rejected."""
    clips = [row for row in rows if row["clip_id"] is not None]
    counts = Counter(row["reason"] for row in clips if row["reason"])
    order = [*RULES, *sorted(counts.keys() - RULES.keys())]
    return {
        "clips_in": len(clips),
        "kept": len(clips) - counts.total(),
        "rejected": {reason: counts[reason] for reason in order if counts[reason]},
        "files": len({row["source"] for row in rows}),
        "bad_files": sum(row["clip_id"] is None for row in rows),
    }


def in_words(counts: Mapping[str, Any]) -> str:
    """The funnel in a sentence."""
    rejected = ", ".join(f"{number} {reason}" for reason, number in counts["rejected"].items()) or "none rejected"
    return f"{counts['clips_in']} clips from {counts['files']} files ({counts['bad_files']} unusable): {rejected}"
