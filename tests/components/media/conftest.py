"""Footage and copies of it with other packets, written with PyAV."""

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
