from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
import pytest

from telecine_components.media.colour import BT601, BT709, rgb_to_yuv420, yuv_to_rgb
from telecine_components.media.decode import open_video
from telecine_components.media.encode import Sound, write_mp4
from telecine_components.media.planes import planes_of, thumbnail
from telecine_models.backlot import clip, film

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


def click(length: int, at: int, channels: int = 1) -> npt.NDArray[np.float32]:
    """A short decaying tone that begins at one sample of a silent track."""
    samples = np.zeros((channels, length), np.float32)
    times = np.arange(min(800, length - at)) / 16000
    samples[:, at : at + len(times)] = 0.8 * np.sin(2 * np.pi * 600 * times) * np.exp(-times / 0.02)
    return samples


def heard(path: Path) -> tuple[npt.NDArray[np.float32], int, float, float]:
    """Decoded samples, their rate, and the durations of the sound and of the picture in seconds."""
    with av.open(str(path)) as container:
        sound, picture = container.streams.audio[0], container.streams.video[0]
        durations = [float(each.duration * each.time_base) for each in (sound, picture)]
        samples = np.concatenate([frame.to_ndarray() for frame in container.decode(sound)], axis=1)
        return samples, sound.rate, durations[0], durations[1]


@pytest.mark.parametrize(("rate_hz", "channels", "fps"), [(16000, 1, 12.0), (44100, 2, 12.0), (48000, 2, 12.5)])
def test_sound_is_heard_when_it_was_made_and_lasts_as_long_as_the_picture(
    tmp_path: Path, ramp: Pixels, rate_hz: int, channels: int, fps: float
) -> None:
    length = round(len(ramp) / fps * rate_hz)
    for at in (0, length // 3, length - 900):
        sound = Sound(click(length, at, channels), rate_hz)
        write_mp4(tmp_path / "a.mp4", ramp, fps, sound=sound)
        samples, rate, sound_s, picture_s = heard(tmp_path / "a.mp4")
        assert (rate, len(samples)) == (rate_hz, channels)
        assert abs(sound_s - picture_s) < 1 / fps
        # Where the decoded sound is most like the click.
        begins = int(np.correlate(samples[0], click(800, 0)[0], "valid").argmax())
        assert abs(begins - at) / rate_hz < 0.01


def test_equal_sounds_give_equal_bytes_and_other_sounds_others(tmp_path: Path, ramp: Pixels) -> None:
    length = round(len(ramp) / 12 * 16000)
    written = []
    for at in (2000, 2000, 4000):
        write_mp4(tmp_path / "a.mp4", ramp, 12, sound=Sound(click(length, at), 16000))
        written.append((tmp_path / "a.mp4").read_bytes())
    assert written[0] == written[1] != written[2]


def test_the_picture_is_the_same_with_sound_and_without(tmp_path: Path, ramp: Pixels) -> None:
    write_mp4(tmp_path / "mute.mp4", ramp, 12)
    write_mp4(tmp_path / "loud.mp4", ramp, 12, sound=Sound(click(round(len(ramp) / 12 * 16000), 0), 16000))
    packets = []
    for name in ("mute", "loud"):
        with av.open(str(tmp_path / f"{name}.mp4")) as container:
            packets.append([bytes(packet) for packet in container.demux(video=0)])
            assert len(container.streams.audio) == (name == "loud")
    assert packets[0] == packets[1]


def test_a_bounce_is_heard_within_a_tenth_of_a_second_of_when_it_is_seen(tmp_path: Path) -> None:
    drawn = clip(5, num_frames=36, fps=12, width_px=64, height_px=48, physics="collision")
    write_mp4(tmp_path / "a.mp4", drawn.frames, 12, sound=Sound(drawn.sound(16000), 16000))
    samples = heard(tmp_path / "a.mp4")[0][0]
    (event,) = drawn.truth["events"]
    energy = np.convolve(np.square(samples), np.ones(160), "same")
    assert abs(energy.argmax() / 16000 - event["time_s"]) < 0.1


@pytest.mark.parametrize(
    ("samples", "rate_hz", "message"),
    [
        (np.zeros(16000, np.float32), 16000, r"samples must be float32 \[1 or 2, S\], S >= 1, got float32 \[16000\]"),
        (np.zeros((3, 16000), np.float32), 16000, r"got float32 \[3, 16000\]"),
        (np.zeros((1, 16000)), 16000, r"got float64 \[1, 16000\]"),
        (np.zeros((1, 16000), np.float32), 17000, "rate_hz must be one of .*, got 17000"),
    ],
)
def test_what_is_no_sound_is_refused(samples: npt.NDArray[np.float32], rate_hz: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Sound(samples, rate_hz)


def test_a_sound_of_another_length_is_refused(tmp_path: Path, ramp: Pixels) -> None:
    with pytest.raises(ValueError, match=r"sound must last as long as the frames, 2\.000 s, got 1\.000 s"):
        write_mp4(tmp_path / "a.mp4", np.repeat(ramp[:1], 24, axis=0), 12, sound=Sound(click(16000, 0), 16000))
