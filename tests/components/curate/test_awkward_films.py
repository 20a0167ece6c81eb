"""What the manifest says of a clip is what its file shows: a number is drawn into every picture of awkward films."""

import os
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
import pytest

from telecine_components.media.decode import open_video
from telecine_components.media.shards import read_member

Pixels = npt.NDArray[np.uint8]
WIDTH, HEIGHT, NUM_FRAMES, FPS = 120, 72, 36, 25
DARK, BRIGHT = 90, 160
CFR = [index / FPS for index in range(NUM_FRAMES)]
VFR_MS = np.cumsum([0, *np.random.default_rng(0).integers(10, 90, NUM_FRAMES - 1)]).astype(int)
VFR_MS[20:] += 5000
FILMS: dict[str, dict[str, Any]] = {
    "interlaced.ts": {"codec": "mpeg2video", "options": {"flags": "+ildct+ilme", "bf": "2", "b": "4M"}},
    "4:2:2.mov": {"codec": "prores_ks", "pix_fmt": "yuv422p10le"},
    "alpha.webm": {"codec": "libvpx-vp9", "pix_fmt": "yuva420p", "options": {"deadline": "realtime", "cpu-used": "8"}},
    "hidden references.webm": {"codec": "libvpx-vp9", "options": {"auto-alt-ref": "1", "lag-in-frames": "16"}},
    "grain.mkv": {"codec": "libsvtav1", "options": {"preset": "12", "svtav1-params": "lp=1:film-grain=20"}},
    "screen.mp4": {"stamps": VFR_MS.tolist(), "time_base": Fraction(1, 1000)},
    "sideways.mp4": {"rotation": 90, "pixel_aspect": Fraction(4, 3)},
    "before zero.mkv": {"options": {"bf": "3"}, "offset": -20},
    "fragmented.mp4": {"options": {"bf": "3"}, "movflags": "frag_keyframe+empty_moov"},
    "lossless.mp4": {"options": {"qp": "0"}},
    "photos.avi": {"codec": "mjpeg", "pix_fmt": "yuvj422p"},
    "packed.avi": {"codec": "mpeg4", "options": {"bf": "2", "b": "4M"}},
    "drawn.gif": {"codec": "gif", "pix_fmt": "rgb8"},
    "old.wmv": {"codec": "wmv2", "options": {"b": "4M"}, "format": "asf"},
    "bare.h264": {"options": {"bf": "0"}, "format": "h264"},
    "two.mp4": {"num_frames": 2, "options": {"bf": "2"}},
    "tiny.mp4": {"size": (16, 16)},
    "strip.mp4": {"size": (4096, 64), "num_frames": 12},
    "long sound.mp4": {"sound_s": 6},
}


def _cells(width: int, height: int) -> list[tuple[slice, slice]]:
    """Where the six bits of a number are drawn: two rows over the upper half."""
    wide, high = width // 3, height // 4
    return [
        (slice(row * high, (row + 1) * high), slice(column * wide, (column + 1) * wide))
        for row in range(2)
        for column in range(3)
    ]


def _pictures(num_frames: int, width: int, height: int) -> Pixels:
    """Neighbours differ in one cell, as in a Gray code."""
    y, x = np.mgrid[:height, :width]
    frames = np.stack([(60 + 50 * np.sin((x + 2 * t) / 9) * np.cos(y / 7)) for t in range(num_frames)]).astype(np.uint8)
    for number, frame in enumerate(frames):
        for bit, cell in enumerate(_cells(width, height)):
            frame[cell] = BRIGHT if (number ^ number >> 1) >> bit & 1 else DARK
    return frames[..., None].repeat(3, axis=-1)


