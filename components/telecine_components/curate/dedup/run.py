"""Mark duplicates in the manifest; the best clip of each group is kept."""

import logging
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

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
    *("fingerprint", "stages"),
)
SETTINGS = ("max_bits", "epsilon", "seed", "num_threads")


def run(inputs: Inputs, ctx: Context) -> Outputs:
    """Write ``clips.parquet``.

    Raises:
        InputError: a manifest is none or not measured, or no manifest is where earlier ones should be.
    """
    table = clips.read_table(ctx.fetch(inputs.clips_uri), owner=OWNER)
    kept = [place for place, reason in enumerate(table.column("reason").to_pylist()) if reason is None]
    own = table.take(pa.array(kept, pa.int64())).select([*COLUMNS, "descriptor"])
    compared = pa.concat_tables([*(_earlier(ctx.fetch(inputs.earlier_uri)) if inputs.earlier_uri else []), own])
    rows, num_earlier = compared.select(COLUMNS).to_pylist(), len(compared) - len(own)
    _check_measured(rows)
    descriptors = embeddings.descriptors(compared, range(len(rows)), owner=OWNER)
    looks = descriptors
    if inputs.embeddings_uri:
        looks = embeddings.read(ctx.fetch(inputs.embeddings_uri), [row["clip_id"] for row in rows], owner=OWNER)
    found = duplicates(rows, descriptors, looks, inputs, num_earlier=num_earlier)

    settings = {name: getattr(inputs, name) for name in SETTINGS}
    stamps = [clips.stamp(row, name=OWNER, version=ctx.code_digest, settings=settings) for row in rows[num_earlier:]]
    changes = {place: {"stages": row["stages"]} for place, row in zip(kept, stamps, strict=True)}
    for number, (reason, keeper) in found.items():
        changes[kept[number - num_earlier]] |= {"reason": reason, "duplicate_of": rows[keeper]["clip_id"]}
    clips.write_table(ctx.dir / "clips.parquet", clips.changed(table, changes))

    counts = Counter(reason.removeprefix("duplicate_") for reason, _ in found.values())
    outputs = Outputs(
        clips_uri=Artifact("clips.parquet"),
        num_clips=len(kept) - len(found),
        num_earlier=num_earlier,
        num_exact=counts["exact"],
        num_perceptual=counts["perceptual"],
        num_semantic=counts["semantic"],
    )
    names = ("clips", "earlier", "exact", "perceptual", "semantic")
    metrics = {name: float(getattr(outputs, f"num_{name}")) for name in names}
    ctx.tracker.metrics({f"dedup/{name}": value for name, value in metrics.items()}, step=0)
    log.info("event=dedup_done %s", " ".join(f"num_{name}={value:g}" for name, value in metrics.items()))
    return outputs


def _earlier(path: Path) -> list[pa.Table]:
    """The kept clips of a manifest, or of each below a folder."""
    paths = sorted(path.rglob("*.parquet")) if path.is_dir() else [path]
    if not paths:
        raise InputError(
            f"{OWNER}: earlier_uri must be a manifest or a folder of them (*.parquet); {path.name} has none"
        )
    tables = [clips.read_table(each, owner=OWNER, name="earlier_uri") for each in paths]
    return [table.filter(pc.is_null(table.column("reason"))).select([*COLUMNS, "descriptor"]) for table in tables]


def _check_measured(rows: list[dict[str, Any]]) -> None:
    without = [row["clip_id"] for row in rows if not row["fingerprint"]]
    if without:
        raise InputError(
            f"{OWNER}: every kept clip in clips_uri and earlier_uri must have a fingerprint; {len(without)} of "
            f"{len(rows)} have none, {without[0]} first; run curate.split again"
        )
