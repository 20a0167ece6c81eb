"""Our shot detector: looks at glances, and says at the end where the shots are.

It works through the film in blocks, each with enough of what lies before and after that its division makes no
difference. Of each frame a few numbers stay, however long the film is.
"""

import dataclasses
from array import array
from bisect import bisect_left
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from telecine_components.media.glance import Glance
from telecine_components.media.shots import cuts, mixtures
from telecine_components.media.shots.plain import PlainRuns, widened
from telecine_components.media.shots.products import REACH_PAIRS, Products, Sketch, products_of, sketches_of
from telecine_components.media.shots.shot import NO_DOUBT, Doubt, Kind, Shot, Transition, shots_between

BLOCK_FRAMES = 1024
SKETCHED_FRAMES = 32
"""So many are sketched at once, which saves most of the calls."""
MIXTURE_DISCOUNT = 0.5
"""Log odds by which a dissolve or fade casts less doubt than a hard cut, so that one limit serves both; chosen on the
tuning films."""
CONTEXT_FRAMES = max(cuts.CONTEXT_FRAMES, mixtures.CONTEXT_FRAMES, REACH_PAIRS)


@dataclasses.dataclass(frozen=True)
class Rule:
    """How much has to speak for a transition, in log odds; more finds fewer.

    Attributes:
        cut: for a hard cut.
        mixture: for a dissolve or fade.
    """

    cut: float = 0.0
    mixture: float = 0.0


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A possible transition over pairs ``first`` to ``last`` of the frames seen.

    Attributes:
        excess: log odds above what the rule asks for; one below 0 only casts doubt on the shot around it.
    """

    excess: float
    first: int
    last: int
    kind: Kind


class ShotFinder:
    """Looks at a film's glances in the order shown; not every frame need be among them.

    Args:
        block_frames: how many frames are worked through at a time; it makes no difference to what is found.
    """

    def __init__(self, rule: Rule | None = None, *, block_frames: int = BLOCK_FRAMES) -> None:
        self._rule = rule or Rule()
        self._block_frames = block_frames
        self._indices = array("q")
        self._plain = PlainRuns()
        self._waiting: list[Glance] = []
        self._sketches: list[Sketch] = []
        self._settled = 0
        self._candidates: list[Candidate] = []

    def look_at(self, glance: Glance) -> None:
        """Take in one more frame."""
        self._waiting.append(glance)
        self._indices.append(glance.index)
        if len(self._waiting) == SKETCHED_FRAMES:
            self._sketch_waiting()

    def _sketch_waiting(self) -> None:
        sketches = sketches_of(self._waiting)
        self._waiting.clear()
        self._plain.look_at(sketches)
        self._sketches += list(sketches)
        if len(self._sketches) >= self._block_frames + 2 * CONTEXT_FRAMES:
            self._settle(len(self._indices) - CONTEXT_FRAMES)

    def transitions(self) -> list[Transition]:
        """The transitions between all frames that were seen, in their order, by frames of the film."""
        if self._waiting:
            self._sketch_waiting()
        if len(self._indices) > self._settled + 1:
            self._settle(len(self._indices))
        found = strongest(self._candidates, len(self._indices))
        where = self._indices
        return [
            Transition(where[each.first], where[each.last + 1] - 1, each.kind)
            for each in widened(found, self._plain.runs(), self._plain.contrasts)
        ]

    def shots(self) -> list[Shot]:
        """The shots of all that was seen, in their order."""
        shots = shots_between(self.transitions(), self._indices[-1] + 1)
        doubts = sorted(
            Doubt(self._indices[each.first], self._indices[each.last + 1], _doubt(each)) for each in self._candidates
        )
        starts = [doubt.first for doubt in doubts]
        return [dataclasses.replace(shot, doubts=tuple(_inside(doubts, starts, shot))) for shot in shots]

    def _settle(self, end: int) -> None:
        """Decide the pairs from the first that is undecided up to ``end``, and forget what is not needed any more."""
        offset = len(self._indices) - len(self._sketches)
        products = products_of(np.stack(self._sketches))
        span = range(self._settled - offset, end - offset)
        self._candidates += [
            dataclasses.replace(each, first=each.first + offset, last=each.last + offset)
            for each in candidates(products, span, self._rule)
        ]
        self._settled = end
        del self._sketches[: max(0, end - CONTEXT_FRAMES - offset)]


def candidates(products: Products, span: range, rule: Rule) -> list[Candidate]:
    """What may be a transition, or casts doubt, from each frame in ``span`` on: at most one cut and one mixture."""
    found = [
        Candidate(float(excess), first, first, "cut")
        for first, excess in _exceeding(cuts.cut_evidence(products) - rule.cut, span)
    ]
    best: dict[int, Candidate] = {}
    for length in mixtures.LENGTHS:
        if length >= len(products):
            break
        evidence, seen = mixtures.mixture_evidence(products, length)
        for start, excess in _exceeding(evidence - rule.mixture, span):
            if start not in best or best[start].excess < excess:
                kind: Kind = "fade" if seen.dip[start] < mixtures.FADE_DIP else "dissolve"
                best[start] = Candidate(float(excess), *mixtures.extent(seen, start), kind)
    return found + list(best.values())


def _doubt(candidate: Candidate) -> float:
    return candidate.excess - (0.0 if candidate.kind == "cut" else MIXTURE_DISCOUNT)


def _inside(doubts: Sequence[Doubt], starts: Sequence[int], shot: Shot) -> Iterator[Doubt]:
    """Those of the doubts, which are in the order of their starts, that lie inside a shot."""
    among = doubts[bisect_left(starts, shot.start) : bisect_left(starts, shot.end)]
    return (doubt for doubt in among if doubt.last < shot.end)


def strongest(found: Sequence[Candidate], num_frames: int) -> list[Transition]:
    """Of candidates that overlap the strongest, in the order of the film."""
    taken, kept = np.zeros(num_frames, np.bool_), []
    likely = [each for each in found if each.excess > 0]
    for each in sorted(likely, key=lambda one: (-one.excess, one.first, one.last)):
        if not taken[each.first : each.last + 1].any():
            taken[each.first : each.last + 1] = True
            kept.append(Transition(each.first, each.last, each.kind))
    return sorted(kept)


def _exceeding(evidence: npt.NDArray[np.float64], span: range) -> list[tuple[int, float]]:
    part = evidence[span.start : span.stop]
    return [(int(place) + span.start, float(part[place])) for place in np.flatnonzero(part > NO_DOUBT)]
