"""Embed each source's kept clips as an item of its own, join the vectors."""

import dataclasses
import itertools
import logging
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from telecine.config import Artifact
from telecine.context import Context, Item, Source
from telecine.errors import InputError
from telecine_components.curate.embed.encoder import Encoder
from telecine_components.curate.embed.frames import frames_of
from telecine_components.curate.embed.spec import Inputs, Outputs
from telecine_components.curate.kept import at_hand, by_source, sources_of
from telecine_components.media import clips, embeddings
from telecine_components.training.determinism import deterministic

log = logging.getLogger(__name__)

FILE = "embeddings.parquet"
CLIP_COLUMNS = ("clip_id", "start_s", "end_s")


def run(inputs: Inputs, ctx: Context) -> Outputs:
    """Write ``embeddings.parquet``.

    Raises:
        InputError: no such model, no kept clip, or the videos are not those that the manifest describes.
    """
    videos, home = ctx.folder(inputs.videos_uri), ctx.fetch(inputs.encoder_uri)
    kept = by_source(clips.read(ctx.fetch(inputs.clips_uri), owner=ctx.component))
    if not kept:
        raise InputError(f"{ctx.component}: clips_uri must have a kept clip, got none; loosen curate.filter")
    sources = sources_of(kept, videos, CLIP_COLUMNS, owner=ctx.component)
    try:
        encoder = Encoder(home)
    except ValueError as error:
        raise InputError(f"{ctx.component}: {error}") from error

    def process(source: Source, out_dir: Path) -> dict[str, Any]:
        vectors = defaultdict(list)
        with at_hand(source, videos, owner=ctx.component) as (path, rows):
            shown = frames_of(path, rows, inputs.num_frames)
            while batch := list(itertools.islice(shown, inputs.batch_size)):
                for (clip_id, _), vector in zip(batch, encoder.encode([picture for _, picture in batch]), strict=True):
                    vectors[clip_id].append(vector)
        means = np.stack([np.mean(found, axis=0) for found in vectors.values()])
        embeddings.write(out_dir / FILE, list(vectors), means)
        return {"num_clips": len(vectors)}

    params = {"encoder": ctx.digest(home), "num_frames": inputs.num_frames, "batch_size": inputs.batch_size}
    params["num_threads"] = inputs.num_threads
    with deterministic(inputs.num_threads):
        return _join(ctx.items([dataclasses.replace(each, params=params) for each in sources], process), ctx)


def _join(items: list[Item], ctx: Context) -> Outputs:
    found: list[tuple[str, list[float]]] = []
    for item in items:
        if item.reason is not None:
            raise InputError(f"{ctx.component}: {item.name}: {item.reason}; run curate.split again")
        table = pq.read_table(ctx.path(f"{item.path}/{FILE}"))
        found += zip(table["clip_id"].to_pylist(), table["embedding"].to_pylist(), strict=True)
    vectors = np.array([vector for _, vector in found], np.float32)
    embeddings.write(ctx.dir / FILE, [clip_id for clip_id, _ in found], vectors)
    log.info("event=embed_done num_clips=%d dim=%d", *vectors.shape)
    return Outputs(embeddings_uri=Artifact(FILE), num_clips=len(found), embedding_dim=vectors.shape[1])
