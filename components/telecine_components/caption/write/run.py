"""Caption each clip as an item of its own, and join the manifest."""

import dataclasses
import hashlib
import json
import logging
from pathlib import Path
from typing import Any

from telecine.config import Artifact
from telecine.context import Context, Item, Source
from telecine.errors import InputError
from telecine.work.items import Plain
from telecine_components.caption.write import signals
from telecine_components.caption.write.signals import SignalsCaptioner
from telecine_components.caption.write.spec import Inputs, Outputs
from telecine_components.caption.write.threads import Threads
from telecine_components.caption.write.told import Captioner, Meter
from telecine_components.media import clips

log = logging.getLogger(__name__)

SIDECAR = "sidecar"
FRAMES = ("source_digest", "start_s", "end_s", "num_frames", "fps")
LOOKED_AT = {"signals": (*FRAMES, *signals.MEASURES), "openai": FRAMES}
"""Of a clip's row, what each captioner gets to know; another value is another caption."""
ASKED = ("model", "num_frames", "frame_side_px", "window_frames", "min_window_frames", "max_answer_tokens", "max_tries")
RHYTHM_SHOTS = 4
"""Fewer shots of a file have no rhythm."""

Row = dict[str, Any]


def run(inputs: Inputs, ctx: Context) -> Outputs:
    """Write ``clips.parquet`` and ``faults.json``.

    Raises:
        InputError: the videos are not those that the manifest describes, or the endpoint refuses us.
        RetryLater: the endpoint is away, busy or broken; what is captioned stays.
    """
    rows = clips.read(ctx.fetch(inputs.clips_uri), owner="caption.write")
    folder = ctx.fetch(inputs.videos_uri)
    asked = {row["clip_id"]: row for row in with_rhythm(rows) if is_asked(row, replace=inputs.replace)}
    for name, digest in {row["source"]: row["source_digest"] for row in asked.values()}.items():
        _check_unchanged(ctx, folder / name, digest)
    looked_at, settings = LOOKED_AT[inputs.captioner], settings_of(inputs)
    meter = Meter()
    captioner = _captioner(inputs, meter)

    def process(source: Source, _: Path) -> dict[str, Any]:
        clip = asked[source.name]
        told = captioner.caption(folder / clip["source"], {name: clip[name] for name in looked_at})
        return dataclasses.asdict(told)

    def values() -> dict[str, float]:
        return {"output_tokens_per_s": meter.tokens_per_s} if meter.num_tokens else {}

    sources = [Source(clip_id, _digest_of(row, looked_at), settings) for clip_id, row in asked.items()]
    threads = Threads(num_threads=inputs.max_in_flight if inputs.captioner == "openai" else 1)
    items = {item.name: item for item in ctx.stream(sources, [Plain("captions", process)], threads, values)}
    ctx.tracker.metrics({f"caption/{name}": value for name, value in values().items()}, step=0)
    stamp = {"name": "caption.write", "version": ctx.code_digest, "settings": settings}
    return _write([_joined(row, items.get(row["clip_id"]), stamp) for row in rows], items, ctx)


def _captioner(inputs: Inputs, meter: Meter) -> Captioner:
    if inputs.captioner == "signals":
        return SignalsCaptioner()
    from telecine_components.caption.write.asking import AskingCaptioner  # openai takes a second to import

    return AskingCaptioner(inputs, meter)


def settings_of(inputs: Inputs) -> dict[str, Any]:
    """What decides a caption, beside the clip: neither where the model is nor how fast it is asked."""
    names = ("captioner", *(ASKED if inputs.captioner == "openai" else ()))
    return {name: getattr(inputs, name) for name in names}


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


def _check_unchanged(ctx: Context, path: Path, digest: str) -> None:
    if not path.is_file() or ctx.digest(path) != digest:
        state = "differs from" if path.is_file() else "is missing from"
        raise InputError(
            f"caption.write: {path.name} {state} what clips_uri describes; give the same videos_uri to curate.split "
            "and caption.write, and run curate.split again where videos changed"
        )


def _digest_of(clip: Row, looked_at: tuple[str, ...]) -> str:
    known = {name: clip[name] for name in looked_at}
    return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()


def _joined(row: Row, item: Item | None, stamp: dict[str, Any]) -> Row:
    """A row with its caption; one that could not be decoded gets its reason, any other stays as it is."""
    if row["reason"] is not None or (item is None and not _has_sidecar(row)):
        return row
    row = clips.stamp(row, **stamp)
    if item is None:
        return row | {"captioner": SIDECAR}
    if item.reason is not None:
        return row | {"reason": item.reason}
    told = item.value
    return row | {"caption": told["parts"]["dense"], "captions": told["parts"], "captioner": told["captioner"]}


def _write(rows: list[Row], items: dict[str, Item], ctx: Context) -> Outputs:
    clips.write(ctx.dir / "clips.parquet", rows)
    faults = {name: fault for name, item in items.items() if (fault := item.reason or item.value["fault"])}
    (ctx.dir / "faults.json").write_text(json.dumps(faults, indent=1, sort_keys=True, ensure_ascii=False) + "\n")
    captioned = [row for row in rows if row["reason"] is None and row["caption"]]
    outputs = Outputs(
        clips_uri=Artifact("clips.parquet"),
        faults_uri=Artifact("faults.json"),
        num_captioned=len(captioned),
        num_sidecar=sum(row["captioner"] == SIDECAR for row in captioned),
        num_faults=len(faults),
        num_output_tokens=sum(item.value.get("num_output_tokens", 0) for item in items.values()),
    )
    counts = {name: value for name, value in dataclasses.asdict(outputs).items() if name.startswith("num_")}
    ctx.tracker.metrics({f"caption/{name}": float(value) for name, value in counts.items()}, step=0)
    log.info("event=captions_done %s", " ".join(f"{name}={value}" for name, value in counts.items()))
    return outputs
