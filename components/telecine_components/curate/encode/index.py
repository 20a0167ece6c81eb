"""The index of a dataset: one row per sample, which says where its frames lie and where it comes from."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
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
        pa.field("split", pa.string()),  # "train" or "val"; all samples of a clip are on one side
        pa.field("shard", pa.string()),  # path in the store
        pa.field("shard_digest", pa.string()),  # SHA-256 of the tar
        pa.field("offset", pa.int64()),  # of the .npy member's bytes in the tar
        pa.field("length", pa.int64()),
        pa.field("num_frames", pa.int64()),
        pa.field("height_px", pa.int64()),
        pa.field("width_px", pa.int64()),
        pa.field("fps", pa.float64()),
        pa.field("motion", pa.float64()),
    ]
)


def held_out_clips(clip_ids: Iterable[str], *, val_ratio: float, seed: int) -> frozenset[str]:
    """The clips of the validation split: the first by hash, at least one, never all.

    The hash orders clips independently of their neighbours, so added footage moves few of them across.
    """
    ranked = sorted(set(clip_ids), key=lambda clip_id: hashlib.sha256(f"{seed}:{clip_id}".encode()).digest())
    num_val = min(max(1, round(val_ratio * len(ranked))), len(ranked) - 1)
    return frozenset(ranked[:num_val])


def write_index(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write the rows as Parquet; equal rows give equal bytes."""
    pq.write_table(pa.Table.from_pylist(list(rows), schema=SCHEMA), path)
