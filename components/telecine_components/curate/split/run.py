"""Walk the folder, have each file's clips committed as an item, join the manifest."""

import dataclasses
import hashlib
import logging
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from telecine.config import Artifact
from telecine.context import Context, Folder, Item, Source
from telecine.reading import is_sha256
from telecine_components.curate.split.analysis import analyse
from telecine_components.curate.split.rows import clip_rows
from telecine_components.curate.split.sidecars import read_sidecar, sidecar_name
from telecine_components.curate.split.sources import as_text, digests_of, find_videos, is_text
from telecine_components.curate.split.spec import COMPONENT, Inputs, Outputs
from telecine_components.media import clips
from telecine_components.stages import alive
from telecine_components.stages.executors import executor_of
from telecine_components.stages.stage import Stage

log = logging.getLogger(__name__)

ITEM_INPUTS = ("detector", "max_clip_s", "trim_frames")
ROWS_FILE = "clips.parquet"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Split(Stage):
    """One file's clips; a source's ``given`` is what has to be at hand, the digest of each file by its name."""

    videos: Folder
    inputs: Inputs

    def process(self, source: Source, out_dir: Path) -> dict[str, Any]:
        """``source_digest``, SHA-256 of the video; its clips in ROWS_FILE, each with its poster beside it."""
        with alive.at_hand(self.videos, source.given) as folder:
            path = folder / source.name
            digest = self.videos.digest(path)
            sidecar = read_sidecar(next((folder / name for name in source.given if name != source.name), None))
            found = analyse(path, detector=self.inputs.detector, num_threads=self.inputs.num_threads)
            rows = clip_rows(found, sidecar, digest, self.inputs)
            for row in rows:
                row["poster"] = f"{row['clip_id']}.jpg"
                (out_dir / row["poster"]).write_bytes(found.meter.poster(row["start_frame"], row["end_frame"]))
            clips.write(out_dir / ROWS_FILE, rows)
            return {"source_digest": digest}


def run(inputs: Inputs, ctx: Context) -> Outputs:
    """Write ``clips.parquet``."""
    videos = ctx.folder(inputs.videos_uri)
    digests = digests_of(videos)
    names = sorted(find_videos(videos, digests), key=lambda name: _rank(name, digests))
    firsts = {digests[name]: name for name in reversed(names)}
    sources = [_source(name, digests) for name in names if firsts[digests[name]] == name and is_text(name)]
    params = {name: getattr(inputs, name) for name in ITEM_INPUTS}
    stage = Split(
        videos=videos, inputs=inputs, params=params, cpus=inputs.num_threads, memory_gib=COMPONENT.resources.memory_gib
    )
    executor = executor_of(num_workers=inputs.num_workers, stall_s=inputs.stall_s)
    rows = {name: [_bad_row(name, digests[name], _unread(name, firsts[digests[name]], digests))] for name in names}
    seen: dict[str, str] = {}
    for item in ctx.stream(sources, [stage], executor):
        digest = item.value.get("source_digest", digests[item.name])
        first = seen.setdefault(digest, item.name)
        reason = item.reason if first == item.name else _unread(item.name, first, digests)
        rows[item.name] = _rows_of(item, ctx) if reason is None else [_bad_row(item.name, digest, reason)]
    manifest = [
        clips.stamp(row, name=COMPONENT.name, version=ctx.code_digest, settings=params)
        for name in sorted(rows)
        for row in rows[name]
    ]
    return _join(manifest, len(rows), ctx)


def _rows_of(item: Item, ctx: Context) -> list[dict[str, Any]]:
    found = clips.read(ctx.path(f"{item.path}/{ROWS_FILE}"), owner=COMPONENT.name)
    return [row | {"source": item.name, "poster": f"{item.path}/{row['poster']}"} for row in found]


def _rank(name: str, digests: Mapping[str, str]) -> tuple[bool, bool, str]:
    """What decides which of several files with the same bytes is taken: what is said of one is not lost."""
    return not is_text(name), sidecar_name(name, digests) is None, name


def _unread(name: str, first: str, digests: Mapping[str, str]) -> str:
    """Why a file is not used, and whether words and rights beside it are not either.

    Args:
        first: the file of the same bytes that is.
    """
    if not is_text(name):
        return "its name is not UTF-8: rename it"
    sidecar = sidecar_name(name, digests)
    if sidecar is None or _said(sidecar, digests) == _said(sidecar_name(first, digests), digests):
        return f"same bytes as {first}"
    return f"same bytes as {first}, but another sidecar: {sidecar} is not used"


def _said(sidecar: str | None, digests: Mapping[str, str]) -> str:
    """What a sidecar says, as a mark."""
    return f"{PurePosixPath(sidecar).suffix} {digests[sidecar]}" if sidecar else ""


def _source(name: str, digests: Mapping[str, str]) -> Source:
    """A video and its sidecar."""
    sidecar = sidecar_name(name, digests)
    if sidecar is None:
        return Source(name, digests[name], given={name: digests[name]})
    together = f"{digests[name]} {_said(sidecar, digests)}"
    given = {each: digests[each] for each in (name, sidecar)}
    return Source(name, hashlib.sha256(together.encode()).hexdigest(), given=given)


def _join(manifest: list[dict[str, Any]], num_files: int, ctx: Context) -> Outputs:
    clips.write(ctx.dir / "clips.parquet", manifest)
    num_bad = sum(row.get("clip_id") is None for row in manifest)
    outputs = Outputs(
        clips_uri=Artifact("clips.parquet"),
        num_files=num_files,
        num_bad_files=num_bad,
        num_clips=len(manifest) - num_bad,
    )
    log.info(
        "event=split_done num_files=%d num_bad_files=%d num_clips=%d",
        outputs.num_files,
        outputs.num_bad_files,
        outputs.num_clips,
    )
    return outputs


def _bad_row(name: str, digest: str, reason: str) -> dict[str, Any]:
    return {"source": as_text(name), "source_digest": digest if is_sha256(digest) else None, "reason": reason}
