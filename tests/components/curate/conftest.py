"""Footage with known cuts."""

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
import pytest

from telecine_components.media.encode import write_mp4

Pixels = npt.NDArray[np.uint8]
FPS = 24
CUTS = (40, 84)
"""Frames at which the second and third scene of ``three_scenes`` begin; it has 128 frames."""


@pytest.fixture(scope="session")
def scene() -> Callable[..., Pixels]:
    """Draw a scene from a seed: coloured blobs that slide by ``step_px`` (each or all) a frame over 96x72 pixels."""

    def draw(seed: int, num_frames: int, step_px: float | Sequence[float] = 1.25) -> Pixels:
        rng = np.random.default_rng(seed)
        places = np.cumsum(np.broadcast_to(np.asarray(step_px), num_frames)).astype(int)
        width = 96 + int(places[-1])
        y, x = np.mgrid[:72, :width].astype(np.float32)
        wide = np.full((72, width, 3), rng.uniform(60, 130, 3), np.float32)
        for _ in range(width // 4):
            centre_x, centre_y, radius = rng.uniform(0, width), rng.uniform(0, 72), rng.uniform(4, 9)
            inside = np.clip(radius - np.hypot(x - centre_x, y - centre_y), 0, 1)[..., None]
            wide += inside * (rng.uniform(0, 255, 3).astype(np.float32) - wide)
        return np.stack([wide[:, place : place + 96] for place in places]).astype(np.uint8)

    return draw


@pytest.fixture(scope="session")
def three_scenes(scene: Callable[..., Pixels]) -> Pixels:
    return np.concatenate([scene(1, CUTS[0]), scene(2, CUTS[1] - CUTS[0], 1.5), scene(3, 128 - CUTS[1])])


@pytest.fixture(scope="session")
def _footage(tmp_path_factory: pytest.TempPathFactory, three_scenes: Pixels, scene: Callable[..., Pixels]) -> Path:
    folder = tmp_path_factory.mktemp("footage")
    (folder / "day one").mkdir()
    write_mp4(folder / "day one" / "three.mp4", three_scenes, FPS)
    shots = [(0, 40, "red blobs"), (40, 84, "green blobs"), (84, 128, "blue blobs")]
    truth = {
        "shots": [{"start_s": start / FPS, "end_s": end / FPS, "caption": text} for start, end, text in shots],
        "licence": "CC0-1.0",
        "consent": "synthetic",
    }
    (folder / "day one" / "three.json").write_text(json.dumps(truth))
    write_mp4(folder / "one.mp4", scene(4, 60), FPS)
    (folder / "one.txt").write_text("many blobs\n")
    return folder


@pytest.fixture
def footage(_footage: Path, tmp_path: Path) -> Path:
    """A folder of one's own: ``day one/three.mp4`` with truth, ``one.mp4`` of one shot with a caption."""
    return Path(shutil.copytree(_footage, tmp_path / "footage"))


@pytest.fixture
def rows_of() -> Callable[[str], list[dict[str, Any]]]:
    """Rows of the Parquet file at a URI."""
    return lambda uri: pq.read_table(uri.removeprefix("file://")).to_pylist()
