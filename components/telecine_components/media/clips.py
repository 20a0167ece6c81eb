"""The clip manifest, one row a clip: curate.split writes it, and each step after it fills columns or marks reasons."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from telecine.errors import InputError

PARTS = ("dense", "main_object", "background", "camera", "style", "action")
"""Parts of a structured caption, as in Any2Caption (arXiv 2503.24379)."""
_STAGE = pa.struct([("name", pa.string()), ("version", pa.string()), ("settings", pa.string())])

SCHEMA = pa.schema(
    [
        # Which frames of which file.
        pa.field("clip_id", pa.string()),  # 16 hex digits of the source digest and the span; null for a bad file
        pa.field("shot_id", pa.string()),  # 16 hex digits; clips of one shot look alike and share it
        pa.field("source", pa.string()),  # path below the videos folder, with slashes
        pa.field("source_digest", pa.string()),  # SHA-256 of the video file
        pa.field("start_s", pa.float64()),  # seconds since the first frame
        pa.field("end_s", pa.float64()),  # where the frame after the last begins
        pa.field("start_frame", pa.int64()),
        pa.field("end_frame", pa.int64()),  # exclusive
        pa.field("num_frames", pa.int64()),
        pa.field("shot_start_frame", pa.int64()),  # where the shot begins that it is of; trimming lies between
        pa.field("begins_with", pa.string()),  # "start", "cut", "dissolve", "fade", or "clip" inside a shot
        pa.field("ends_with", pa.string()),  # the same, with "end" for the file's
        # What the file says of itself.
        pa.field("fps", pa.float64()),  # of the file, or of the clip where frames last unequally long
        pa.field("width_px", pa.int64()),  # as shown, after rotation
        pa.field("height_px", pa.int64()),
        pa.field("codec", pa.string()),
        pa.field("bits_per_pixel", pa.float64()),  # coded bits of the stream per pixel shown
        # What the one pass measured; curate.split's page in docs says how.
        pa.field("cut_doubt", pa.float64()),  # log odds of the likeliest transition inside that was not found
        pa.field("motion", pa.float64()),  # frame sizes per second
        pa.field("stability", pa.float64()),  # 1 steady camera .. 0 shaken
        pa.field("freeze", pa.float64()),  # share of the time in which nothing changes
        pa.field("flicker", pa.float64()),  # jumps of brightness, 0 none .. 1
        pa.field("blur", pa.float64()),  # 0 sharp .. 1 flat
        pa.field("noise", pa.float64()),  # standard deviation of the grain, as a share of white
        pa.field("blockiness", pa.float64()),  # detail lost to blocks with borders, 0 none .. 1 all
        pa.field("exposure", pa.float64()),  # middle of the tonal range, 0 black .. 1 white
        pa.field("contrast", pa.float64()),  # width of the tonal range, 0 .. 1
        pa.field("clipping", pa.float64()),  # share of the picture that is pure black or white
        pa.field("colourfulness", pa.float64()),  # 0 grey .. 1 vivid
        pa.field("black_bars", pa.float64()),  # share of the picture that is a black border
        pa.field("overlay_text", pa.float64()),  # share of the picture under steady text
        pa.field("logo", pa.float64()),  # evidence of a steady mark in a corner, 0 .. 1
        pa.field("aesthetic", pa.float64()),  # proxy of how pleasing it looks, 0 .. 1
        pa.field("suitability", pa.float64()),  # learned score of fitness for training, 1 bad .. 5 good
        # What it looks like.
        pa.field("poster", pa.string()),  # path in the store of a strip of its frames (JPEG)
        pa.field("fingerprint", pa.binary()),  # perceptual hashes of its frames, eight bytes each
        pa.field("descriptor", pa.list_(pa.float32())),  # unit vector; clips that look alike lie close
        pa.field("duplicate_of", pa.string()),  # clip_id of the one that is kept instead
        pa.field("cluster", pa.int64()),  # which group of alike clips it was balanced within
        # What is said of it.
        pa.field("caption", pa.string()),
        pa.field("captions", pa.struct([(part, pa.string()) for part in PARTS])),  # as in Any2Caption, or null
        pa.field("captioner", pa.string()),  # who wrote them: "sidecar", "signals", or the model's name
        pa.field("licence", pa.string()),
        pa.field("consent", pa.string()),
        # What became of it.
        pa.field("reason", pa.string()),  # null, or why the file or clip is not used: the first that held
        pa.field("stages", pa.list_(_STAGE)),  # who made this row: component, digest of its code, settings in JSON
    ]
)


def write(path: Path, rows: Sequence[Mapping[str, Any]], *, metadata: Mapping[str, str] | None = None) -> None:
    """Write rows (missing columns are null) as Parquet; equal rows give equal bytes."""
    write_table(path, pa.Table.from_pylist(list(rows), schema=SCHEMA.with_metadata(dict(metadata or {}))))


def write_table(path: Path, table: pa.Table) -> None:
    """Write a manifest that was changed as a table."""
    pq.write_table(table, path)


def stamp(row: Mapping[str, Any], *, name: str, version: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The row with one more stage in its provenance: who made it, digest of that code, and what it was set to."""
    stage = {"name": name, "version": version, "settings": json.dumps(dict(settings), sort_keys=True)}
    return {**row, "stages": [*(row.get("stages") or ()), stage]}


def changed(table: pa.Table, changes: Mapping[int, Mapping[str, Any]]) -> pa.Table:
    """The manifest with other values in some columns of some rows, which are given by their place."""
    for name in dict.fromkeys(name for values in changes.values() for name in values):
        column = table.column(name).to_pylist()
        for place, values in changes.items():
            column[place] = values.get(name, column[place])
        field = table.schema.field(name)
        table = table.set_column(table.schema.get_field_index(name), field, pa.array(column, field.type))
    return table


def read(path: Path, *, owner: str) -> list[dict[str, Any]]:
    """Rows of a manifest, in its order; ``owner`` opens error messages.

    Raises:
        InputError: no such file, not Parquet, or other columns.
    """
    return list(read_table(path, owner=owner).to_pylist())


def read_table(path: Path, *, owner: str, name: str = "clips_uri") -> pa.Table:
    """A manifest as a table, for who needs few of its columns: a row as a dictionary takes some 10 KB.

    ``owner`` and ``name``, the input, open error messages.

    Raises:
        InputError: no such file, not Parquet, or other columns.
    """
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise InputError(f"{owner}: {name} must be a manifest of clips (parquet), got {path.name}: {error}") from None
    if not table.schema.equals(SCHEMA):
        unlike = sorted(set(table.schema.names) ^ set(SCHEMA.names)) or "other types"
        raise InputError(f"{owner}: {name} must have the columns of a clip manifest; {path.name} differs in {unlike}")
    return table
