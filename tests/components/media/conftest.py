"""Footage and copies of it with other packets, written with PyAV."""

from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
import pytest

Pixels = npt.NDArray[np.uint8]


@pytest.fixture
def ramp() -> Pixels:
    """24 frames of 64x48 in which a colour ramp slides to the left."""
    y, x = np.mgrid[:48, :64]
    frames = [np.stack([(3 * (x + t)) % 256, 4 * y, np.full_like(x, 90)], axis=-1) for t in range(24)]
    return np.stack(frames).astype(np.uint8)


@pytest.fixture
def sound_only(tmp_path: Path) -> Path:
    """A file named .mp4 that holds a second of silence and no picture."""
    path = tmp_path / "sound.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16000, layout="mono")
        for start in range(0, 16000, 1000):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1000), np.float32), format="fltp", layout="mono")
            frame.sample_rate, frame.pts = 16000, start
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


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
