"""One pass over a video: every frame is decoded once, and all that is measured is measured then."""

import dataclasses
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt

from telecine_components.curate.split import measures, similarity
from telecine_components.media.decode import FALLBACK_FPS, open_video
from telecine_components.media.planes import Planes, colour_picture, luma, planes_of

SIDE_PX = 128
BLUR_PX = 320
BLUR_PER_S = 3.0
CHUNK_FRAMES = 8

Scores = npt.NDArray[np.float64]


@dataclasses.dataclass(frozen=True)
class Analysis:
    """What one pass found.

    Attributes:
        times_s: start of each frame [F]; ``end_s`` is the end of the last.
        similarity: per pair of frames [F - 1], see :mod:`.similarity`.
        motion: per pair [F - 1], share of the frame's size.
        exposure: per frame [F], 0 black .. 1 white.
        blur: per frame [F], of the last frame that was looked at for it.
    """

    width_px: int
    height_px: int
    fps: float
    end_s: float
    times_s: Scores
    similarity: Scores
    motion: Scores
    exposure: Scores
    blur: Scores


def analyse(path: Path, *, num_threads: int = 1) -> Analysis:
    """Decode the video at ``path`` once and measure it.

    Raises:
        BadData: it cannot be decoded to its end.
    """
    with open_video(path, num_threads=num_threads) as video:
        walk = _Walk(BLUR_PER_S)
        for time_s, frame in video.frames():
            walk.look_at(time_s, frame)
        return walk.result(video.width_px, video.height_px, video.fps)


class _Walk:
    """What has been seen so far. Pictures are kept for one chunk, numbers for the whole file."""

    def __init__(self, blur_per_s: float) -> None:
        self._blur_step_s = 1 / blur_per_s
        self._next_blur_s = 0.0
        self._times: list[float] = []
        self._exposure: list[float] = []
        self._blur: list[float] = []
        self._greys: list[npt.NDArray[np.uint8]] = []
        self._histograms: list[npt.NDArray[np.int64]] = []
        self._similarity: list[Scores] = []
        self._motion: list[Scores] = []

    def look_at(self, time_s: float, frame: av.VideoFrame) -> None:
        planes = planes_of(frame)
        grey, picture = colour_picture(planes, SIDE_PX, SIDE_PX)
        self._times.append(time_s)
        self._exposure.append(measures.exposure(np.array(grey.histogram())))
        self._greys.append(np.asarray(grey))
        self._histograms.append(np.array(picture.histogram()).reshape(3, 256))
        self._blur.append(self._blur_at(time_s, planes))
        if len(self._greys) > CHUNK_FRAMES:
            self._compare()

    def result(self, width_px: int, height_px: int, fps: float) -> Analysis:
        if len(self._greys) > 1:
            self._compare()
        times_s = np.array(self._times)
        last_s = float(times_s[-1])
        fps = fps or ((len(times_s) - 1) / last_s if last_s else FALLBACK_FPS)
        return Analysis(
            width_px=width_px,
            height_px=height_px,
            fps=fps,
            end_s=last_s + 1 / fps,
            times_s=times_s,
            similarity=np.concatenate([np.zeros(0), *self._similarity]),
            motion=np.concatenate([np.zeros(0), *self._motion]),
            exposure=np.array(self._exposure),
            blur=np.array(self._blur),
        )

    def _blur_at(self, time_s: float, planes: Planes) -> float:
        if self._blur and time_s < self._next_blur_s:
            return self._blur[-1]
        self._next_blur_s = time_s + self._blur_step_s
        shrink = min(1.0, BLUR_PX / max(planes.y.width, planes.y.height))
        size = max(1, round(planes.y.width * shrink)), max(1, round(planes.y.height * shrink))
        return measures.blur(np.asarray(luma(planes, *size)))

    def _compare(self) -> None:
        greys, histograms = np.stack(self._greys), np.stack(self._histograms)
        structure = similarity.structure_similarity(similarity.with_edges(greys))
        self._similarity.append(similarity.similarity(similarity.colour_correlation(histograms), structure))
        self._motion.append(measures.motion(greys))
        del self._greys[:-1], self._histograms[:-1]
