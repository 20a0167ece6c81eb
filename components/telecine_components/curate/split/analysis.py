"""One pass over a video: every frame is decoded once, and all that is found out is found out then."""

import array
import dataclasses
from pathlib import Path

import numpy as np
import numpy.typing as npt

from telecine_components.media.decode import FALLBACK_FPS, Video, open_video
from telecine_components.media.glance import glance_of
from telecine_components.media.measures.meter import Meter
from telecine_components.media.planes import planes_of
from telecine_components.media.shots.finder import ShotFinder
from telecine_components.media.shots.koala import KoalaFinder
from telecine_components.media.shots.shot import Shot

DETECTORS = ("telecine", "koala")
FPS_TOLERANCE = 0.01
"""A header's rate counts where it is as near as this to the measured one: it is exact, time stamps may be rounded."""


@dataclasses.dataclass(frozen=True, eq=False)
class Analysis:
    """What one pass found.

    Attributes:
        edges_s: when each frame begins, in seconds since the first, and when the last one ends [F + 1].
        fps: the rate of the film, or None where frames last unequally long.
        bits_per_pixel: size of the coded stream over the pixels shown.
    """

    width_px: int
    height_px: int
    codec: str
    fps: float | None
    bits_per_pixel: float
    edges_s: npt.NDArray[np.float64]
    shots: list[Shot]
    meter: Meter

    def fps_of(self, start: int, end: int) -> float:
        """Rate of some frames: a film that stands still somewhere is not slow elsewhere."""
        seconds = float(self.edges_s[end] - self.edges_s[start])
        return self.fps or ((end - start) / seconds if seconds > 0 else FALLBACK_FPS)


def analyse(path: Path, *, detector: str, num_threads: int = 1) -> Analysis:
    """Decode the video at ``path`` once, find its shots with one of DETECTORS, and measure it.

    Raises:
        BadData: it cannot be decoded to its end.
    """
    times_s, meter = array.array("d"), Meter()
    ours, koala = ShotFinder(), KoalaFinder()
    with open_video(path, num_threads=num_threads) as video:
        for index, (time_s, frame) in enumerate(video.frames()):
            planes = planes_of(frame, video.orientation)
            glance = glance_of(planes, index, time_s)
            if detector == "koala":
                koala.look_at(planes)
            else:
                ours.look_at(glance)
            meter.look_at(planes, glance)
            times_s.append(time_s)
    starts_s = np.asarray(times_s)
    fps, last_s = _rate(video, starts_s)
    return Analysis(
        width_px=video.width_px,
        height_px=video.height_px,
        codec=video.codec,
        fps=fps,
        bits_per_pixel=8 * video.coded_bytes / (len(starts_s) * video.width_px * video.height_px),
        edges_s=np.append(starts_s, starts_s[-1] + last_s),
        shots=(koala if detector == "koala" else ours).shots(),
        meter=meter,
    )


def _rate(video: Video, starts_s: npt.NDArray[np.float64]) -> tuple[float | None, float]:
    """The rate, unless it varies, and how long the last frame lasts: then as long as the typical one."""
    measured = (len(starts_s) - 1) / starts_s[-1] if starts_s[-1] > 0 else 0.0
    if measured and abs(video.fps / measured - 1) > FPS_TOLERANCE:
        return None, float(np.median(np.diff(starts_s)))
    fps = video.fps or FALLBACK_FPS
    return fps, 1 / fps
