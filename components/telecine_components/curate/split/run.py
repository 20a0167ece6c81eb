"""Walk the folder, have each file's clips committed as an item, join the manifest."""

import dataclasses
import hashlib
import logging
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from telecine.config import Artifact
from telecine.context import Context, Folder, Source
from telecine.reading import is_sha256
from telecine_components.curate.split.analysis import analyse
from telecine_components.curate.split.rows import clip_rows
from telecine_components.curate.split.sidecars import read_sidecar, sidecar_name
from telecine_components.curate.split.sources import digests_of, find_videos
from telecine_components.curate.split.spec import COMPONENT, Inputs, Outputs
from telecine_components.media import clips
from telecine_components.stages.executors import executor_of
from telecine_components.stages.stage import Stage

log = logging.getLogger(__name__)

ITEM_INPUTS = ("max_clip_s", "trim_frames", "cut_score", "cut_sigmas", "dip_score", "dip_sigmas")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Split(Stage):
    """One file's clips; a source's ``given`` is what has to be at hand, the digest of each file by its name."""

    videos: Folder
    inputs: Inputs

    def process(self, source: Source, _: Path) -> dict[str, Any]:
        """``source_digest``, SHA-256 of the video, and ``clips``, rows of the manifest without the source's name."""
        with self.videos.at_hand(source.given) as folder:
            path = folder / source.name
            digest = self.videos.digest(path)
            sidecar = read_sidecar(next((folder / name for name in source.given if name != source.name), None))
            found = analyse(path, num_threads=self.inputs.num_threads)
            return {"source_digest": digest, "clips": clip_rows(found, sidecar, digest, self.inputs)}


def run(inputs: Inputs, ctx: Context) -> Outputs:
    """Write ``clips.parquet``."""
    videos = ctx.folder(inputs.videos_uri)
    digests = digests_of(videos)
    names = find_videos(digests, inputs.videos_uri)
    firsts = {digests[name]: name for name in reversed(names)}
    sources = [_source(name, digests) for name in names if firsts[digests[name]] == name]
    params = {name: getattr(inputs, name) for name in ITEM_INPUTS}
    stage = Split(videos=videos, inputs=inputs, params=params, memory_gib=COMPONENT.resources.memory_gib)
    executor = executor_of(num_workers=inputs.num_workers, stall_s=inputs.stall_s)
    rows = {name: [_bad_row(name, digests[name], f"same bytes as {firsts[digests[name]]}")] for name in names}
    seen: dict[str, str] = {}
    for item in ctx.stream(sources, [stage], executor):
        digest = item.value.get("source_digest", digests[item.name])
        first = seen.setdefault(digest, item.name)
        reason = f"same bytes as {first}" if first != item.name else item.reason
        good = [{"source": item.name} | row for row in item.value.get("clips", ())]
        rows[item.name] = good if reason is None else [_bad_row(item.name, digest, reason)]
    return _join(rows, ctx)


def _source(name: str, digests: Mapping[str, str]) -> Source:
    """A video and its sidecar."""
    sidecar = sidecar_name(name, digests)
    if sidecar is None:
        return Source(name, digests[name], given={name: digests[name]})
    together = f"{digests[name]} {PurePosixPath(sidecar).suffix} {digests[sidecar]}"
    given = {each: digests[each] for each in (name, sidecar)}
    return Source(name, hashlib.sha256(together.encode()).hexdigest(), given=given)


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
    return {"source": name, "source_digest": digest if is_sha256(digest) else None, "reason": reason}
