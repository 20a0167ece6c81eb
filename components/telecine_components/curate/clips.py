"""The clip manifest that curate.split writes, curate.filter marks and curate.encode reads: its columns, its file."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from telecine.errors import InputError

SCHEMA = pa.schema(
    [
        pa.field("clip_id", pa.string()),  # 16 hex digits of the source digest and the span; null for a bad file
        pa.field("shot_id", pa.string()),  # 16 hex digits; clips of one shot look alike and share it
        pa.field("source", pa.string()),  # path below the videos folder, with slashes
        pa.field("source_digest", pa.string()),  # SHA-256 of the video file
        pa.field("start_s", pa.float64()),  # seconds since the first frame
        pa.field("end_s", pa.float64()),  # where the frame after the last begins
        pa.field("start_frame", pa.int64()),
        pa.field("end_frame", pa.int64()),  # exclusive
        pa.field("num_frames", pa.int64()),
        pa.field("fps", pa.float64()),
        pa.field("width_px", pa.int64()),  # as shown, after rotation
        pa.field("height_px", pa.int64()),
        pa.field("motion", pa.float64()),  # frame sizes per second
        pa.field("blur", pa.float64()),  # 0 sharp .. 1 flat
        pa.field("exposure", pa.float64()),  # middle of the tonal range, 0 black .. 1 white
        pa.field("caption", pa.string()),
        pa.field("licence", pa.string()),
        pa.field("consent", pa.string()),
        pa.field("reason", pa.string()),  # null, or why the file or clip is not used
    ]
)


def write(path: Path, rows: Sequence[Mapping[str, Any]], *, metadata: Mapping[str, str] | None = None) -> None:
    """Write rows (missing columns are null) as Parquet; equal rows give equal bytes."""
    table = pa.Table.from_pylist(list(rows), schema=SCHEMA.with_metadata(dict(metadata or {})))
    pq.write_table(table, path)


def read(path: Path, *, owner: str) -> list[dict[str, Any]]:
    """Rows of a manifest, in its order; ``owner`` opens error messages.

    Raises:
        InputError: no such file, not Parquet, or other columns.
    """
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise InputError(
            f"{owner}: clips_uri must be a manifest of clips (parquet), got {path.name}: {error}"
        ) from None
    if not table.schema.equals(SCHEMA):
        unlike = sorted(set(table.schema.names) ^ set(SCHEMA.names)) or "other types"
        raise InputError(
            f"{owner}: clips_uri must have the columns of a clip manifest; {path.name} differs in {unlike}"
        )
    return list(table.to_pylist())
