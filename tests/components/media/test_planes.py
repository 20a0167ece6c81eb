from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from telecine_components.media.decode import open_video
from telecine_components.media.planes import centre_box, colour_picture, luma, planes_of, thumbnail

Pixels = npt.NDArray[np.uint8]


@pytest.fixture
def halves() -> Pixels:
    """One frame, 96x48: red on the left, green in the middle, blue on the right, 32 pixels each."""
    frame = np.zeros((1, 48, 96, 3), np.uint8)
    frame[:, :, :32, 0] = frame[:, :, 32:64, 1] = frame[:, :, 64:, 2] = 200
    return frame


@pytest.mark.parametrize(
    ("codec", "pix_fmt"),
    [
        ("libx264", "yuv420p"),
        ("libx264", "yuv422p"),
        ("libx264", "yuv444p"),
        ("libx264", "yuv420p10le"),
        ("libx264rgb", "rgb24"),
        ("mjpeg", "yuvj420p"),
    ],
)
def test_colours_survive_every_pixel_format(
    write_video: Callable[..., Path], halves: Pixels, codec: str, pix_fmt: str
) -> None:
    with open_video(write_video("a.mkv", halves, codec=codec, pix_fmt=pix_fmt)) as video:
        small = thumbnail(planes_of(next(video.frames())[1]), 6, 3)
    assert np.abs(small[:, [0, 2, 5]].astype(int) - halves[0, :3, [5, 48, 90]].transpose(1, 0, 2)).max() <= 12


def test_a_thumbnail_is_cropped_from_the_centre(write_video: Callable[..., Path], halves: Pixels) -> None:
    with open_video(write_video("a.mp4", halves)) as video:
        square = thumbnail(planes_of(next(video.frames())[1]), 12, 12)
    assert square.shape == (12, 12, 3)
    assert square[6, 6].argmax() == 1
    assert square[6, 0].argmax() == 0
    assert square[6, -1].argmax() == 2


def test_a_thumbnail_may_be_larger_than_the_video(write_video: Callable[..., Path], ramp: Pixels) -> None:
    with open_video(write_video("a.mp4", ramp)) as video:
        assert thumbnail(planes_of(next(video.frames())[1]), 128, 96).shape == (96, 128, 3)


def test_luma_spans_black_to_white_whatever_the_range(write_video: Callable[..., Path]) -> None:
    frame = np.zeros((1, 32, 32, 3), np.uint8)
    frame[:, :, 16:] = 255
    for codec, pix_fmt in (("libx264", "yuv420p"), ("mjpeg", "yuvj420p")):
        with open_video(write_video("a.mkv", frame, codec=codec, pix_fmt=pix_fmt)) as video:
            planes = planes_of(next(video.frames())[1])
            grey = np.asarray(luma(planes, 8, 8))
            colour = np.asarray(colour_picture(planes, 8, 8)[1])
        assert grey[:, :3].max() <= 3
        assert grey[:, 5:].min() >= 252
        assert np.abs(colour.astype(int) - grey[..., None]).max() <= 4


@pytest.mark.parametrize(("codec", "pix_fmt"), [("libx264rgb", "rgb24"), ("ffv1", "bgr0"), ("ffv1", "gray")])
def test_greys_keep_their_levels_where_they_have_to_be_converted(
    write_video: Callable[..., Path], codec: str, pix_fmt: str
) -> None:
    greys = np.broadcast_to(np.array([30, 200], np.uint8).repeat(32)[None, None, :, None], (1, 48, 64, 3))
    path = write_video("a.mkv", np.ascontiguousarray(greys), codec=codec, pix_fmt=pix_fmt)
    with open_video(path) as video:
        found = np.asarray(luma(planes_of(next(video.frames())[1]), 4, 3)).astype(int)
    assert np.abs(found - [30, 30, 200, 200]).max() <= 2


def test_the_centre_box_has_the_asked_aspect() -> None:
    assert centre_box(160, 90, 1.0) == (35.0, 0.0, 125.0, 90.0)
    assert centre_box(90, 160, 1.0) == (0.0, 35.0, 90.0, 125.0)
    assert centre_box(100, 50, 2.0) == (0.0, 0.0, 100.0, 50.0)
