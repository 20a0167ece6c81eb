"""Mark the clips that break a threshold and count them."""

import dataclasses
import json
import logging
from typing import Any

from telecine.config import Artifact
from telecine.context import Context
from telecine.errors import InputError
from telecine_components.curate.filter.funnel import REASONS, first_reason, funnel, in_words
from telecine_components.curate.filter.spec import Inputs, Outputs
from telecine_components.media import clips

log = logging.getLogger(__name__)


def run(inputs: Inputs, ctx: Context) -> Outputs:
    """Write ``clips.parquet`` and ``funnel.json``.

    Raises:
        InputError: no clip is left, so nothing downstream can go on.
    """
    rows = clips.read(ctx.fetch(inputs.clips_uri), owner="curate.filter")
    marked = [row if row["clip_id"] is None else row | {"reason": first_reason(row, inputs)} for row in rows]
    counts = funnel(marked)
    if not counts["kept"]:
        raise InputError(
            f"curate.filter: no clip was kept of {in_words(counts)}; loosen the thresholds that reject most, "
            "or add footage"
        )
    limits = {name: str(value) for name, value in dataclasses.asdict(inputs).items() if name != "clips_uri"}
    clips.write(ctx.dir / "clips.parquet", marked, metadata=limits)
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


def _metrics(counts: dict[str, Any]) -> dict[str, float]:
    rejected = {f"funnel/rejected_{reason}": float(counts["rejected"].get(reason, 0)) for reason in REASONS}
    totals = {f"funnel/{name}": float(counts[name]) for name in ("files", "bad_files", "clips_in", "kept")}
    return totals | rejected
