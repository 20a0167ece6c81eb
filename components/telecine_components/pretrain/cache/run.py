"""pretrain.cache: encode each shard as an item of its own, join the index."""

import hashlib
import itertools
import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from telecine.config import Artifact
from telecine.context import Context, Item, Source
from telecine.errors import InputError
from telecine_components.media.index import SCHEMA
from telecine_components.media.shards import array_bytes
from telecine_components.pretrain.cache.encoders import Encoders
from telecine_components.pretrain.cache.spec import Inputs, Outputs
from telecine_components.training.determinism import deterministic
from telecine_components.training.shard_reader import EMPTY_TEXT, ShardReader

log = logging.getLogger(__name__)

SHARD = "shard.tar"
CACHED_WITH = "cached_with.json"
# What of a row decides the bytes of its shard.
ROW_COLUMNS = ("sample_id", "caption", "offset", "length", "members")
PLACES = (
    pa.field("latent_shape", pa.list_(pa.int64())),  # channels, frames, height, width
    pa.field("text_offset", pa.int64()),  # of the caption's token vectors in the tar
    pa.field("text_length", pa.int64()),
)
GIB = 2**30

Rows = list[dict[str, Any]]


def run(inputs: Inputs, ctx: Context) -> Outputs:
    """Write ``dataset/index.parquet``; the shards are items, each made once, ever.

    Raises:
        InputError: a dataset of latents, one whose shards are not those of its index, or sizes that the autoencoder
            cannot compress.
    """
    table, shards = _open(ctx.fetch(inputs.dataset_uri) / "index.parquet", ctx)
    folders = {
        name: ctx.fetch(uri) if uri else None
        for name, uri in (("vae", inputs.vae_uri), ("text_encoder", inputs.text_encoder_uri))
    }
    encoders = Encoders.load(folders["vae"], folders["text_encoder"], inputs)
    _check_sizes(table, encoders)
    reader = ShardReader(ctx.path)

    def process(source: Source, out_dir: Path) -> dict[str, Any]:
        return {"samples": encoders.write_shard(shards[source.name], reader, out_dir / SHARD)}

    made_by = {name: "built-in" if folder is None else ctx.digest(folder) for name, folder in folders.items()}
    params = made_by | {name: getattr(inputs, name) for name in ("text_dim", "dtype", "num_threads")}
    with deterministic(inputs.num_threads):
        items = ctx.items([Source(name, _digest_of(rows), params) for name, rows in shards.items()], process)
        empty = encoders.tokens("")
    rows = _join(table, items)
    _write(table, rows, empty, encoders.described() | made_by, ctx.dir / "dataset")
    num_bytes = sum(row["length"] + row["text_length"] for row in rows)
    log.info("event=cache_done num_samples=%d num_shards=%d bytes=%d", len(rows), len(shards), num_bytes)
    return Outputs(
        dataset_uri=Artifact("dataset"), num_samples=len(rows), num_shards=len(shards), size_gib=num_bytes / GIB
    )


def _open(path: Path, ctx: Context) -> tuple[pa.Table, dict[str, Rows]]:
    """The index, and the rows of each shard in the order of their bytes."""
    if not path.is_file():
        raise InputError(f"pretrain.cache: dataset_uri must hold {path.name}, got none; give what curate.encode wrote")
    table = pq.read_table(path)
    if PLACES[0].name in table.column_names:
        raise InputError("pretrain.cache: dataset_uri must hold frames, got latents; give what curate.encode wrote")
    missing = sorted(set(SCHEMA.names) - set(table.column_names))
    if missing:
        raise InputError(f"pretrain.cache: the index lacks {', '.join(missing)}; encode the dataset again")
    rows = sorted(table.to_pylist(), key=lambda row: (row["shard"], row["offset"]))
    if not rows:
        raise InputError("pretrain.cache: dataset_uri must have samples, got none; give more footage")
    shards = {name: list(group) for name, group in itertools.groupby(rows, key=lambda row: str(row["shard"]))}
    for name, members in shards.items():
        local = ctx.path(name)
        if not local.is_file() or {row["shard_digest"] for row in members} != {ctx.digest(local)}:
            raise InputError(f"pretrain.cache: shard {name} is not the one of the index; run curate.encode again")
    return table, shards


def _check_sizes(table: pa.Table, encoders: Encoders) -> None:
    columns = [table[name].to_pylist() for name in ("num_frames", "height_px", "width_px")]
    for size in sorted(set(zip(*columns, strict=True))):
        try:
            encoders.vae.compression.latent_size(*size)
        except ValueError as error:
            raise InputError(f"pretrain.cache: {error}; encode the dataset in a size that vae_uri can take") from error


def _digest_of(rows: Rows) -> str:
    parts = [rows[0]["shard_digest"], *([row[name] for name in ROW_COLUMNS if name in row] for row in rows)]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _join(table: pa.Table, items: list[Item]) -> Rows:
    """The rows of the index in their order, each at its new place."""
    places: dict[str, dict[str, Any]] = {}
    for item in items:
        if item.reason is not None:
            raise InputError(f"pretrain.cache: {item.name}: {item.reason}; run curate.encode again")
        shard = {"shard": f"{item.path}/{SHARD}", "shard_digest": item.files[SHARD]}
        places |= {sample["sample_id"]: sample | shard for sample in item.value["samples"]}
    return [row | places[row["sample_id"]] for row in table.to_pylist()]


def _write(table: pa.Table, rows: Rows, empty: np.ndarray, described: dict[str, Any], folder: Path) -> None:
    folder.mkdir()
    schema = table.schema
    for field in PLACES:
        schema = schema.append(field)
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), folder / "index.parquet")
    (folder / EMPTY_TEXT).write_bytes(array_bytes(empty))
    (folder / CACHED_WITH).write_text(json.dumps(described, indent=1, sort_keys=True))
