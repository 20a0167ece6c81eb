"""Vectors of clips: the descriptors in a manifest, and embeddings in a Parquet file of their own (clip_id, vector)."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from telecine.errors import InputError

SCHEMA = pa.schema(
    [
        pa.field("clip_id", pa.string()),
        pa.field("embedding", pa.list_(pa.float32())),  # of length 1
    ]
)

Vectors = npt.NDArray[np.float32]


def write(path: Path, clip_ids: Sequence[str], vectors: Vectors) -> None:
    """Write vectors [N, D], made of length 1, in the order of the clips' ids."""
    order = np.argsort(np.array(clip_ids, np.str_), kind="stable")
    unit = vectors[order] / np.linalg.norm(vectors[order], axis=1, keepdims=True)
    columns = [pa.array([clip_ids[place] for place in order], pa.string()), pa.array(list(unit), SCHEMA.field(1).type)]
    pq.write_table(pa.table(columns, schema=SCHEMA), path)


def read(path: Path, clip_ids: Sequence[str], *, owner: str) -> Vectors:
    """The vectors [N, D] of these clips; ``owner`` opens error messages.

    Raises:
        InputError: not such a file, or a clip is missing, or the vectors are not of one size and of length 1.
    """
    try:
        table = pq.read_table(path, schema=SCHEMA)
    except (OSError, pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise InputError(
            f"{owner}: embeddings_uri must be what curate.embed writes (clip_id, embedding), got {path.name}: {error}"
        ) from None
    places = {clip_id: place for place, clip_id in enumerate(table.column("clip_id").to_pylist())}
    missing = sorted(set(clip_ids) - places.keys())
    if missing:
        raise InputError(
            f"{owner}: embeddings_uri must have every kept clip; {len(missing)} of {len(clip_ids)} are missing, "
            f"{missing[0]} first; run curate.embed on this manifest"
        )
    vectors = _matrix(table.column("embedding"), f"{owner}: embeddings_uri")
    return vectors[[places[clip_id] for clip_id in clip_ids]]


def descriptors(table: pa.Table, places: Sequence[int], *, owner: str) -> Vectors:
    """The descriptors [N, D] of these rows of a manifest.

    Raises:
        InputError: a row has none, or they are not of one size and of length 1.
    """
    taken = table.column("descriptor").take(pa.array(places, pa.int64()))  # no place at all would have no type
    return _matrix(taken, f"{owner}: the descriptors of kept clips")


def _matrix(column: pa.ChunkedArray, what: str) -> Vectors:
    lengths = set(column.combine_chunks().value_lengths().to_pylist())
    if len(lengths) > 1 or None in lengths:
        raise InputError(f"{what} must have one size for all clips, got {sorted(lengths, key=str)}; make them again")
    values = column.combine_chunks().flatten().to_numpy(zero_copy_only=False)
    vectors = np.ascontiguousarray(values.reshape(len(column), max(lengths, default=0)), np.float32)
    far = ~(np.abs(np.linalg.norm(vectors, axis=1) - 1) < 1e-3)  # also where it is not a number
    if far.any():
        raise InputError(f"{what} must have length 1; {int(far.sum())} of {len(far)} have not; make them again")
    return vectors
