"""Mark duplicates in the manifest; the best clip of each group is kept."""

import logging
from collections import Counter
from typing import Any

from telecine.config import Artifact
from telecine.context import Context
from telecine.errors import InputError
from telecine_components.curate.dedup.duplicates import duplicates
from telecine_components.curate.dedup.spec import Inputs, Outputs
from telecine_components.media import clips, embeddings

log = logging.getLogger(__name__)

OWNER = "curate.dedup"
COLUMNS = (
    *("clip_id", "shot_id", "start_s", "end_s", "num_frames", "width_px", "height_px", "bits_per_pixel"),
    *("fingerprint", "reason", "stages"),
)
SETTINGS = ("max_bits", "epsilon", "seed", "num_threads")


def run(inputs: Inputs, ctx: Context) -> Outputs:
    """Write ``clips.parquet``."""
    table = clips.read_table(ctx.fetch(inputs.clips_uri), owner=OWNER)
    rows = table.select(COLUMNS).to_pylist()
    kept = [place for place, row in enumerate(rows) if row["reason"] is None]
    _check_measured([rows[place] for place in kept])
    descriptors = embeddings.descriptors(table, kept, owner=OWNER)
    looks = descriptors
    if inputs.embeddings_uri:
        looks = embeddings.read(
            ctx.fetch(inputs.embeddings_uri), [rows[place]["clip_id"] for place in kept], owner=OWNER
        )
    found = duplicates([rows[place] for place in kept], descriptors, looks, inputs)

    settings = {name: getattr(inputs, name) for name in SETTINGS}
    stamps = [clips.stamp(rows[place], name=OWNER, version=ctx.code_digest, settings=settings) for place in kept]
    changes = {place: {"stages": row["stages"]} for place, row in zip(kept, stamps, strict=True)}
    for place, (reason, keeper) in found.items():
        changes[kept[place]] |= {"reason": reason, "duplicate_of": rows[kept[keeper]]["clip_id"]}
    clips.write_table(ctx.dir / "clips.parquet", clips.changed(table, changes))

    counts = Counter(reason.removeprefix("duplicate_") for reason, _ in found.values())
    outputs = Outputs(
        clips_uri=Artifact("clips.parquet"),
        num_clips=len(kept) - len(found),
        num_exact=counts["exact"],
        num_perceptual=counts["perceptual"],
        num_semantic=counts["semantic"],
    )
    metrics = {name: float(getattr(outputs, f"num_{name}")) for name in ("clips", "exact", "perceptual", "semantic")}
    ctx.tracker.metrics({f"dedup/{name}": value for name, value in metrics.items()}, step=0)
    log.info("event=dedup_done %s", " ".join(f"num_{name}={value:g}" for name, value in metrics.items()))
    return outputs


def _check_measured(rows: list[dict[str, Any]]) -> None:
    without = [row["clip_id"] for row in rows if not row["fingerprint"]]
    if without:
        raise InputError(
            f"{OWNER}: every clip in clips_uri must have a fingerprint; {len(without)} of {len(rows)} have none, "
            f"{without[0]} first; run curate.split again"
        )
