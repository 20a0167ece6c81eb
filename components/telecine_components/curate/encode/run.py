"""Encode each source's kept clips as an item of its own, split by clip, join the index."""

import dataclasses
import logging
from collections import Counter
from pathlib import Path
from typing import Any

from telecine.config import Artifact
from telecine.context import Context, Folder, Item, Source
from telecine.errors import InputError
from telecine_components.curate import kept
from telecine_components.curate.encode.contact_sheet import write_contact_sheet
from telecine_components.curate.encode.samples import write_shard
from telecine_components.curate.encode.spec import COMPONENT, Inputs, Outputs
from telecine_components.curate.encode.windows import windows_of
from telecine_components.media import clips
from telecine_components.media.index import SCHEMA, held_out_clips, write_index
from telecine_components.media.shards import read_array
from telecine_components.stages.executors import executor_of
from telecine_components.stages.stage import Stage

log = logging.getLogger(__name__)

ITEM_INPUTS = (
    "width_px",
    "height_px",
    "keep_aspect",
    "side_multiple_px",
    "num_frames",
    "sample_fps",
    "max_samples_per_clip",
)
CLIP_COLUMNS = (
    "clip_id",
    "start_s",
    "end_s",
    "start_frame",
    "end_frame",
    "width_px",
    "height_px",
    "caption",
    "licence",
    "consent",
)
SOURCE_COLUMNS = ("clip_id", "source", "source_digest", "licence", "consent", "split")
SHARD = "shard.tar"
SHEET_ROWS = 12

Rows = list[dict[str, Any]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Encode(Stage):
    """One file's samples, in a shard of its own."""

    videos: Folder
    inputs: Inputs

    def process(self, source: Source, out_dir: Path) -> dict[str, Any]:
        """``samples``, what the index needs of each and only this pass knows."""
        with kept.at_hand(source, self.videos, owner=COMPONENT.name) as (path, rows):
            windows = [window for clip in rows for window in windows_of(clip, self.inputs)]
            return {"samples": write_shard(path, windows, self.inputs, out_dir / SHARD)}


def run(inputs: Inputs, ctx: Context) -> Outputs:
    """Write ``dataset/index.parquet`` and ``contact_sheet.png``; the shards are items.

    Raises:
        InputError: fewer than two clips give a sample, or the videos are not those that the manifest describes.
    """
    videos = ctx.folder(inputs.videos_uri)
    wanted = _kept_by_source(clips.read(ctx.fetch(inputs.clips_uri), owner=ctx.component), inputs)
    sources = kept.sources_of(wanted, videos, CLIP_COLUMNS, owner=ctx.component)
    params = {name: getattr(inputs, name) for name in ITEM_INPUTS}
    stage = Encode(
        videos=videos, inputs=inputs, params=params, cpus=inputs.num_threads, memory_gib=COMPONENT.resources.memory_gib
    )
    executor = executor_of(num_workers=inputs.num_workers, stall_s=inputs.stall_s)
    index = _join(ctx.stream(sources, [stage], executor), wanted, inputs)
    return _write(index, inputs, ctx)


def _kept_by_source(rows: Rows, inputs: Inputs) -> dict[str, Rows]:
    """Clips that are long enough for a sample, by source, in the order of time."""
    usable = kept.by_source(rows, lambda row: windows_of(row, inputs))
    num_usable = sum(map(len, usable.values()))
    if num_usable < 2:
        num_kept = sum(row["reason"] is None for row in rows)
        needed_s = inputs.num_frames / inputs.sample_fps
        raise InputError(
            f"curate.encode: at least 2 clips must last {needed_s:g} s (one to train on, one to hold out), got "
            f"{num_usable} of {num_kept} kept clips; add footage, loosen curate.filter or take fewer frames"
        )
    return usable


def _join(items: list[Item], wanted: dict[str, Rows], inputs: Inputs) -> Rows:
    by_id = {clip["clip_id"]: clip for rows in wanted.values() for clip in rows}
    val = held_out_clips(
        {name: clip["shot_id"] for name, clip in by_id.items()}, val_ratio=inputs.val_ratio, seed=inputs.seed
    )
    shared = {"num_frames": inputs.num_frames, "fps": inputs.sample_fps}
    index = []
    for item in items:
        if item.reason is not None:
            raise InputError(f"curate.encode: {item.name}: {item.reason}; run curate.split again")
        for sample in item.value["samples"]:
            clip = {name: value for name, value in by_id[sample["clip_id"]].items() if name in SCHEMA.names}
            clip["clarity"] = _clarity(by_id[sample["clip_id"]]["blur"])
            place = {"shard": f"{item.path}/{SHARD}", "shard_digest": item.files[SHARD]}
            index.append(clip | shared | sample | place | {"split": "val" if sample["clip_id"] in val else "train"})
    return index


def _clarity(blur: float | None) -> float | None:
    return None if blur is None else round(1 - blur, 6)


def _write(index: Rows, inputs: Inputs, ctx: Context) -> Outputs:
    (ctx.dir / "dataset").mkdir()
    ctx.declare_sources({name: row[name] for name in SOURCE_COLUMNS} for row in index)
    index_path = ctx.dir / "dataset" / "index.parquet"
    write_index(index_path, index)
    train = [row for row in index if row["split"] == "train"]
    sheet_path = ctx.dir / "contact_sheet.png"
    shown = train[:: max(1, len(train) // SHEET_ROWS)][:SHEET_ROWS]
    write_contact_sheet(sheet_path, [read_array(ctx.path(r["shard"]), r["offset"], r["length"]) for r in shown])
    outputs = Outputs(
        dataset_uri=Artifact("dataset"),
        contact_sheet_uri=Artifact("contact_sheet.png"),
        num_samples=len(index),
        num_train=len(train),
        num_val=len(index) - len(train),
        num_clips=len({row["clip_id"] for row in index}),
    )
    profile = dict(Counter(row["licence"] or "unknown licence" for row in index)) | {"num_samples": len(index)}
    digest = ctx.digest(index_path)
    ctx.tracker.dataset(
        name="samples", digest=digest, source_uri=inputs.videos_uri, context="training", profile=profile
    )
    ctx.tracker.artifact(sheet_path)
    log.info("event=encode_done num_samples=%d num_clips=%d", outputs.num_samples, outputs.num_clips)
    return outputs
