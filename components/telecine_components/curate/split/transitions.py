"""From similarities of successive frames to shots, and from shots to clips. Pair i is frames i and i + 1.

Two rules. A dip is found as in Koala-36M's released detector (arXiv 2410.08260, section 4.1): the smoothed similarity
against its recent past. A hard cut is a drop below a bound that stands out from both sides; the bound alone, as
released (``PUBLISHED``), takes a camera that pans over a pattern for a cut at every frame, and misses cuts in half of
the picture.
"""

import dataclasses
import itertools
import math

import numpy as np
import numpy.typing as npt

PAST_PAIRS = 8
TRIM_RATIO = 0.2
MIN_SIGMA = 0.2
SIDE_PAIRS = 8
MAD_TO_SIGMA = 1.4826

Scores = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]


@dataclasses.dataclass(frozen=True)
class Rule:
    """When a pair of frames is a transition.

    Attributes:
        cut_score: a similarity below it may be a hard cut,
        cut_sigmas: if it is the lowest of its neighbours and by this many standard deviations below the median of
            either side; 0 asks for neither.
        dip_score, dip_sigmas: a smoothed similarity below the first, and by this many standard deviations below the
            mean of its recent past, is a transition as well.
    """

    cut_score: float = 1.3
    cut_sigmas: float = 3.0
    dip_score: float = 0.75
    dip_sigmas: float = 3.0


PUBLISHED = Rule(cut_score=0.0, cut_sigmas=0.0)


def transition_pairs(scores: Scores, rule: Rule) -> Flags:
    """Which pairs [P] are transitions."""
    flags: Flags = scores < rule.cut_score
    if rule.cut_sigmas > 0:
        for pair in np.flatnonzero(flags):
            flags[pair] = _stands_out(scores, int(pair), rule.cut_sigmas)
    return flags | _dips(scores, rule)


def _stands_out(scores: Scores, pair: int, sigmas: float) -> bool:
    """Whether a score is a local minimum far below the typical scores before and after it."""
    if scores[pair] > scores[max(0, pair - 1) : pair + 2].min():
        return False
    # The direct neighbours are left out: a cut between two fields or blended frames covers two pairs.
    before = scores[max(0, pair - SIDE_PAIRS) : max(0, pair - 1)]
    after = scores[pair + 2 : pair + 1 + SIDE_PAIRS]
    return all(scores[pair] < _lower_bound(side, sigmas) for side in (before, after) if len(side) > 1)


def _lower_bound(side: Scores, sigmas: float) -> float:
    median = float(np.median(side))
    sigma = MAD_TO_SIGMA * float(np.median(np.abs(side - median)))
    return median - sigmas * max(MIN_SIGMA, sigma)


def _dips(scores: Scores, rule: Rule) -> Flags:
    flags = np.zeros(len(scores), np.bool_)
    if len(scores) <= PAST_PAIRS:
        return flags
    smooth = scores.copy()
    smooth[1:-1] = (scores[:-2] + scores[1:-1] + scores[2:]) / 3
    past = np.sort(np.lib.stride_tricks.sliding_window_view(smooth, PAST_PAIRS)[:-1], axis=1)
    typical = past[:, int(PAST_PAIRS * TRIM_RATIO) : int(PAST_PAIRS * (1 - TRIM_RATIO))]
    floor = typical.mean(axis=1) - rule.dip_sigmas * np.maximum(MIN_SIGMA, typical.std(axis=1))
    now = smooth[PAST_PAIRS:]
    flags[PAST_PAIRS:] = (now < rule.dip_score) & (now < floor)
    return flags


def shots(flags: Flags) -> list[tuple[int, int]]:
    """Runs of frames (start, end exclusive) between transitions; frames inside a transition belong to none."""
    edges = [-1, *np.flatnonzero(flags).tolist(), len(flags)]
    return [(left + 1, right + 1) for left, right in itertools.pairwise(edges) if right > left + 1 or len(edges) == 2]


def clip_spans(shot: tuple[int, int], num_frames: int, *, trim_frames: int, max_frames: int) -> list[tuple[int, int]]:
    """The clips of a shot: trimmed where a transition ends it, then cut into equal parts of at most ``max_frames``.

    A shot that trimming would use up keeps its middle frame, so that every shot is accounted for.
    """
    start, end = shot
    first = start + (trim_frames if start > 0 else 0)
    last = end - (trim_frames if end < num_frames else 0)
    if first >= last:
        middle = (start + end) // 2
        return [(middle, middle + 1)]
    num_clips = math.ceil((last - first) / max_frames)
    edges = [first + (last - first) * part // num_clips for part in range(num_clips + 1)]
    return list(itertools.pairwise(edges))
