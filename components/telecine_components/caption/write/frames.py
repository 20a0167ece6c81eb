"""Pictures of a clip: a few of its frames, upright and small, without decoding what lies outside of it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt

from telecine.errors import BadData
from telecine_components.media.decode import open_video
from telecine_components.media.planes import planes_of, thumbnail

Pixels = npt.NDArray[np.uint8]
Row = Mapping[str, Any]

_TOLERANCE_FRAMES = 0.5


def pictures(video_path: Path, clip: Row, times_s: Sequence[float], *, side_px: int) -> list[Pixels]:
    """Frames of a clip at ``times_s`` (ascending, since the clip's begin), none twice.

    Args:
        side_px: length of the longer side; a smaller video keeps its size.

    Returns:
        uint8 [H, W, 3] each, RGB, upright; fewer than asked for where the clip has no more.

    Raises:
        BadData: the clip's frames cannot be decoded.
    """
    slack_s = _TOLERANCE_FRAMES * frame_s(clip)
    wanted_s = [clip["start_s"] + time_s - slack_s for time_s in times_s]
    found: list[Pixels] = []
    with open_video(video_path) as video:
        for time_s, frame in video.frames_from(clip["start_s"]):
            if not wanted_s or time_s >= clip["end_s"] - slack_s:
                break
            if time_s >= wanted_s[0]:
                found.append(_picture(frame, side_px))
                wanted_s = [later_s for later_s in wanted_s if later_s > time_s]
    if not found and times_s[0] > 0:  # its first frame stands for that long
        return pictures(video_path, clip, [0.0], side_px=side_px)
    if not found:
        raise BadData(f"no frame between {clip['start_s']:.2f} and {clip['end_s']:.2f} s")
    return found


def frame_s(clip: Row) -> float:
    """How long a frame of a clip lasts on average: the rate of its file may vary, and a slide stands for seconds."""
    return float((clip["end_s"] - clip["start_s"]) / clip["num_frames"])


def evenly(num: int, start_s: float, end_s: float) -> list[float]:
    """The middles of ``num`` equal parts of a span."""
    return [start_s + (index + 0.5) * (end_s - start_s) / num for index in range(num)]


def _picture(frame: av.VideoFrame, side_px: int) -> Pixels:
    planes = planes_of(frame)
    width, height = (frame.height, frame.width) if planes.rotation % 180 else (frame.width, frame.height)
    shrink = min(1.0, side_px / max(width, height))
    return thumbnail(planes, max(1, round(width * shrink)), max(1, round(height * shrink)))
