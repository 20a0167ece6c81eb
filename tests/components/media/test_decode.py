from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from telecine.errors import BadData
from telecine_components.media.decode import open_video
from telecine_components.media.planes import planes_of, thumbnail

Pixels = npt.NDArray[np.uint8]


def _reason(path: Path) -> str:
    with pytest.raises(BadData) as bad, open_video(path) as video:
        for _ in video.frames():
            pass
    return bad.value.reason


def test_every_frame_comes_once_with_its_time(write_video: Callable[..., Path], ramp: Pixels) -> None:
    with open_video(write_video("a.mp4", ramp)) as video:
        times_s = [time_s for time_s, _ in video.frames()]
    assert (video.width_px, video.height_px, video.fps, video.num_frames) == (64, 48, 12.0, 24)
    assert times_s == pytest.approx([index / 12 for index in range(24)])


def test_times_follow_the_stamps_of_a_variable_rate(write_video: Callable[..., Path], ramp: Pixels) -> None:
    stamps = [5, 6, 7, 12, 13, 20]
    with open_video(write_video("vfr.mp4", ramp[:6], stamps=stamps)) as video:
        times_s = [time_s for time_s, _ in video.frames()]
    assert times_s == pytest.approx([(stamp - 5) / 12 for stamp in stamps])


def test_an_avi_that_predicts_from_later_pictures_is_timed_by_its_rate(
    write_video: Callable[..., Path], ramp: Pixels
) -> None:
    with open_video(write_video("a.avi", ramp)) as video:
        found = [(time_s, frame.time) for time_s, frame in video.frames()]
    assert found != sorted(found, key=lambda each: each[1] or 0.0), "its stamps are those of decoding"
    assert [time_s for time_s, _ in found] == pytest.approx([index / 12 for index in range(24)])


@pytest.mark.parametrize("later_s", [10, 20])
def test_joined_recordings_go_on_where_the_stamps_begin_anew(
    write_video: Callable[..., Path], copied: Callable[..., Path], ramp: Pixels, tmp_path: Path, later_s: float
) -> None:
    source = write_video("source.mp4", ramp)
    parts = [copied(source, tmp_path / f"{each}.ts", later_s=each) for each in (later_s, 10)]
    path = tmp_path / "joined.ts"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    with open_video(path) as video:
        times_s = [time_s for time_s, _ in video.frames()]
    assert times_s == pytest.approx([index / 12 for index in range(48)], abs=1e-4)


def test_the_stream_with_the_most_pixels_is_decoded(write_video: Callable[..., Path], ramp: Pixels) -> None:
    with open_video(write_video("two.mp4", ramp[:, :24, :32], ramp)) as video:
        assert (video.width_px, video.height_px) == (64, 48)
        assert sum(1 for _ in video.frames()) == 24


def test_real_footage_with_two_video_streams_gives_the_larger(real_clips: Path) -> None:
    with open_video(real_clips / "nasa_13013.mp4") as video:
        assert (video.width_px, video.height_px, round(video.fps, 2)) == (480, 270, 29.97)


def test_rotation_in_the_metadata_is_applied(write_video: Callable[..., Path], ramp: Pixels) -> None:
    with open_video(write_video("upright.mp4", ramp)) as video:
        upright = thumbnail(planes_of(next(video.frames())[1]), 64, 48)
    with open_video(write_video("turned.mp4", ramp, rotation=90.0)) as video:
        assert (video.width_px, video.height_px) == (48, 64)
        turned = thumbnail(planes_of(next(video.frames())[1]), 48, 64)
    assert np.abs(turned.astype(int) - np.rot90(upright)).mean() < 1


def test_an_empty_file_is_bad_data(tmp_path: Path) -> None:
    (tmp_path / "empty.mp4").touch()
    assert _reason(tmp_path / "empty.mp4") == "empty file"


def test_text_named_mp4_is_bad_data(tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("once upon a time\n" * 100)
    assert _reason(tmp_path / "text.mp4").startswith("not a video")


def test_sound_without_a_picture_is_bad_data(sound_only: Path) -> None:
    assert _reason(sound_only) == "no video stream"


def test_a_coding_that_nothing_here_knows_is_bad_data(write_video: Callable[..., Path], ramp: Pixels) -> None:
    path = write_video("other.mp4", ramp)
    path.write_bytes(path.read_bytes().replace(b"avc1", b"none"))
    assert _reason(path) == "nothing here decodes its video"


def test_a_file_cut_off_before_its_index_is_bad_data(write_video: Callable[..., Path], ramp: Pixels) -> None:
    path = write_video("cut.mp4", ramp)
    path.write_bytes(path.read_bytes()[:-500])
    assert _reason(path).startswith("not a video")


@pytest.mark.parametrize(
    ("name", "how", "num_frames"),
    [
        ("hidden by an edit list.mp4", {"later_s": -1}, 12),
        ("begins at ten seconds.mkv", {"later_s": 10}, 24),
        ("stands at its end.mp4", {"last_s": 10}, 24),
        ("stands at its end.mkv", {"last_s": 10}, 24),
        ("begins amid a group.ts", {"first": 4}, 12),
    ],
)
def test_a_whole_film_is_not_taken_for_a_truncated_one(
    write_video: Callable[..., Path],
    copied: Callable[..., Path],
    ramp: Pixels,
    tmp_path: Path,
    name: str,
    how: dict[str, float],
    num_frames: int,
) -> None:
    with open_video(copied(write_video("source.mp4", ramp, group=12), tmp_path / name, **how)) as video:
        times_s = [time_s for time_s, _ in video.frames()]
    assert times_s == pytest.approx([index / 12 for index in range(num_frames)], abs=2e-3)


def test_a_file_cut_off_after_its_index_says_how_far_it_went(write_video: Callable[..., Path]) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (24, 48, 64, 3), np.uint8)
    path = write_video("cut.mp4", noise, faststart=True)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert "after" in _reason(path)