def _number(luma: Pixels) -> int:
    rows, columns = (side // 16 for side in (luma.shape[0], luma.shape[1]))
    code = 0
    for bit, (down, across) in enumerate(_cells(luma.shape[1], luma.shape[0])):
        inner = luma[down.start + rows : down.stop - rows, across.start + columns : across.stop - columns]
        code |= int(inner.mean() > (DARK + BRIGHT) / 2) << bit
    return code ^ code >> 1 ^ code >> 2 ^ code >> 3 ^ code >> 4 ^ code >> 5


def _write(path: Path, *, codec: str = "libx264", size: tuple[int, int] = (WIDTH, HEIGHT), **how: Any) -> None:
    container = {"movflags": how["movflags"]} if "movflags" in how else {}
    options = {"g": "12", "threads": "1"} | how.get("options", {})
    with av.open(str(path), "w", format=how.get("format"), options=container) as out:
        stream = out.add_stream(codec, rate=FPS, options=options)
        stream.width, stream.height, stream.pix_fmt = *size, how.get("pix_fmt", "yuv420p")
        base = stream.codec_context.time_base = how.get("time_base", Fraction(1, FPS))
        if "rotation" in how:
            stream.set_display_rotation(how["rotation"])
        if "pixel_aspect" in how:
            stream.codec_context.sample_aspect_ratio = how["pixel_aspect"]
        sound = out.add_stream("aac", rate=16_000, layout="mono") if "sound_s" in how else None
        for index, picture in enumerate(_pictures(how.get("num_frames", NUM_FRAMES), *size)):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = how.get("stamps", range(NUM_FRAMES))[index] + how.get("offset", 0), base
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
        if sound:
            silence = av.AudioFrame.from_ndarray(
                np.zeros((1, how["sound_s"] * 16_000), np.float32), format="fltp", layout="mono"
            )
            silence.sample_rate = 16_000
            out.mux(sound.encode(silence))
            out.mux(sound.encode(None))
    # For root, SVT-AV1 makes the thread that opens it one of real time, and what that starts later inherits it.
    os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    (tmp_path / "videos").mkdir()
    for name, how in FILMS.items():
        _write(tmp_path / "videos" / name, **how)
    return tmp_path / "videos"


def _times_s(name: str) -> list[float]:
    times_s = (VFR_MS / 1000).tolist() if "stamps" in FILMS[name] else CFR
    return times_s[: FILMS[name].get("num_frames", NUM_FRAMES)]


def _check_times(row: dict[str, Any], times_s: Sequence[float]) -> None:
    start, end = row["start_frame"], row["end_frame"]
    assert end <= len(times_s)
    assert row["start_s"] == pytest.approx(times_s[start], abs=1e-3)
    if end < len(times_s):
        assert row["end_s"] == pytest.approx(times_s[end], abs=1e-3)


def test_each_clip_shows_the_frames_that_the_manifest_names_at_their_times(
    run_component: Callable[..., Any], rows_of: Callable[[str], list[dict[str, Any]]], videos: Path, tmp_path: Path
) -> None:
    split = run_component("curate.split", videos_uri=videos, max_clip_s=0.5, trim_frames=1)
    exact = {"max_trim_frames": 0, "max_widen_frames": 0}
    outputs = run_component("curate.cut", clips_uri=split.clips_uri, videos_uri=videos, **exact)
    assert {row["source"]: row["reason"] for row in rows_of(outputs.clips_uri)} == dict.fromkeys(FILMS)
    for row in rows_of(f"{outputs.shards_uri}/shards.parquet"):
        start, end, times_s = row["start_frame"], row["end_frame"], _times_s(row["source"])
        _check_times(row, times_s)
        path = tmp_path / "clip.mp4"
        shard = Path(outputs.shards_uri.removeprefix("file://")) / row["shard"]
        path.write_bytes(read_member(shard, row["offset"], row["length"]))
        with open_video(path) as video:
            assert (video.width_px, video.height_px) == (row["width_px"], row["height_px"])
            shown = [(time_s, _number(frame.to_ndarray(format="gray"))) for time_s, frame in video.frames()]
        assert [number for _, number in shown] == list(range(start, end)), row["source"]
        wanted_s = [time_s - times_s[start] for time_s in times_s[start:end]]
        assert [time_s for time_s, _ in shown] == pytest.approx(wanted_s, abs=1.1e-3), row["source"]
