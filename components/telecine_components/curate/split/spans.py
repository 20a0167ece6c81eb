"""From shots to clips."""

import itertools
import math
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

ROUNDING_S = 1e-6
MOST_TRIES = 8


def clip_spans(
    shot: tuple[int, int], edges_s: npt.NDArray[np.float64], *, trim_frames: int, max_clip_s: float
) -> list[tuple[int, int]]:
    """The clips of a shot: trimmed where a transition ends it, then cut into equal times of at most ``max_clip_s``.

    A shot that trimming would use up keeps its middle frame, so that every shot is accounted for. Where frames last
    unequally long, a clip may be longer by one of them.

    Args:
        shot: frames (start, end exclusive).
        edges_s: when each frame of the file begins, and when the last ends [F + 1].
    """
    start, end = shot
    first = start + (trim_frames if start > 0 else 0)
    last = end - (trim_frames if end < len(edges_s) - 1 else 0)
    if first >= last:
        middle = (start + end) // 2
        return [(middle, middle + 1)]
    # A frame that stands longer than a clip may last is a clip of its own, else it would be most of another.
    still = first + np.flatnonzero(np.diff(edges_s[first : last + 1]) > max_clip_s + ROUNDING_S)
    borders = np.unique(np.concatenate([[first, last], still, still + 1])).tolist()
    return [span for run in itertools.pairwise(borders) for span in _parts(run, edges_s, max_clip_s)]


def _parts(run: tuple[int, int], edges_s: npt.NDArray[np.float64], max_clip_s: float) -> Iterable[tuple[int, int]]:
    """Equal times of at most ``max_clip_s`` that tile a run of frames."""
    first, last = run
    seconds = edges_s[last] - edges_s[first]
    if last - first == 1 or seconds <= 0:
        return [run]
    # Counted in whole frames, of which fewer may fit than the seconds say.
    frames_per_clip = max(1, math.floor((last - first) * max_clip_s / seconds + ROUNDING_S))
    least = math.ceil((last - first) / frames_per_clip)
    # Where frames last unequally long, some of so few clips may be too long.
    for count in range(least, min(last - first, least + MOST_TRIES) + 1):
        wanted_s = edges_s[first] + seconds * np.arange(count + 1) / count
        borders = np.unique(first + np.searchsorted(edges_s[first : last + 1], wanted_s - ROUNDING_S))
        if np.diff(edges_s[borders]).max() <= max_clip_s + ROUNDING_S:
            break
    return itertools.pairwise(borders.tolist())
