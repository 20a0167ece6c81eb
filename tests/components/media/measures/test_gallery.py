"""Small pictures, kept until clips are known."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from telecine_components.media.decode import open_video
from telecine_components.media.measures.gallery import MEMORY_BYTES, Gallery, jpeg_of, small_picture, spread, within
from telecine_components.media.planes import planes_of, thumbnail

Pixels = npt.NDArray[np.uint8]


def test_pictures_are_found_again_beyond_what_memory_holds() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (8, 500, 700, 1), np.uint8).repeat(3, axis=3)
    gallery, size = Gallery(), len(jpeg_of(noise[0]))
    for index in range(MEMORY_BYTES // size + 8):
        gallery.hang(10 * index, noise[index % 8])
    last = len(gallery.indices) - 1
    for place in (0, 1, last - 1, last):
        # Another picture would lie 85 levels away.
        assert np.abs(gallery.picture(place).astype(int) - noise[place % 8]).mean() < 10
        assert np.abs(gallery.luma(place).astype(int) - noise[place % 8, ..., 0]).mean() < 10


def test_a_span_has_its_own_pictures_or_the_nearest() -> None:
    indices = [0, 12, 24, 36]
    assert list(within(indices, 0, 13)) == [0, 1]
    assert list(within(indices, 12, 36)) == [1, 2]
    assert [list(within(indices, start, start + 1)) for start in (5, 7, 40)] == [[0], [1], [3]]


def test_a_choice_is_spread_over_the_whole() -> None:
    assert spread(range(10, 18), 4) == [11, 13, 15, 17]
    assert spread(range(3), 4) == [0, 1, 2]
    assert spread(range(100), 1) == [50]


@pytest.mark.parametrize(("pix_fmt", "rotation"), [("yuv420p", 0.0), ("yuv444p", 90.0), ("yuv422p", 180.0)])
def test_a_small_picture_looks_like_a_thumbnail(
    write_video: Callable[..., Path], ramp: Pixels, pix_fmt: str, rotation: float
) -> None:
    large = ramp[:2].repeat(6, axis=1).repeat(6, axis=2)
    with open_video(write_video("a.mkv", large, pix_fmt=pix_fmt, rotation=rotation)) as video:
        planes = planes_of(next(video.frames())[1])
    small = small_picture(planes)
    assert small.shape == ((160, 120, 3) if rotation == 90 else (160, 213, 3))
    exact = thumbnail(planes, small.shape[1], small.shape[0])
    assert np.abs(small.astype(int) - exact).mean() < 3
