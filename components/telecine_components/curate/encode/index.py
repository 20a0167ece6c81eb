"""The index of a dataset: one row per sample, which says where its frames lie and where it comes from."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from telecine_components.media.index import SCHEMA


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


def write_index(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write the rows as Parquet; equal rows give equal bytes."""
    pq.write_table(pa.Table.from_pylist(list(rows), schema=SCHEMA), path)
