"""Look at each video as an item, ask about each clip as an item, and join the manifest."""

import dataclasses
import hashlib
import itertools
import json
import logging
from pathlib import Path
from typing import Any

from telecine.config import Artifact
from telecine.context import Context, Item, Source
from telecine.work.items import Plain
from telecine_components.caption.write import signals
from telecine_components.caption.write.looks import Look, LookWithPictures, check_unchanged
from telecine_components.caption.write.spec import COMPONENT, Inputs, Outputs
from telecine_components.caption.write.threads import Threads
from telecine_components.caption.write.told import Meter, Told
from telecine_components.media import clips
from telecine_components.stages.executors import executor_of

log = logging.getLogger(__name__)

SIDECAR = "sidecar"
LOOKED_AT = ("clip_id", "source_digest", "start_s", "end_s", "num_frames", *signals.MEASURES)
"""Of a clip's row, what its captions are made from."""
SHOWN = ("num_frames", "frame_side_px", "window_frames", "min_window_frames")
ASKED = ("model", "max_answer_tokens", "max_tries")
RHYTHM_SHOTS = 4
"""Fewer shots of a file have no rhythm."""

Row = dict[str, Any]


def run(inputs: Inputs, ctx: Context) -> Outputs:
    """Write ``clips.parquet`` and ``faults.json``.

    Raises:
        InputError: the videos are not those that the manifest describes, or the endpoint refuses us.
        RetryLater: the endpoint is away, busy or broken; what is captioned stays.
    """
    rows = clips.read(ctx.fetch(inputs.clips_uri), owner=ctx.component)
    wanted = [row for row in with_rhythm(rows) if is_asked(row, replace=inputs.replace)]
    told = (_by_signals if inputs.captioner == "signals" else _by_a_model)(wanted, inputs, ctx)
    names = ("captioner", *(SHOWN + ASKED if inputs.captioner == "openai" else ()))
    settings = {name: getattr(inputs, name) for name in names}
    stamp = {"name": ctx.component, "version": ctx.code_digest, "settings": settings}
    return _write([_joined(row, told.get(row["clip_id"]), stamp) for row in rows], told, ctx)


def _by_signals(wanted: list[Row], inputs: Inputs, ctx: Context) -> dict[str, Row]:
    """Captions by clip, or reasons."""
    items = _looked_at(wanted, Look(**_stage(inputs, ctx), name="signals"), inputs, ctx)
    seen = {clip_id: found for item in items for clip_id, found in item.value["clips"].items()}
    return {
        clip_id: found if "reason" in found else dataclasses.asdict(Told(parts=found["parts"], captioner="signals"))
        for clip_id, found in seen.items()
    }


def _by_a_model(wanted: list[Row], inputs: Inputs, ctx: Context) -> dict[str, Row]:
    """Captions by clip, or reasons; a clip of which the model gives none keeps that of signals."""
    from telecine_components.caption.write.asking import Asker, Window  # openai takes a second to import

    asker = Asker(inputs)
    params = {name: getattr(inputs, name) for name in SHOWN}
    stage = LookWithPictures(**_stage(inputs, ctx), name="pictures", params=params)
    items = _looked_at(wanted, stage, inputs, ctx)
    meter = Meter()
    seen = {clip_id: (item, found) for item in items for clip_id, found in item.value["clips"].items()}

    def process(source: Source, _: Path) -> dict[str, Any]:
        item, found = seen[source.name]
        shown = [
            Window(each["duration_s"], [ctx.store.read(f"{item.path}/{name}") for name in each["pictures"]])
            for each in found["windows"]
        ]
        return dataclasses.asdict(asker.caption(shown, meter))

    def values() -> dict[str, float]:
        return {"output_tokens_per_s": meter.tokens_per_s} if meter.num_tokens else {}

    params = {name: getattr(inputs, name) for name in ASKED}
    sources = [
        # With the id: clips too short for a window have no pictures to tell them apart, and threads make them at once.
        Source(
            clip_id, _digest_of([clip_id, found["windows"], [item.files[name] for name in _pictures_of(found)]]), params
        )
        for clip_id, (item, found) in seen.items()
        if "reason" not in found
    ]
    asked = ctx.stream(sources, [Plain("answers", process)], Threads(num_threads=inputs.max_in_flight), values)
    ctx.tracker.metrics({f"caption/{name}": value for name, value in values().items()}, step=0)
    told = {clip_id: found for clip_id, (_, found) in seen.items()}
    for item in asked:
        measured = {"parts": told[item.name]["parts"], "captioner": "signals"} if item.value["fault"] else {}
        told[item.name] = item.value | measured
    return told


