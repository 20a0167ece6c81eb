from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from telecine_components.media.colour import BT601, BT709, rgb_to_yuv420, yuv_to_rgb
from telecine_components.media.decode import open_video
from telecine_components.media.encode import write_mp4
from telecine_components.media.planes import planes_of, thumbnail
from telecine_models.backlot import film

Pixels = npt.NDArray[np.uint8]


def test_what_was_written_is_read_back(tmp_path: Path, ramp: Pixels) -> None:
    write_mp4(tmp_path / "a.mp4", ramp, 12)
    with open_video(tmp_path / "a.mp4") as video:
        frames = np.stack([thumbnail(planes_of(frame), 64, 48) for _, frame in video.frames()])
    assert frames.shape == ramp.shape
    assert np.abs(frames.astype(int) - ramp).mean() < 6


def test_equal_frames_give_equal_bytes(tmp_path: Path, ramp: Pixels) -> None:
    write_mp4(tmp_path / "a.mp4", ramp, 12)
    write_mp4(tmp_path / "b.mp4", ramp, 12)
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()


def test_odd_sides_grow_by_one(tmp_path: Path, ramp: Pixels) -> None:
    write_mp4(tmp_path / "a.mp4", ramp[:2, :47, :63], 12)
    with open_video(tmp_path / "a.mp4") as video:
        assert (video.width_px, video.height_px) == (64, 48)


@pytest.mark.parametrize("fps", [8.0, 12.5, 30000 / 1001])
def test_the_rate_is_kept(tmp_path: Path, ramp: Pixels, fps: float) -> None:
    write_mp4(tmp_path / "a.mp4", ramp, fps)
    with open_video(tmp_path / "a.mp4") as video:
        assert video.fps == pytest.approx(fps, rel=1e-6)


def test_one_frame_is_a_video(tmp_path: Path, ramp: Pixels) -> None:
    write_mp4(tmp_path / "a.mp4", ramp[:1], 12)
    with open_video(tmp_path / "a.mp4") as video:
        assert sum(1 for _ in video.frames()) == 1


def test_known_colours_in_both_matrices() -> None:
    red = np.full((2, 2, 3), (255, 0, 0), np.uint8)
    assert [int(part[0, 0]) for part in rgb_to_yuv420(red, BT601)] == [81, 90, 240]
    assert [int(part[0, 0]) for part in rgb_to_yuv420(red, BT709)] == [63, 102, 240]
    for matrix in (BT601, BT709):
        yuv = np.array([int(part[0, 0]) for part in rgb_to_yuv420(red, matrix)], np.uint8)
        assert np.abs(yuv_to_rgb(yuv, matrix, full_range=False).astype(int) - (255, 0, 0)).max() <= 2


def test_rendered_films_keep_their_bytes_from_one_encoding_to_the_next(tmp_path: Path) -> None:
    films = [film(seed, num_frames=48, fps=12, width_px=160, height_px=120).frames for seed in range(12)]
    digests = [set[bytes]() for _ in films]
    for _ in range(3):
        for frames, seen in zip(films, digests, strict=True):
            write_mp4(tmp_path / "film.mp4", frames, 12)
            seen.add((tmp_path / "film.mp4").read_bytes())
    assert [len(seen) for seen in digests] == [1] * len(films)
