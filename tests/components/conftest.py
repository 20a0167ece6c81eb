"""Small videos, written with PyAV."""

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
import pytest

Pixels = npt.NDArray[np.uint8]


@pytest.fixture
def write_video(tmp_path: Path) -> Callable[..., Path]:
    """Write streams of frames with any codec, pixel format, time stamps or rotation."""

    def write(
        name: str,
        *streams: Pixels,
        codec: str = "libx264",
        pix_fmt: str = "yuv420p",
        stamps: list[int] | None = None,
        rotation: float = 0.0,
        faststart: bool = False,
        group: int | None = None,
    ) -> Path:
        path = tmp_path / name
        options = {"movflags": "+faststart"} if faststart else {}
        groups = {"g": str(group), "sc_threshold": "0"} if group else {}
        with av.open(str(path), "w", options=options) as container:
            outs = [container.add_stream(codec, rate=Fraction(12), options=groups) for _ in streams]
            for out, frames in zip(outs, streams, strict=True):
                out.height, out.width, out.pix_fmt = frames.shape[1], frames.shape[2], pix_fmt
                if rotation:
                    out.set_display_rotation(rotation)
            for out, frames in zip(outs, streams, strict=True):
                for index, picture in enumerate(frames):
                    frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
                    frame.pts, frame.time_base = (stamps or list(range(len(frames))))[index], Fraction(1, 12)
                    container.mux(out.encode(frame))
                container.mux(out.encode(None))
        return path

    return write


@pytest.fixture
def copied() -> Callable[..., Path]:
    """Copy a film's packets from one on into another file, all so many seconds later, the last one to stand so long."""

    def copy(source: Path, target: Path, *, first: int = 0, later_s: float = 0, last_s: float | None = None) -> Path:
        with av.open(str(source)) as film, av.open(str(target), "w") as out:
            stream = out.add_stream_from_template(film.streams.video[0], opaque=True)
            packets = [packet for packet in film.demux(video=0) if packet.size][first:]
            if last_s is not None:
                packets[-1].duration = round(last_s / packets[-1].time_base)
            for packet in packets:
                packet.pts += round(later_s / packet.time_base)
                packet.dts += round(later_s / packet.time_base)
                packet.stream = stream
                out.mux(packet)
        return target

    return copy
