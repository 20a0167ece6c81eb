"""Cut each source's kept clips as an item of its own, pack them into shards by bucket, join the manifest."""

import dataclasses
import logging
from collections import Counter
from collections.abc import Container, Mapping
from pathlib import Path
from typing import Any, NoReturn

from telecine.config import Artifact
from telecine.context import Context, Folder, Item, Source
from telecine.errors import InputError, RetryLater
from telecine_components.curate import kept
from telecine_components.curate.cut import shards
from telecine_components.curate.cut.spec import COMPONENT, Inputs, Outputs
from telecine_components.media import clips
from telecine_components.media.cut import Cut as Cutting
from telecine_components.media.cut import Loss, Rule, Span, cut
from telecine_components.stages.executors import executor_of
from telecine_components.stages.stage import Stage

log = logging.getLogger(__name__)

RULE_INPUTS = tuple(field.name for field in dataclasses.fields(Rule))
ITEM_INPUTS = (*RULE_INPUTS, "max_widen_frames")
CLIP_COLUMNS = ("clip_id", "start_frame", "end_frame", "start_s", "end_s", "shot_start_frame", "begins_with")
SOURCE_COLUMNS = ("clip_id", "source", "source_digest", "licence", "consent")
NOT_DECODABLE: Loss = "not_decodable"
"""What all clips of a film are that could not even be opened."""

Rows = list[dict[str, Any]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cut(Stage):
    """One file's clips, each an mp4."""

    videos: Folder

    def process(self, source: Source, out_dir: Path) -> dict[str, Any]:
        """``clips``: for each by its id how it was cut, or the ``reason`` why it was not."""
        with kept.at_hand(source, self.videos, owner=COMPONENT.name) as (path, rows):
            return {"clips": _cut(path, rows, self.params, out_dir)}


def run(inputs: Inputs, ctx: Context) -> Outputs:
    """Write ``clips.parquet`` and ``shards/``; the clips are items.

    Raises:
        InputError: the videos are not those that the manifest describes, or no clip can be cut.
    """
    videos = ctx.folder(inputs.videos_uri)
    rows = clips.read(ctx.fetch(inputs.clips_uri), owner=ctx.component)
    wanted = kept.by_source(rows)
    settings = {name: getattr(inputs, name) for name in ITEM_INPUTS}
    sources = kept.sources_of(wanted, videos, CLIP_COLUMNS, owner=ctx.component)
    stage = Cut(videos=videos, params=settings, memory_gib=COMPONENT.resources.memory_gib)
    items = ctx.stream(sources, [stage], executor_of(num_workers=inputs.num_workers, stall_s=inputs.stall_s))
    found = [(item, each) for item in items for each in item.value.get("clips", ())]
    made = {each["clip_id"]: (item, each) for item, each in found if "reason" not in each}
    reasons = {each["clip_id"]: each["reason"] for _, each in found if "reason" in each}
    if not made:
        _refuse(sum(map(len, wanted.values())), Counter(reasons.values()), inputs.mode)
    marked = [row if row["reason"] else _marked(row, made, reasons, ctx, settings) for row in rows]
    clips.write(ctx.dir / "clips.parquet", marked)
    return _write([row for row in marked if row["reason"] is None], made, inputs, ctx)


def _refuse(num_kept: int, reasons: Mapping[str, int], mode: str) -> NoReturn:
    if not num_kept:
        raise InputError("curate.cut: clips_uri must have a kept clip, and each has a reason; loosen what gave those")
    told = ", ".join(f"{number} {reason}" for reason, number in sorted(reasons.items())) or NOT_DECODABLE
    hint = "use mode=smart" if mode == "copy_only" else "look at the films"
    raise InputError(f"curate.cut: none of {num_kept} kept clips could be cut with mode={mode} ({told}); {hint}")


def _cut(path: Path, rows: Rows, settings: Mapping[str, Any], out_dir: Path) -> Rows:
    rule = Rule(**{name: settings[name] for name in RULE_INPUTS})
    spans = [_span(row, settings["max_widen_frames"]) for row in rows]
    found = cut(path, spans, [out_dir / _file_of(row["clip_id"]) for row in rows], rule)
    return [{"clip_id": row["clip_id"], **_told(each)} for row, each in zip(rows, found, strict=True)]


def _told(found: Cutting | Loss) -> dict[str, Any]:
    if not isinstance(found, Cutting):
        return {"reason": found}
    return {
        "cut": found.way,
        "cut_start_frame": found.start,
        "cut_end_frame": found.end,
        "num_encoded_frames": found.num_encoded,
    }


def _span(row: dict[str, Any], max_widen_frames: int) -> Span:
    """The frames of a clip. Those between it and a cut were trimmed for safety; encoders put keyframes among them."""
    start, earliest = row["start_frame"], None
    if row["begins_with"] == "cut" and row["shot_start_frame"] is not None:
        earliest = max(row["shot_start_frame"], start - max_widen_frames)
    return Span(start, row["end_frame"], row["start_s"], row["end_s"], earliest)


def _file_of(clip_id: str) -> str:
    return f"{clip_id}.mp4"


def _marked(
    row: dict[str, Any], made: Container[str], reasons: Mapping[str, str], ctx: Context, settings: dict[str, Any]
) -> dict[str, Any]:
    stamped = clips.stamp(row, name=ctx.component, version=ctx.code_digest, settings=settings)
    if row["clip_id"] not in made:
        stamped["reason"] = reasons.get(row["clip_id"], NOT_DECODABLE)
    return stamped


def _write(rows: Rows, made: dict[str, tuple[Item, dict[str, Any]]], inputs: Inputs, ctx: Context) -> Outputs:
    described = [shards.described(row, made[row["clip_id"]][1]) for row in rows]
    files = {clip_id: ctx.path(f"{item.path}/{_file_of(clip_id)}") for clip_id, (item, _) in made.items()}
    index, num_shards = [], 0
    for name, members in shards.packed(described, files, inputs.shard_mib * 2**20):
        if ctx.stop_requested:
            raise RetryLater(f"curate.cut: stopped after {num_shards} shards; the same call packs them again")
        places = shards.write(ctx.dir / "shards" / name, members, files)
        index += [
            row | {"shard": name, "offset": place.offset, "length": place.length}
            for row, place in zip(members, places, strict=True)
        ]
        num_shards += 1
    shards.write_index(ctx.dir / "shards" / shards.FILE, index)
    ctx.declare_sources({name: row[name] for name in SOURCE_COLUMNS} | {"split": "train"} for row in index)
    ways = Counter(row["cut"] for row in index)
    ctx.tracker.metrics({f"cut/{way}": float(ways[way]) for way in ("copy", "smart", "encode")}, step=0)
    log.info("event=cut_done num_clips=%d num_shards=%d %s", len(index), num_shards, dict(sorted(ways.items())))
    return Outputs(
        clips_uri=Artifact("clips.parquet"),
        shards_uri=Artifact("shards"),
        num_clips=len(index),
        num_copied=ways["copy"],
        num_encoded=ways["encode"],
        num_shards=num_shards,
    )
