"""From clips that are cut to shards: which clip lies in which tar, and what a tar holds of it."""

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from telecine_components.curate.cut.buckets import bucket
from telecine_components.media import clips
from telecine_components.media.shards import Member, ShardWriter, tar_bytes

FILE = "shards.parquet"
SCHEMA = pa.schema(
    [
        *clips.SCHEMA,
        pa.field("bucket", pa.string()),  # folder of the shard: resolution, aspect and length
        pa.field("shard", pa.string()),  # path of the tar in the folder of shards
        pa.field("offset", pa.int64()),  # of the .mp4 member's bytes in the tar
        pa.field("length", pa.int64()),
        pa.field("cut", pa.string()),  # "copy", "smart" (copied in part) or "encode"
        pa.field("cut_start_frame", pa.int64()),  # what the file holds of the source: fewer where it was trimmed
        pa.field("cut_end_frame", pa.int64()),
        pa.field("num_encoded_frames", pa.int64()),
    ]
)

Row = dict[str, Any]


def packed(rows: Sequence[Row], files: Mapping[str, Path], max_bytes: int) -> Iterator[tuple[str, list[Row]]]:
    """The path of each shard and its clips, which lie in the order of their ids, films mixed.

    Args:
        rows: clips with what :func:`described` gives them.
        files: mp4 of each clip, by its id.
        max_bytes: of a tar; a clip that is larger has one of its own.
    """
    groups: dict[str, list[Row]] = defaultdict(list)
    for row in sorted(rows, key=lambda row: str(row["clip_id"])):
        groups[row["bucket"]].append(row)
    for folder in sorted(groups):
        number, held, sizes = 0, list[Row](), list[int]()
        for row in groups[folder]:
            fresh = [files[row["clip_id"]].stat().st_size, *(len(each) for each in _beside(row).values())]
            if held and tar_bytes([*sizes, *fresh]) > max_bytes:
                yield f"{folder}/{number:06d}.tar", held
                number, held, sizes = number + 1, [], []
            held.append(row)
            sizes += fresh
        yield f"{folder}/{number:06d}.tar", held


def described(row: Row, made: Mapping[str, Any]) -> Row:
    """A clip with how it was cut and which bucket it is in."""
    num_frames = made["cut_end_frame"] - made["cut_start_frame"]
    return {**row, **made, "bucket": bucket(row["width_px"], row["height_px"], num_frames)}


def write(path: Path, rows: Sequence[Row], files: Mapping[str, Path]) -> list[Member]:
    """Write a tar of ``<clip_id>.mp4``, ``.json`` (the clip's row) and ``.txt`` (its caption); where each mp4 lies."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with ShardWriter(path) as shard:
        return [
            shard.add(row["clip_id"], {"mp4": files[row["clip_id"]].read_bytes(), **_beside(row)})["mp4"]
            for row in rows
        ]


def write_index(path: Path, rows: Sequence[Row]) -> None:
    """Write ``shards.parquet``; equal rows give equal bytes."""
    pq.write_table(pa.Table.from_pylist(list(rows), schema=SCHEMA), path)


def _beside(row: Row) -> dict[str, bytes]:
    told = {name: value.hex() if isinstance(value, bytes) else value for name, value in row.items()}
    text = json.dumps(told, sort_keys=True, ensure_ascii=False)
    return {"json": text.encode(), "txt": (row["caption"] or "").encode()}
