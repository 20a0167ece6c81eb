"""The index of a dataset: one row a sample, which says where it comes from and where its frames lie in a shard."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

SCHEMA = pa.schema(
    [
        pa.field("sample_id", pa.string()),
        pa.field("clip_id", pa.string()),
        pa.field("source", pa.string()),
        pa.field("source_digest", pa.string()),
        pa.field("licence", pa.string()),
        pa.field("consent", pa.string()),
        pa.field("caption", pa.string()),
        pa.field("split", pa.string()),  # "train" or "val"; all samples of a shot are on one side
        pa.field("shard", pa.string()),  # path in the store
        pa.field("shard_digest", pa.string()),  # SHA-256 of the tar
        pa.field("offset", pa.int64()),  # of the .npy member's bytes in the tar
        pa.field("length", pa.int64()),
        pa.field("num_frames", pa.int64()),
        pa.field("height_px", pa.int64()),
        pa.field("width_px", pa.int64()),
        pa.field("fps", pa.float64()),
        # What a model may be conditioned on (arXiv 2410.08260, section 4.4), from the clip's manifest; may be null.
        pa.field("motion", pa.float64()),  # frame sizes per second
        pa.field("clarity", pa.float64()),  # 0 flat .. 1 sharp: what blur leaves
        pa.field("aesthetic", pa.float64()),  # 0 .. 1
        pa.field("suitability", pa.float64()),  # learned score of fitness for training, 1 bad .. 5 good
    ]
)
_MEMBER = pa.struct([("name", pa.string()), ("offset", pa.int64()), ("length", pa.int64())])
ANNOTATED = SCHEMA.append(pa.field("members", pa.list_(_MEMBER)))
"""With where the arrays lie that a sample has beside its frames."""


def held_out_clips(shot_of: Mapping[str, str], *, val_ratio: float, seed: int) -> frozenset[str]:
    """The clips of the validation split: those of whole shots, the first by hash; at least one clip, never all.

    Args:
        shot_of: the shot of each clip. Clips of one shot look alike, so a shot lies on one side; where all clips are
            of one shot, clips are what is held out.

    The hash orders shots independently of their neighbours, so added footage moves few of them across.
    """
    groups = shot_of if len(set(shot_of.values())) > 1 else {clip: clip for clip in shot_of}
    ranked = sorted(set(groups.values()), key=lambda group: hashlib.sha256(f"{seed}:{group}".encode()).digest())
    held: frozenset[str] = frozenset()
    for group in ranked[:-1]:
        held |= {clip for clip, its_group in groups.items() if its_group == group}
        if len(held) >= val_ratio * len(shot_of):
            break
    return held


def write_index(path: Path, rows: Sequence[Mapping[str, Any]], schema: pa.Schema = SCHEMA) -> None:
    """Write the rows as Parquet; equal rows give equal bytes."""
    pq.write_table(pa.Table.from_pylist(list(rows), schema=schema), path)
