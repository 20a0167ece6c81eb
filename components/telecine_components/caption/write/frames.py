"""Pictures of clips: a few frames of each, upright and small, from one pass over their video."""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt

from telecine_components.media.decode import open_video
from telecine_components.media.orientation import Orientation
from telecine_components.media.planes import planes_of, thumbnail

Pixels = npt.NDArray[np.uint8]
Row = Mapping[str, Any]

_TOLERANCE_FRAMES = 0.5


@dataclasses.dataclass(frozen=True)
class Series:
    """Pictures wanted of a clip.

    Attributes:
        times_s: ascending, since the clip's begin.
        side_px: length of the longer side; a smaller video keeps its size.
    """

    times_s: Sequence[float]
    side_px: int


def pictures(video_path: Path, wanted: Iterable[tuple[Row, Sequence[Series]]]) -> Iterator[list[list[Pixels]]]:
    """Yield for each clip, in turn, the pictures of each of its series: frames, none twice.

    A picture is uint8 [H, W, 3], RGB, upright. There are fewer than asked for where a clip has no more frames, and none
    where the video has nothing at its time.

    Args:
        wanted: clips of the video in the order of time, without overlap.

    Raises:
        BadData: the video cannot be decoded that far.
    """
    with open_video(video_path) as video:
        frames = video.frames()
        shown = next(frames, None)
        for clip, series in wanted:
            slack_s = _TOLERANCE_FRAMES * frame_s(clip)
            takers = [_Taker(each, clip["start_s"] - slack_s, video.orientation) for each in series]
            while shown is not None and shown[0] < clip["end_s"] - slack_s:
                if shown[0] >= clip["start_s"] - slack_s:
                    for taker in takers:
                        taker.look_at(*shown)
                shown = next(frames, None)
            yield [taker.pictures() for taker in takers]


class _Taker:
    def __init__(self, series: Series, start_s: float, orientation: Orientation) -> None:
        self._side_px, self._orientation = series.side_px, orientation
        self._wanted_s = [start_s + time_s for time_s in series.times_s]
        self._first: av.VideoFrame | None = None
        self._found: list[Pixels] = []

    def look_at(self, time_s: float, frame: av.VideoFrame) -> None:
        if self._first is None:
            self._first = frame
        if self._wanted_s and time_s >= self._wanted_s[0]:
            self._found.append(_picture(frame, self._side_px, self._orientation))
            self._wanted_s = [later_s for later_s in self._wanted_s if later_s > time_s]

    def pictures(self) -> list[Pixels]:
        if self._found or self._first is None:
            return self._found
        return [_picture(self._first, self._side_px, self._orientation)]  # it stands for that long


def frame_s(clip: Row) -> float:
    """How long a frame of a clip lasts on average: the rate of its file may vary, and a slide stands for seconds."""
    return float((clip["end_s"] - clip["start_s"]) / clip["num_frames"])


def evenly(num: int, start_s: float, end_s: float) -> list[float]:
    """The middles of ``num`` equal parts of a span."""
    return [start_s + (index + 0.5) * (end_s - start_s) / num for index in range(num)]


def _picture(frame: av.VideoFrame, side_px: int, orientation: Orientation) -> Pixels:
    planes = planes_of(frame, orientation)
    width, height = (frame.height, frame.width) if orientation.is_sideways else (frame.width, frame.height)
    shrink = min(1.0, side_px / max(width, height))
    return thumbnail(planes, max(1, round(width * shrink)), max(1, round(height * shrink)))
