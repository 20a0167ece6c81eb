"""A file's display matrix, as ffmpeg writes it."""

from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
import pytest

from telecine_components.media.cut import Cut, Rule, Span, cut
from telecine_components.media.decode import open_video
from telecine_components.media.encode import write_mp4
from telecine_components.media.orientation import Orientation, matrix_of, orientation_of
from telecine_components.media.planes import planes_of, thumbnail

Pixels = npt.NDArray[np.uint8]
Show = Callable[[Pixels], Pixels]


@pytest.fixture
def corners() -> Pixels:
    """A picture, [48, 64, 3], of which each corner has a colour of its own."""
    picture = np.full((48, 64, 3), 90, np.uint8)
    picture[:24, :32], picture[:24, 32:], picture[24:, :32] = (200, 40, 40), (40, 200, 40), (40, 40, 200)
    return picture


def _turned(path: Path, corners: Pixels, degrees: float, hflip: bool, vflip: bool) -> Path:
    """A film of three pictures, with keyframe first."""
    write_mp4(path.with_suffix(".plain.mp4"), np.stack([corners] * 3), 12)
    with av.open(str(path.with_suffix(".plain.mp4"))) as film, av.open(str(path), "w") as out:
        stream = out.add_stream_from_template(film.streams.video[0], opaque=True)
        stream.set_display_rotation(degrees, hflip=hflip, vflip=vflip)
        for packet in film.demux(video=0):
            packet.stream = stream
            if packet.size:
                out.mux(packet)
    return path


@pytest.mark.parametrize(
    ("how", "shown"),
    [
        ((0, False, False), lambda picture: picture),
        ((90, False, False), lambda picture: np.rot90(picture)),
        ((180, False, False), lambda picture: picture[::-1, ::-1]),
        ((-90, False, False), lambda picture: np.rot90(picture, 3)),
        ((0, True, False), lambda picture: picture[:, ::-1]),
        ((0, False, True), lambda picture: picture[::-1]),
        ((90, True, False), lambda picture: np.rot90(picture)[:, ::-1]),
        ((90, False, True), lambda picture: np.rot90(picture)[::-1]),
        ((10, False, False), lambda picture: picture),
    ],
)
def test_a_picture_is_shown_as_its_matrix_asks(
    tmp_path: Path, corners: Pixels, how: tuple[float, bool, bool], shown: Show
) -> None:
    path, wanted = _turned(tmp_path / "film.mp4", corners, *how), shown(corners)
    target = tmp_path / "clip.mp4"
    assert cut(path, [Span(1, 3, 1 / 12, 3 / 12)], [target], Rule()) == [Cut(1, 3, 2)]
    matrices = []
    for each in (path, target):
        with open_video(each) as video:
            assert (video.height_px, video.width_px) == wanted.shape[:2]
            frame = next(video.frames())[1]
        found = thumbnail(planes_of(frame), video.width_px, video.height_px)
        assert np.abs(found.astype(int) - wanted).mean() < 4
        assert np.array_equal(orientation_of(frame).as_stored(wanted), corners)
        matrices.append(matrix_of(frame))
    assert matrices[0] == matrices[1]


def test_a_matrix_that_flattens_the_picture_asks_for_nothing(tmp_path: Path, corners: Pixels) -> None:
    path = _turned(tmp_path / "film.mp4", corners, 90, False, False)
    data = path.read_bytes()
    place = data.find(b"tkhd") + 44
    path.write_bytes(data[:place] + bytes(16) + data[place + 16 :])
    with open_video(path) as video:
        assert orientation_of(next(video.frames())[1]) == Orientation()
        assert (video.width_px, video.height_px) == (64, 48)
