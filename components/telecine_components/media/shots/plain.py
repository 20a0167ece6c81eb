"""Stretches of plain frames (black, white), and fades that reach them too slowly to be seen as one mixture."""

import dataclasses
from array import array
from collections.abc import Sequence

from telecine_components.media.shots.products import Sketch, contrasts_of, likeness_of
from telecine_components.media.shots.shot import Transition

PLAIN_CONTRAST = 3.5
"""Grey levels; a title on black has more."""
MIN_PLAIN_FRAMES = 6
MAX_LIKENESS = 0.7
"""Two frames more alike than this, before and after, belong to one shot that was dark for a while."""
_MAX_FADE_FRAMES = 72
_RISE = 1.01
_STRIDE = 3
"""Contrast has to rise over this many frames, because compression makes it jump by itself."""


@dataclasses.dataclass(frozen=True)
class PlainRun:
    """Plain frames ``start`` to ``end`` (exclusive) of those seen, between frames that show something."""

    start: int
    end: int
    likeness: float


class PlainRuns:
    """Follows the contrast of a film.

    Attributes:
        contrasts: of each frame seen.
    """

    def __init__(self) -> None:
        self.contrasts = array("f")
        self._runs: list[PlainRun] = []
        self._before: Sketch | None = None
        self._start: int | None = None

    def look_at(self, sketches: Sketch) -> None:
        """Take in the next frames, [F, 864]."""
        for sketch, contrast in zip(sketches, contrasts_of(sketches).tolist(), strict=True):
            self._take_in(sketch, contrast)

    def _take_in(self, sketch: Sketch, contrast: float) -> None:
        place = len(self.contrasts)
        self.contrasts.append(contrast)
        if contrast < PLAIN_CONTRAST:
            self._start = place if self._start is None else self._start
            return
        if self._start is not None and self._before is not None:
            self._runs.append(PlainRun(self._start, place, likeness_of(self._before, sketch)))
        self._before, self._start = sketch, None

    def runs(self) -> list[PlainRun]:
        """All that lie between frames that show something."""
        return list(self._runs)


def widened(found: Sequence[Transition], runs: Sequence[PlainRun], contrasts: Sequence[float]) -> list[Transition]:
    """Transitions, corrected by what plain runs say.

    A long run between unlike frames is a fade with all that leads there and back. Around one between frames that are
    alike there is no fade: the shot went on.
    """
    blackouts = [run for run in runs if run.likeness >= MAX_LIKENESS]
    kept = [each for each in found if each.kind == "cut" or not any(_touch(each, run) for run in blackouts)]
    long = [run for run in runs if run.end - run.start >= MIN_PLAIN_FRAMES and run.likeness < MAX_LIKENESS]
    merged: list[Transition] = []
    for each, is_plain in sorted(
        [(each, False) for each in kept] + [(_with_fades(run, contrasts), True) for run in long]
    ):
        if merged and each.first <= merged[-1].last and (is_plain or merged[-1].kind == "fade"):
            before = merged.pop()
            each = Transition(before.first, max(before.last, each.last), "fade")
        merged.append(each)
    return merged


def _touch(each: Transition, run: PlainRun) -> bool:
    return each.first < run.end and run.start <= each.last + 1


def _with_fades(run: PlainRun, contrasts: Sequence[float]) -> Transition:
    first, last = run.start - 1, run.end - 1
    for _ in range(_MAX_FADE_FRAMES):
        if first < _STRIDE or contrasts[first - _STRIDE] < _RISE * contrasts[first]:
            break
        first -= 1
    for _ in range(_MAX_FADE_FRAMES):
        if last + 1 + _STRIDE >= len(contrasts) or contrasts[last + 1 + _STRIDE] < _RISE * contrasts[last + 1]:
            break
        last += 1
    return Transition(first, last, "fade")
