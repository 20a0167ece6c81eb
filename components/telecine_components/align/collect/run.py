"""align.collect: one item a seed holds the films of all prompts; the index joins them, the pairs are drawn from it."""

import hashlib
import logging
from pathlib import Path
from typing import Any

import numpy as np

from telecine.config import Artifact
from telecine.context import Context, Item, Source
from telecine.errors import InputError
from telecine_components.align import films
from telecine_components.align.collect.spec import Inputs, Outputs
from telecine_components.media.encode import write_mp4
from telecine_components.media.shards import ShardWriter, array_bytes, read_array
from telecine_components.media.sheet import side_by_side, write_side_by_side
from telecine_components.training.determinism import deterministic
from telecine_components.training.films import Camera
from telecine_models.backlot.caption import draw_captions

log = logging.getLogger(__name__)

SHARD = "shard.tar"
_FACTOR = 4
"""How much films are enlarged for people."""
_SHOWN_FILMS = 8

Rows = list[dict[str, Any]]


def run(inputs: Inputs, ctx: Context) -> Outputs:
    """Collect; see :class:`Inputs`."""
    prompts = inputs.prompts or draw_captions(
        inputs.num_prompts, seed=(inputs.prompt_seed, inputs.round), held_out=False
    )
    if len(set(prompts)) != len(prompts):
        raise InputError(f"align.collect: prompts must all differ, got {len(prompts) - len(set(prompts))} repeated")
    with deterministic(inputs.num_threads):
        cameras = _cameras(inputs, ctx)

    def process(source: Source, out_dir: Path) -> dict[str, Any]:
        return {"films": _write_shard(cameras, prompts, int(source.params["seed"]), out_dir / SHARD)}

    weights = hashlib.sha256("|".join(digest for digest, _ in cameras.values()).encode()).hexdigest()
    names = ("num_steps", "guidance_scale", "lora_scale", "num_threads")
    how = {"prompts": list(prompts), **{name: getattr(inputs, name) for name in names}}
    first = inputs.first_seed + (inputs.round - 1) * inputs.num_seeds
    seeds = range(first, first + inputs.num_seeds)
    sources = [Source(f"seed {seed}", weights, how | {"seed": seed}) for seed in seeds]
    with deterministic(inputs.num_threads):
        items = ctx.items(sources, process)
    rows = _join(items, cameras)
    return _write(rows, films.pairs_of(rows, inputs.max_pairs), cameras["model"][1].fps, ctx)


def _cameras(inputs: Inputs, ctx: Context) -> dict[str, tuple[str, Camera]]:
    """Digest of the weights and camera by maker; one alone where both checkpoints are the same."""
    folders = {"model": ctx.fetch(inputs.model_uri), "reference": ctx.fetch(inputs.reference_uri)}
    digests = {maker: ctx.digest(folder) for maker, folder in folders.items()}
    if digests["model"] == digests["reference"]:
        del folders["reference"]
    how = {name: getattr(inputs, name) for name in ("num_steps", "guidance_scale", "lora_scale")}
    cameras = {maker: (digests[maker], Camera(folder, **how)) for maker, folder in folders.items()}
    sizes = {maker: camera.size for maker, (_, camera) in cameras.items()}
    if len({tuple(size.values()) for size in sizes.values()}) > 1:
        raise InputError(f"align.collect: both checkpoints must film at one size, got {sizes}; give related models")
    return cameras


def _write_shard(cameras: dict[str, tuple[str, Camera]], prompts: tuple[str, ...], seed: int, path: Path) -> Rows:
    rows: Rows = []
    with ShardWriter(path) as shard:
        for maker, (digest, camera) in cameras.items():
            for place, film in enumerate(camera.film(prompts, seed)):
                name = f"{digest[:12]}-{place:04d}-{seed}"
                member = shard.add(name, {"frames.npy": array_bytes(film), "txt": prompts[place].encode()})[
                    "frames.npy"
                ]
                row = {"sample_id": name, "caption": prompts[place], "seed": seed, "maker": maker}
                rows.append(row | {"offset": member.offset, "length": member.length})
    return rows


def _join(items: list[Item], cameras: dict[str, tuple[str, Camera]]) -> Rows:
    camera = cameras["model"][1]
    same = {
        "source": "align.collect",
        "licence": "generated",
        "consent": "synthetic",
        "split": "train",
        "fps": camera.fps,
        "motion": 0.0,
    }
    same |= camera.size
    rows = []
    for item in items:
        place = {"shard": f"{item.path}/{SHARD}", "shard_digest": item.files[SHARD]}
        for film in item.value["films"]:
            made_by = {"clip_id": film["sample_id"], "source_digest": cameras[film["maker"]][0]}
            rows.append(same | film | place | made_by)
    return rows


def _write(rows: Rows, pairs: list[films.Pair], fps: float, ctx: Context) -> Outputs:
    (ctx.dir / "films").mkdir()
    films.write(ctx.dir / "films", rows, pairs)
    preview = ctx.dir / "preview"
    preview.mkdir()
    by_id = {row["sample_id"]: row for row in rows}
    shown = [(pair, [_frames(by_id[name], ctx) for name in (pair.a, pair.b)]) for pair in pairs]
    labels = [(f"{number}: {pair.prompt}", both) for number, (pair, both) in enumerate(shown, 1)]
    # One seed of one checkpoint makes no pair; then the picture shows films.
    labels = labels or [(row["caption"], [_frames(row, ctx)]) for row in rows[:_SHOWN_FILMS]]
    write_side_by_side(preview / "pairs.png", labels, factor=_FACTOR // 2)
    for number, (_, both) in enumerate(shown, 1):
        write_mp4(preview / f"pair-{number:02d}.mp4", side_by_side(both, _FACTOR), fps)
    for path in sorted(preview.iterdir()):
        ctx.tracker.artifact(path, "pairs")
    log.info("event=collected films=%d pairs=%d", len(rows), len(pairs))
    return Outputs(
        films_uri=Artifact("films"), preview_uri=Artifact("preview"), num_films=len(rows), num_pairs=len(pairs)
    )


def _frames(row: dict[str, Any], ctx: Context) -> np.ndarray:
    return read_array(ctx.path(row["shard"]), row["offset"], row["length"])
