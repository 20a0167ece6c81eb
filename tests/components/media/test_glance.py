from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from telecine_components.media.decode import open_video
from telecine_components.media.glance import Glance, glance_of
from telecine_components.media.planes import planes_of

Pixels = npt.NDArray[np.uint8]


def _glance(path: Path) -> Glance:
    with open_video(path) as video:
        time_s, frame = next(video.frames())
        return glance_of(planes_of(frame), 7, time_s)


@pytest.mark.parametrize(("codec", "pix_fmt"), [("libx264", "yuv420p"), ("libx264", "yuv444p"), ("mjpeg", "yuvj420p")])
def test_a_glance_is_the_frame_shrunk_whatever_its_format(
    write_video: Callable[..., Path], codec: str, pix_fmt: str
) -> None:
    frame = np.zeros((1, 120, 200, 3), np.uint8)
    frame[:, 60:] = 255
    frame[:, :60, :100, 2] = 255
    seen = _glance(write_video("a.mkv", frame, codec=codec, pix_fmt=pix_fmt))
    assert (seen.index, seen.time_s, seen.luma.shape, seen.chroma.shape) == (7, 0.0, (54, 96), (2, 27, 48))
    assert seen.luma[30:].min() >= 250
    assert seen.luma[:24, 50:].max() <= 6
    blue = seen.chroma[:, :12, :22].reshape(2, -1).astype(int)
    assert np.abs(blue - [[255], [107]]).max() <= 8
    assert np.abs(seen.chroma[:, 15:].astype(int) - 128).max() <= 4


def test_a_video_smaller_than_a_glance_is_looked_at_too(write_video: Callable[..., Path], ramp: Pixels) -> None:
    assert _glance(write_video("a.mp4", ramp)).luma.shape == (54, 96)
