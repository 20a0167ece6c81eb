"""A small dataset in the layout of curate.encode, without footage: squares that cross the picture."""

import hashlib
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from telecine_components.media.shards import ShardWriter, array_bytes

SHARD = "items/drill/train-0000.tar"
COLOURS = {"red": (222, 48, 52), "green": (56, 172, 82), "blue": (52, 92, 224)}
NUM_CLIPS, NUM_VAL_CLIPS, SAMPLES_PER_CLIP = 12, 3, 2
NUM_FRAMES, SIDE_PX = 2, 8


def write_dataset(home: Path) -> Path:
    """Put a shard into the store of a home, and an index beside it; returns the dataset's folder."""
    shard = home / "store" / SHARD
    shard.parent.mkdir(parents=True, exist_ok=True)
    rows = []
    with ShardWriter(shard) as writer:
        for number in range(NUM_CLIPS * SAMPLES_PER_CLIP):
            colour = list(COLOURS)[number % len(COLOURS)]
            members = writer.add(f"sample{number:04d}", {"frames.npy": array_bytes(_square(COLOURS[colour], number))})
            clip = number // SAMPLES_PER_CLIP
            rows.append(
                {
                    "sample_id": f"sample{number:04d}",
                    "clip_id": f"clip{clip:04d}",
                    "caption": f"a {colour} square moves right",
                    "split": "val" if clip < NUM_VAL_CLIPS else "train",
                    "shard": SHARD,
                    "offset": members["frames.npy"].offset,
                    "length": members["frames.npy"].length,
                    "num_frames": NUM_FRAMES,
                    "height_px": SIDE_PX,
                    "width_px": SIDE_PX,
                    "fps": 8.0,
                }
            )
    digest = hashlib.sha256(shard.read_bytes()).hexdigest()
    dataset = home / "dataset"
    dataset.mkdir(exist_ok=True)
    pq.write_table(pa.Table.from_pylist([row | {"shard_digest": digest} for row in rows]), dataset / "index.parquet")
    return dataset


def _square(colour: tuple[int, int, int], number: int) -> npt.NDArray[np.uint8]:
    """Frames [F, H, W, 3] of a square that begins at another column for each number."""
    frames = np.full((NUM_FRAMES, SIDE_PX, SIDE_PX, 3), 40, dtype=np.uint8)
    for index, frame in enumerate(frames):
        left = (number + index) % (SIDE_PX - 3)
        frame[2:5, left : left + 3] = colour
    return frames
