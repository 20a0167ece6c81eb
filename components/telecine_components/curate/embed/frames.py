"""The frames that stand for each clip, from one pass over its file."""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt

from telecine_components.media.decode import open_video
from telecine_components.media.planes import planes_of, thumbnail

SIDE_PX = 448
"""Shorter side of what the model is shown; models look at 224 to 448 pixels."""

Pixels = npt.NDArray[np.uint8]
Stamped = tuple[float, av.VideoFrame]


def frames_of(path: Path, rows: Sequence[Mapping[str, Any]], num_frames: int) -> Iterator[tuple[str, Pixels]]:
    """Yield (clip_id, picture [h, w, 3]) of what is shown at the middles of ``num_frames`` equal parts of each clip.

    Args:
        rows: clips of this file in the order of time, without overlap.

    Raises:
        BadData: the video cannot be decoded that far.
    """
    wanted = [(time_s, row["clip_id"]) for row in rows for time_s in _times_s(row, num_frames)]
    with open_video(path) as video:
        shrink = min(1.0, SIDE_PX / min(video.width_px, video.height_px))
        size = max(1, round(video.width_px * shrink)), max(1, round(video.height_px * shrink))
        taken = 0
        for (_, frame), next_s in _with_ends(video.frames()):
            while taken < len(wanted) and wanted[taken][0] < next_s:
                yield wanted[taken][1], thumbnail(planes_of(frame), *size)
                taken += 1
            if taken == len(wanted):
                return


def _with_ends(frames: Iterator[Stamped]) -> Iterator[tuple[Stamped, float]]:
    """Each frame with the time at which the next one is shown, the last one with infinity."""
    for one, after in itertools.pairwise(itertools.chain(frames, [None])):
        assert one is not None
        yield one, math.inf if after is None else after[0]


def _times_s(row: Mapping[str, Any], num_frames: int) -> list[float]:
    length_s = row["end_s"] - row["start_s"]
    return [row["start_s"] + (part + 0.5) / num_frames * length_s for part in range(num_frames)]
