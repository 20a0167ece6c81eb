"""Score the clips, mark those that break a threshold and count them."""

import json
import logging
from typing import Any

from telecine.config import Artifact
from telecine.context import Context
from telecine.errors import InputError
from telecine_components.curate.filter.funnel import RULES, first_reason, funnel, in_words
from telecine_components.curate.filter.spec import Inputs, Outputs
from telecine_components.curate.suitability import builtin
from telecine_components.curate.suitability.model import Model, from_json, load
from telecine_components.media import clips

log = logging.getLogger(__name__)


def run(inputs: Inputs, ctx: Context) -> Outputs:
    """Write ``clips.parquet`` and ``funnel.json``.

    Raises:
        InputError: a clip lacks a measure, or none is left, so nothing downstream can go on.
    """
    rows = clips.read(ctx.fetch(inputs.clips_uri), owner="curate.filter")
    model = _model(inputs, ctx)
    limits = {rule.limit: getattr(inputs, rule.limit) for rule in RULES.values()}
    settings = limits | {"suitability": ctx.digest(ctx.fetch(inputs.suitability_uri)) if inputs.suitability_uri else ""}

    def marked(row: dict[str, Any]) -> dict[str, Any]:
        scored = row if model.missing(row) else row | {"suitability": round(model.score(row), 6)}
        judged = scored if row["reason"] else scored | {"reason": first_reason(scored, inputs)}
        return clips.stamp(judged, name="curate.filter", version=ctx.code_digest, settings=settings)

    done = [row if row["clip_id"] is None else marked(row) for row in rows]
    counts = funnel(done)
    if not counts["kept"]:
        raise InputError(
            f"curate.filter: no clip was kept of {in_words(counts)}; loosen the thresholds that reject most, "
            "or add footage"
        )
    clips.write(ctx.dir / "clips.parquet", done, metadata={name: str(value) for name, value in settings.items()})
    (ctx.dir / "funnel.json").write_text(json.dumps(counts, indent=2) + "\n")
    ctx.tracker.metrics(_metrics(counts), step=0)
    log.info("event=filter_done %s", " ".join(f"{name}={value:g}" for name, value in _metrics(counts).items()))
    num_rejected = counts["clips_in"] - counts["kept"]
    return Outputs(
        clips_uri=Artifact("clips.parquet"),
        funnel_uri=Artifact("funnel.json"),
        num_clips=counts["kept"],
        num_rejected=num_rejected,
    )


def _model(inputs: Inputs, ctx: Context) -> Model:
    known = clips.SCHEMA.names
    if not inputs.suitability_uri:
        return from_json(builtin.MODEL, owner="curate.filter", known=known)
    return load(ctx.fetch(inputs.suitability_uri), owner="curate.filter", known=known)


def _metrics(counts: dict[str, Any]) -> dict[str, float]:
    rejected = {f"funnel/rejected_{reason}": float(counts["rejected"].get(reason, 0)) for reason in RULES}
    totals = {f"funnel/{name}": float(counts[name]) for name in ("files", "bad_files", "clips_in", "kept")}
    return totals | rejected