def _looked_at(wanted: list[Row], stage: Look, inputs: Inputs, ctx: Context) -> list[Item]:
    """An item for each video; one that could not be read gives each of its clips the reason."""
    digests, sources = stage.videos.digests(), []
    wanted = sorted(wanted, key=lambda row: (row["source"], row["start_frame"]))
    for name, group in itertools.groupby(wanted, key=lambda row: str(row["source"])):
        given = [{column: row[column] for column in LOOKED_AT} for row in group]
        check_unchanged(name, digests.get(name), given[0]["source_digest"])
        sources.append(Source(name, _digest_of(given), given={"mark": digests[name], "rows": given}))
    items = ctx.stream(sources, [stage], executor_of(num_workers=inputs.num_workers, stall_s=inputs.stall_s))
    return [
        item if item.reason is None else _all_bad(item, source) for item, source in zip(items, sources, strict=True)
    ]


def _all_bad(item: Item, source: Source) -> Item:
    found = {clip["clip_id"]: {"reason": item.reason} for clip in source.given["rows"]}
    return dataclasses.replace(item, value={"clips": found})


def _stage(inputs: Inputs, ctx: Context) -> dict[str, Any]:
    return {"videos": ctx.folder(inputs.videos_uri), "memory_gib": COMPONENT.resources.memory_gib}


def _pictures_of(found: Row) -> list[str]:
    return [name for window in found["windows"] for name in window["pictures"]]


def _digest_of(known: Any) -> str:
    return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()


def with_rhythm(rows: list[Row]) -> list[Row]:
    """The rows of clips with ``mean_shot_s``, how long the shots of their file last on average; None: too few shots."""
    shots: dict[str, dict[str, list[float]]] = {}
    for row in rows:
        if row["clip_id"] is not None:
            shots.setdefault(row["source"], {}).setdefault(row["shot_id"], []).extend((row["start_s"], row["end_s"]))
    means = {
        source: round(sum(max(ends) - min(ends) for ends in spans.values()) / len(spans), 1)
        for source, spans in shots.items()
        if len(spans) >= RHYTHM_SHOTS
    }
    return [row | {"mean_shot_s": means.get(row["source"])} for row in rows if row["clip_id"] is not None]


def is_asked(row: Row, *, replace: bool) -> bool:
    """Whether a captioner is asked about a clip: a kept one without a caption from its sidecar, unless replaced."""
    return row["reason"] is None and (replace or not _has_sidecar(row))


def _has_sidecar(row: Row) -> bool:
    return bool(row["caption"]) and row["captioner"] in (None, SIDECAR)


def _joined(row: Row, told: Row | None, stamp: dict[str, Any]) -> Row:
    """A row with its caption; one that could not be decoded gets its reason, any other stays as it is."""
    if row["reason"] is not None or (told is None and not _has_sidecar(row)):
        return row
    row = clips.stamp(row, **stamp)
    if told is None:
        return row | {"captioner": SIDECAR}
    if "reason" in told:
        return row | {"reason": told["reason"]}
    return row | {"caption": told["parts"]["dense"], "captions": told["parts"], "captioner": told["captioner"]}


def _write(rows: list[Row], told: dict[str, Row], ctx: Context) -> Outputs:
    clips.write(ctx.dir / "clips.parquet", rows)
    faults = {clip_id: fault for clip_id, each in told.items() if (fault := each.get("reason") or each["fault"])}
    (ctx.dir / "faults.json").write_text(json.dumps(faults, indent=1, sort_keys=True, ensure_ascii=False) + "\n")
    captioned = [row for row in rows if row["reason"] is None and row["caption"]]
    outputs = Outputs(
        clips_uri=Artifact("clips.parquet"),
        faults_uri=Artifact("faults.json"),
        num_captioned=len(captioned),
        num_sidecar=sum(row["captioner"] == SIDECAR for row in captioned),
        num_faults=len(faults),
        num_output_tokens=sum(each.get("num_output_tokens", 0) for each in told.values()),
    )
    counts = {name: value for name, value in dataclasses.asdict(outputs).items() if name.startswith("num_")}
    ctx.tracker.metrics({f"caption/{name}": float(value) for name, value in counts.items()}, step=0)
    log.info("event=captions_done %s", " ".join(f"{name}={value}" for name, value in counts.items()))
    return outputs
