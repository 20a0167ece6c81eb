"""Footage whose camera and colours are known, and manifests of it."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
import pytest

from telecine_components.media import clips
from telecine_components.media.encode import write_mp4

Pixels = npt.NDArray[np.uint8]
FPS = 12
HEIGHT_PX, WIDTH_PX = 108, 192


@pytest.fixture(scope="session")
def landscape() -> Pixels:
    """Blobs of all colours and sizes, uint8 [324, 576, 3]: three times a picture each way."""
    rng = np.random.default_rng(0)
    wide = np.full((3 * HEIGHT_PX, 3 * WIDTH_PX, 3), 120, np.uint8)
    for _ in range(700):
        centre = int(rng.integers(3 * WIDTH_PX)), int(rng.integers(3 * HEIGHT_PX))
        cv2.circle(wide, centre, int(rng.integers(3, 10)), rng.integers(0, 256, 3).tolist(), -1, cv2.LINE_AA)
    return wide


@pytest.fixture(scope="session")
def film(landscape: Pixels) -> Callable[..., Pixels]:
    """``film(num, right=px, down=px)``: pictures of the landscape, each shifted against the one before."""

    def shoot(num: int, *, right: float = 0.0, down: float = 0.0) -> Pixels:
        places = [(round(HEIGHT_PX + down * index), round(WIDTH_PX + right * index)) for index in range(num)]
        return np.stack([landscape[y : y + HEIGHT_PX, x : x + WIDTH_PX] for y, x in places])

    return shoot


@pytest.fixture
def manifest(tmp_path: Path) -> Callable[..., Path]:
    """``manifest({"a.mp4": frames}, **columns)``: write the videos and a manifest of one clip each, in ``tmp_path``."""

    def write(films: dict[str, Pixels], **columns: Any) -> Path:
        (tmp_path / "videos").mkdir(exist_ok=True)
        rows = []
        for name, frames in films.items():
            path = tmp_path / "videos" / name
            write_mp4(path, frames, FPS)
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            rows.append(_row(name, digest, len(frames)) | columns)
        clips.write(tmp_path / "clips.parquet", rows)
        return tmp_path / "clips.parquet"

    return write


@pytest.fixture
def rows_of() -> Callable[[str], dict[str, dict[str, Any]]]:
    """Rows of the manifest at a URI, by source."""
    return lambda uri: {row["source"]: row for row in pq.read_table(uri.removeprefix("file://")).to_pylist()}


def _row(name: str, digest: str, num_frames: int) -> dict[str, Any]:
    return {
        "clip_id": hashlib.sha256(name.encode()).hexdigest()[:16],
        "shot_id": digest[:16],
        "source": name,
        "source_digest": digest,
        "start_s": 0.0,
        "end_s": num_frames / FPS,
        "start_frame": 0,
        "end_frame": num_frames,
        "num_frames": num_frames,
        "fps": float(FPS),
        "width_px": WIDTH_PX,
        "height_px": HEIGHT_PX,
        "caption": "",
    }
