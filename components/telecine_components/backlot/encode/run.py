"""Draw clips, and write each with what is true of it as a sample; every shard is an item of its own."""

import functools
import hashlib
import json
import logging
from pathlib import Path
from typing import Any

from telecine.config import Artifact
from telecine.context import Context, Item, Source
from telecine_components.backlot.encode.annotations import annotations
from telecine_components.backlot.encode.spec import STYLES, Inputs, Outputs
from telecine_components.media.index import ANNOTATED, held_out_clips, write_index
from telecine_components.media.shards import ShardWriter, array_bytes
from telecine_models.backlot import Clip, clip

log = logging.getLogger(__name__)

ITEM_INPUTS = ("subject", "style", "num_frames", "fps", "width_px", "height_px", "element_px")
SOURCE_COLUMNS = ("clip_id", "source", "source_digest", "licence", "consent", "split")
SHARD = "shard.tar"

Rows = list[dict[str, Any]]


def run(inputs: Inputs, ctx: Context) -> Outputs:
    """Write ``dataset/index.parquet``; the shards are items."""
    draw = functools.lru_cache(maxsize=2)(functools.partial(_draw, inputs))

    def process(source: Source, out_dir: Path) -> dict[str, Any]:
        seeds = range(source.params["first_seed"], source.params["end_seed"])
        with ShardWriter(out_dir / SHARD) as shard:
            # What a source shows in its mask is the clip after, which is drawn next anyway.
            return {"samples": [_write(shard, draw(seed), draw(seed + 1), inputs) for seed in seeds]}

    index = _join(ctx.items(_shards(inputs), process), inputs)
    (ctx.dir / "dataset").mkdir()
    path = ctx.dir / "dataset" / "index.parquet"
    write_index(path, index, ANNOTATED)
    ctx.declare_sources({name: row[name] for name in SOURCE_COLUMNS} for row in index)
    num_val = sum(row["split"] == "val" for row in index)
    profile = {"num_samples": len(index), "licence": "CC0-1.0", "subject": inputs.subject, "style": inputs.style}
    ctx.tracker.dataset(
        name="samples", digest=ctx.digest(path), source_uri="backlot", context="training", profile=profile
    )
    log.info("event=backlot_encoded num_samples=%d num_val=%d", len(index), num_val)
    return Outputs(
        dataset_uri=Artifact("dataset"), num_samples=len(index), num_train=len(index) - num_val, num_val=num_val
    )


def _shards(inputs: Inputs) -> list[Source]:
    params = {name: getattr(inputs, name) for name in ITEM_INPUTS}
    sources, end = [], inputs.seed + inputs.num_clips
    for first in range(inputs.seed, end, inputs.clips_per_shard):
        seeds = {"first_seed": first, "end_seed": min(first + inputs.clips_per_shard, end)}
        name = f"clips_{seeds['first_seed']:06d}_{seeds['end_seed']:06d}"
        # Nothing is read: what an item is made of is in its parameters.
        sources.append(Source(name, hashlib.sha256(b"").hexdigest(), params | seeds))
    return sources


def _draw(inputs: Inputs, seed: int) -> Clip:
    style: Any = None if inputs.style == STYLES[-1] else inputs.style
    return clip(
        seed,
        num_frames=inputs.num_frames,
        fps=inputs.fps,
        width_px=inputs.width_px,
        height_px=inputs.height_px,
        style=style,
        actions="random" if inputs.subject == "play" else None,
    )


def _write(shard: ShardWriter, shot: Clip, other: Clip, inputs: Inputs) -> dict[str, Any]:
    """One sample; what the index needs of it."""
    seed, caption = shot.truth["seed"], shot.truth["caption"]
    told = {name: shot.truth[name] for name in ("licence", "consent")}
    told |= {"clip_id": f"backlot-{seed:06d}", "source": f"backlot clip {seed}", "fps": float(inputs.fps)}
    told |= {"source_digest": hashlib.sha256(shot.frames.tobytes()).hexdigest()}
    arrays = {name: array_bytes(array) for name, array in annotations(shot, other, inputs.element_px).items()}
    files = {"frames.npy": array_bytes(shot.frames)} | {f"{name}.npy": data for name, data in arrays.items()}
    files |= {"txt": caption.encode(), "json": json.dumps(told, sort_keys=True).encode()}
    sample_id = hashlib.sha256(b"".join(files.values())).hexdigest()[:16]
    places = shard.add(sample_id, files)
    frames = places["frames.npy"]
    beside = [{"name": name, **places[f"{name}.npy"]._asdict()} for name in arrays]
    return told | {"sample_id": sample_id, "caption": caption, **frames._asdict(), "members": beside}


def _join(items: list[Item], inputs: Inputs) -> Rows:
    shared = {"num_frames": inputs.num_frames, "height_px": inputs.height_px, "width_px": inputs.width_px}
    index = [
        shared | sample | {"shard": f"{item.path}/{SHARD}", "shard_digest": item.files[SHARD]}
        for item in items
        for sample in item.value["samples"]
    ]
    clips = [row["clip_id"] for row in index]
    val = held_out_clips(dict(zip(clips, clips, strict=True)), val_ratio=inputs.val_ratio, seed=inputs.seed)
    return [row | {"split": "val" if row["clip_id"] in val else "train"} for row in index]
