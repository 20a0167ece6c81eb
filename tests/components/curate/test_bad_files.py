"""No file stops a batch: each is a row with a reason or a correct result. One batch holds them all."""

import io
import os
import struct
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

Pixels = npt.NDArray[np.uint8]
Rows = list[dict[str, Any]]
FPS, NUM_FRAMES = 24, 30
HDR10 = "log-level=0:colorprim=bt2020:transfer=smpte2084:colormatrix=bt2020nc"
HLG = "colorprim=bt2020:transfer=arib-std-b67:colormatrix=bt2020nc"
M2TS = {"mpegts_m2ts_mode": "1"}
"""As cameras write it: each packet behind four bytes of a clock."""
NOT_UTF8 = os.fsdecode(b"not \xff utf-8.mp4")

REASONS = {
    "zero.mp4": "empty file",
    "text.mp4": "not a video",
    "picture.mp4": "not a video",
    "playlist.mp4": "not a video",
    "sound.mp4": "no video stream",
    "cut before its index.mp4": "not a video",
    "cut after its index.mp4": "truncated after",
    "cut.mkv": "truncated after",
    "corrupt in the middle.mp4": "damaged at frame",
    "size changes.ts": "changes from 96x72 to 48x36 pixels at frame 30",
    "huge.mkv": "pictures of 8000x6000 are larger than 8K",
    "hdr10.mp4": "HDR (PQ): convert it to SDR first",
    "hlg.mp4": "HDR (HLG): convert it to SDR first",
    "not \\xff utf-8.mp4": "its name is not UTF-8: rename it",
}
"""How the reason of each file begins."""
GOOD = {
    "plain.mp4": {},
    "named.avi": {},
    "no suffix": {},
    "other.suffix": {},
    "00001.MTS": {"codec": "h264"},
    "old.wmv": {"codec": "wmv2"},
    "two streams.mp4": {"width_px": 96, "height_px": 72},
    "odd.mkv": {"width_px": 97, "height_px": 73, "codec": "vp9"},
    "ten bits.mp4": {},
    "rotated.mp4": {"width_px": 72, "height_px": 96},
    "alpha.webm": {"codec": "vp9"},
    "alpha.mov": {"codec": "prores"},
    "header of 8 hours.mp4": {"end_s": NUM_FRAMES / FPS},
    "negative times.mkv": {"start_s": 0.0},
    "no times.ts": {"fps": 25.0, "end_s": NUM_FRAMES / 25},
    "one frame.mp4": {"num_frames": 1, "end_s": 1 / FPS},
    "with 'quotes\" and spaces .mp4": {},
    "línea 日本.mp4": {},
    "new\nline.mp4": {},
    "file:a?b#c%d.mp4": {},
}
"""What the one row of each file has beside the usual."""


