"""Walk the folder, commit each file's clips as an item, join the manifest."""

import hashlib
import logging
from pathlib import Path
from typing import Any

from telecine.config import Artifact
from telecine.context import Context, Source
from telecine.errors import RetryLater
from telecine_components.curate.split.analysis import analyse
from telecine_components.curate.split.rows import clip_rows
from telecine_components.curate.split.sidecars import read_sidecar, sidecar_path
from telecine_components.curate.split.sources import find_videos
from telecine_components.curate.split.spec import Inputs, Outputs
from telecine_components.media import clips

log = logging.getLogger(__name__)

ITEM_INPUTS = ("max_clip_s", "trim_frames", "cut_score", "cut_sigmas", "dip_score", "dip_sigmas")


def run(inputs: Inputs, ctx: Context) -> Outputs:
    """Write ``clips.parquet``."""
    folder = ctx.fetch(inputs.videos_uri)
    digests = {name: ctx.digest(folder / name) for name in find_videos(folder)}
    firsts = {digest: name for name, digest in reversed(digests.items())}
    unique = [name for name, digest in digests.items() if firsts[digest] == name]

    def process(source: Source, _: Path) -> dict[str, Any]:
        path = folder / source.name
        sidecar = read_sidecar(sidecar_path(path))
        found = clip_rows(analyse(path, num_threads=inputs.num_threads), sidecar, digests[source.name], inputs)
        if _digest_with_sidecar(ctx, path, ctx.digest(path)) != source.digest:
            raise RetryLater(f"curate.split: {source.name} changed while it was read; call again")
        return {"clips": found}

    params = {name: getattr(inputs, name) for name in ITEM_INPUTS}
    sources = [Source(name, _digest_with_sidecar(ctx, folder / name, digests[name]), params) for name in unique]
    rows: dict[str, list[dict[str, Any]]] = {
        name: [_bad_row(name, digest, f"same bytes as {firsts[digest]}")] for name, digest in digests.items()
    }
    for item in ctx.items(sources, process):
        good = [{"source": item.name} | row for row in item.value.get("clips", ())]
        rows[item.name] = good if item.reason is None else [_bad_row(item.name, digests[item.name], item.reason)]
    return _join(rows, ctx)


def _join(rows: dict[str, list[dict[str, Any]]], ctx: Context) -> Outputs:
    manifest = [row for name in sorted(rows) for row in rows[name]]
    clips.write(ctx.dir / "clips.parquet", manifest)
    bad = [row for row in manifest if row.get("reason")]
    outputs = Outputs(
        clips_uri=Artifact("clips.parquet"),
        num_files=len(rows),
        num_bad_files=len(bad),
        num_clips=len(manifest) - len(bad),
    )
    log.info(
        "event=split_done num_files=%d num_bad_files=%d num_clips=%d",
        outputs.num_files,
        outputs.num_bad_files,
        outputs.num_clips,
    )
    return outputs


def _bad_row(name: str, digest: str, reason: str) -> dict[str, Any]:
    return {"source": name, "source_digest": digest, "reason": reason}


def _digest_with_sidecar(ctx: Context, video: Path, digest: str) -> str:
    sidecar = sidecar_path(video)
    if sidecar is None:
        return digest
    return hashlib.sha256(f"{digest} {sidecar.suffix} {ctx.digest(sidecar)}".encode()).hexdigest()
