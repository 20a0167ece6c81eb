"""A tiny dataset in the layout of curate.encode, and one model trained on it for everybody who only reads it."""

import dataclasses
import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from telecine import component, settings
from telecine.execution import Call, execute
from telecine_components.media.shards import ShardWriter, array_bytes

COLOURS = {"red": (222, 48, 52), "green": (56, 172, 82), "blue": (52, 92, 224)}
SHARD = "items/test/train-0000.tar"

TINY_TRAINING: dict[str, Any] = {
    "num_steps": 24,
    "batch_size": 4,
    "learning_rate": 3e-3,
    "warmup_steps": 4,
    "depth": 2,
    "patch_px": 4,
    "checkpoint_every_steps": 5,
    "eval_every_steps": 8,
    "eval_draws": 2,
    "num_threads": 1,
}


@pytest.fixture(scope="session")
def make_dataset() -> Callable[..., Path]:
    """Write ``num_clips`` clips of two samples each, a square that crosses the picture, into a deployment's store.

    ``make_dataset(deployment, num_clips=8, val_clips=2, **shape) -> folder with index.parquet``
    """
    return _make_dataset


@pytest.fixture(scope="session")
def tiny_training() -> dict[str, Any]:
    """Inputs of a training that takes a second or two."""
    return dict(TINY_TRAINING)


@dataclasses.dataclass(frozen=True)
class Trained:
    """A deployment in which one tiny training was run undisturbed, to its end."""

    deployment: settings.Settings
    dataset: Path
    outputs: Any

    def run(self, name: str, run: str = "test", force: bool = False, **inputs: Any) -> Any:
        """Run a component in this deployment."""
        found = component.find(name)
        call = Call(
            component=found,
            inputs=found.parse(inputs),
            run=run,
            task=name,
            settings=self.deployment,
            force=force,
        )
        return found.outputs(**execute(call).outputs)


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, empty_tracker: Path) -> Trained:
    """The undisturbed training."""
    here = settings.from_environment({"TELECINE_HOME": str(tmp_path_factory.mktemp("trained"))})
    (here.home / "mlflow").mkdir()
    shutil.copy(empty_tracker, here.home / "mlflow" / "mlflow.db")
    dataset = _make_dataset(here)
    laboratory = Trained(here, dataset, None)
    outputs = laboratory.run("pretrain.train", dataset_uri=str(dataset), **TINY_TRAINING)
    return dataclasses.replace(laboratory, outputs=outputs)


def _make_dataset(
    deployment: settings.Settings,
    *,
    num_clips: int = 8,
    val_clips: int = 2,
    num_frames: int = 2,
    height_px: int = 8,
    width_px: int = 8,
    **columns: Any,
) -> Path:
    shard = deployment.home / "store" / SHARD
    shard.parent.mkdir(parents=True, exist_ok=True)
    rows = []
    with ShardWriter(shard) as writer:
        for index in range(2 * num_clips):
            colour = list(COLOURS)[index % len(COLOURS)]
            frames = _square(num_frames, height_px, width_px, COLOURS[colour], start=index % 5)
            members = writer.add(f"sample{index:04d}", {"frames.npy": array_bytes(frames)})
            clip = index // 2
            row = {
                "sample_id": f"sample{index:04d}",
                "clip_id": f"clip{clip:04d}",
                "source": f"film_{clip // 2:04d}.mp4",
                "source_digest": f"{clip // 2:064x}",
                "licence": "CC0-1.0",
                "consent": "synthetic",
                "caption": f"a {colour} square moves right",
                "split": "val" if clip < val_clips else "train",
                "shard": SHARD,
                "offset": members["frames.npy"].offset,
                "length": members["frames.npy"].length,
                "num_frames": num_frames,
                "height_px": height_px,
                "width_px": width_px,
                "fps": 8.0,
                "motion": 0.1,
            }
            rows.append(row | columns)
    digest = hashlib.sha256(shard.read_bytes()).hexdigest()
    dataset = deployment.home / "dataset"
    dataset.mkdir(exist_ok=True)
    table = pa.Table.from_pylist([{"shard_digest": digest} | row for row in rows])
    pq.write_table(table, dataset / "index.parquet")
    return dataset


def _square(
    num_frames: int, height_px: int, width_px: int, colour: tuple[int, int, int], *, start: int
) -> np.ndarray[Any, np.dtype[np.uint8]]:
    frames = np.full((num_frames, height_px, width_px, 3), 40, dtype=np.uint8)
    for index, frame in enumerate(frames):
        left = (start + index) % max(1, width_px - 3)
        frame[2:5, left : left + 3] = colour
    return frames