def _film(seed: int, num_frames: int = NUM_FRAMES, height: int = 72, width: int = 96) -> Pixels:
    """Squares that slide to the left."""
    rng = np.random.default_rng(seed)
    squares = rng.integers(0, 255, (height // 8 + 1, (width + 2 * num_frames) // 8 + 1, 3), np.uint8)
    wide = squares.repeat(8, axis=0).repeat(8, axis=1)
    return np.stack([wide[:height, 2 * place : 2 * place + width] for place in range(num_frames)])


def _write(
    path: Path,
    frames: Pixels,
    codec: str = "libx264",
    *,
    pix_fmt: str = "yuv420p",
    stamps: list[int] | None = None,
    shrinks: tuple[int, ...] = (1,),
    rotation: float = 0.0,
    options: dict[str, str] | None = None,
    **container: Any,
) -> bytes:
    with av.open(str(path), "w", **container) as file:
        outs = [file.add_stream(codec, rate=Fraction(FPS), options=options or {}) for _ in shrinks]
        for out, shrink in zip(outs, shrinks, strict=True):
            out.height, out.width, out.pix_fmt = frames.shape[1] // shrink, frames.shape[2] // shrink, pix_fmt
            if rotation:
                out.set_display_rotation(rotation)
        for out in outs:
            for index, picture in enumerate(frames):
                cut = np.ascontiguousarray(picture[: out.height, : out.width])
                frame = av.VideoFrame.from_ndarray(cut, format="rgba" if cut.shape[-1] == 4 else "rgb24")
                frame.pts, frame.time_base = (stamps or range(len(frames)))[index], Fraction(1, FPS)
                file.mux(out.encode(frame))
            file.mux(out.encode(None))
    return path.read_bytes()


def _broken(folder: Path, scratch: Path) -> None:
    """Files that give a reason."""
    (folder / "zero.mp4").touch()
    (folder / "text.mp4").write_text("once upon a time\n" * 100)
    (folder / "playlist.mp4").write_text("#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:2,\nplain.mp4\n#EXT-X-ENDLIST\n")
    picture = io.BytesIO()
    Image.fromarray(_film(1)[0]).save(picture, "PNG")
    (folder / "picture.mp4").write_bytes(picture.getvalue())
    with av.open(str(folder / "sound.mp4"), "w") as file:
        stream = file.add_stream("aac", rate=16000, layout="mono")
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        sound.sample_rate = 16000
        file.mux(stream.encode(sound))
        file.mux(stream.encode(None))
    late = _write(scratch / "late.mp4", _film(2))
    (folder / "cut before its index.mp4").write_bytes(late[:-500])
    early = _write(scratch / "early.mp4", _film(3), options={"g": "6"}, container_options={"movflags": "+faststart"})
    (folder / "cut after its index.mp4").write_bytes(early[: len(early) // 2])
    middle = (early.find(b"mdat") + len(early)) // 2
    (folder / "corrupt in the middle.mp4").write_bytes(early[:middle] + b"\xa5" * 300 + early[middle + 300 :])
    whole = _write(scratch / "whole.mkv", _film(4), options={"g": "6"})
    (folder / "cut.mkv").write_bytes(whole[: len(whole) // 2])
    parts = [_write(scratch / f"{size}.ts", _film(5)[:, :size, : size * 4 // 3]) for size in (72, 36)]
    (folder / "size changes.ts").write_bytes(b"".join(parts))
    _write(folder / "huge.mkv", np.zeros((1, 6000, 8000, 3), np.uint8), "ffv1", pix_fmt="gray")
    _write(folder / "hdr10.mp4", _film(6), "libx265", pix_fmt="yuv420p10le", options={"x265-params": HDR10})
    _write(folder / "hlg.mp4", _film(7), pix_fmt="yuv420p10le", options={"x264-params": HLG})
    (folder / NOT_UTF8).write_bytes(_write(scratch / "named.mp4", _film(8)))


def _unusual(folder: Path, scratch: Path) -> None:
    """Files that give a result."""
    plain = ["plain.mp4", "with 'quotes\" and spaces .mp4", "línea 日本.mp4", "new\nline.mp4", "file:a?b#c%d.mp4"]
    for seed, name in enumerate([*plain, "named.avi", "no suffix", "other.suffix"]):
        (folder / name).write_bytes(_write(scratch / "film.mp4", _film(20 + seed)))
    _write(folder / "00001.MTS", _film(45), format="mpegts", options={"g": "12"}, container_options=M2TS)
    _write(folder / "old.wmv", _film(46), "wmv2", format="asf", options={"b": "2M"})
    _write(folder / "two streams.mp4", _film(30), shrinks=(2, 1))
    _write(folder / "odd.mkv", _film(31, height=73, width=97), "libvpx-vp9")
    _write(folder / "ten bits.mp4", _film(32), pix_fmt="yuv420p10le")
    _write(folder / "rotated.mp4", _film(33), rotation=90.0)
    clear = np.concatenate([_film(34), np.full((NUM_FRAMES, 72, 96, 1), 128, np.uint8)], axis=-1)
    _write(folder / "alpha.webm", clear, "libvpx-vp9", pix_fmt="yuva420p")
    _write(folder / "alpha.mov", clear, "prores_ks", pix_fmt="yuva444p10le", options={"profile": "4"})
    _write(folder / "negative times.mkv", _film(35), stamps=list(range(-12, NUM_FRAMES - 12)))
    (folder / "no times.ts").write_bytes(_write(scratch / "raw.h264", _film(36)))
    _write(folder / "one frame.mp4", _film(37, num_frames=1))
    long = bytearray(_write(scratch / "long.mp4", _film(38)))
    for box, offset in ((b"mvhd", 20), (b"mdhd", 20), (b"tkhd", 24)):
        place = long.find(box) + offset
        (ticks,) = struct.unpack(">I", long[place : place + 4])
        long[place : place + 4] = struct.pack(">I", ticks * 8 * 3600 * FPS // NUM_FRAMES)
    (folder / "header of 8 hours.mp4").write_bytes(long)
    _write(folder / "slides.mp4", _film(39), stamps=[*range(15), *range(58, 73)])


@pytest.fixture(scope="module")
def footage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("footage")
    scratch = tmp_path_factory.mktemp("scratch")
    _broken(folder, scratch)
    _unusual(folder, scratch)
    (folder / "notes").write_text("a README need not end in .txt\n")
    os.mkfifo(folder / "pipe.mp4")
    (folder / "dangling.mp4").symlink_to(folder / "nowhere.mp4")
    return folder


def test_each_file_is_a_row_with_a_reason_or_a_correct_result(
    run_component: Callable[..., Any], footage: Path, rows_of: Callable[[str], Rows]
) -> None:
    outputs = run_component("curate.split", videos_uri=footage, max_clip_s=1.5)
    rows = rows_of(outputs.clips_uri)
    assert {row["source"] for row in rows} == {*REASONS, *GOOD, "slides.mp4"}
    bad = {row["source"]: row["reason"] for row in rows if row["clip_id"] is None}
    assert {name: reason[: len(REASONS.get(name, ""))] for name, reason in bad.items()} == REASONS
    assert outputs.num_bad_files == len(REASONS)
    good = [row for row in rows if row["source"] in GOOD]
    assert len(good) == len(GOOD)
    usual = {"start_frame": 0, "num_frames": NUM_FRAMES, "width_px": 96, "height_px": 72, "fps": float(FPS)}
    for row in good:
        expected = usual | GOOD[row["source"]]
        assert {name: row[name] for name in expected} == pytest.approx(expected, abs=1e-5), row["source"]
    # The frame that stands for 44 frames is longer than a clip may last, and so is one of its own.
    slides = [row for row in rows if row["source"] == "slides.mp4"]
    assert [(row["start_frame"], row["end_frame"]) for row in slides] == [(0, 14), (14, 15), (15, 30)]
    assert [row["end_s"] for row in slides] == pytest.approx([14 / FPS, 58 / FPS, 73 / FPS], abs=1e-5)
    assert [row["fps"] for row in slides] == pytest.approx([FPS, FPS / 44, FPS], rel=1e-4)
