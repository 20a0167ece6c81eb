"""The frames that stand for each clip, from one pass over its file."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from telecine_components.media.decode import open_video, with_ends
from telecine_components.media.planes import planes_of, thumbnail

SIDE_PX = 448
"""Shorter side of what the model is shown; models look at 224 to 448 pixels."""

Pixels = npt.NDArray[np.uint8]


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
        for _, end_s, frame in with_ends(video.frames()):
            while taken < len(wanted) and wanted[taken][0] < end_s:
                yield wanted[taken][1], thumbnail(planes_of(frame, video.orientation), *size)
                taken += 1
            if taken == len(wanted):
                return


def _times_s(row: Mapping[str, Any], num_frames: int) -> list[float]:
    length_s = row["end_s"] - row["start_s"]
    return [row["start_s"] + (part + 0.5) / num_frames * length_s for part in range(num_frames)]
