"""Cluster the kept clips, mark their clusters, and leave out what is over a cluster's quota."""

import logging
import math

import numpy as np

from telecine.config import Artifact
from telecine.context import Context
from telecine_components.curate.balance.quotas import chosen, quotas
from telecine_components.curate.balance.spec import Inputs, Outputs
from telecine_components.media import clips, embeddings
from telecine_components.media.clusters import clusters

log = logging.getLogger(__name__)

OWNER = "curate.balance"
MIN_CLIPS_PER_CLUSTER = 10
SETTINGS = ("keep_ratio", "max_clips", "rule", "num_clusters", "seed", "num_threads")


def run(inputs: Inputs, ctx: Context) -> Outputs:
    """Write ``clips.parquet``."""
    table = clips.read_table(ctx.fetch(inputs.clips_uri), owner=OWNER)
    rows = table.select(["clip_id", "suitability", "reason", "stages"]).to_pylist()
    # In the order of their ids, so that the clusters do not depend on the order of the manifest.
    kept = sorted((place for place, row in enumerate(rows) if row["reason"] is None), key=lambda i: rows[i]["clip_id"])
    if inputs.embeddings_uri:
        path = ctx.fetch(inputs.embeddings_uri)
        vectors = embeddings.read(path, [rows[place]["clip_id"] for place in kept], owner=OWNER)
    else:
        vectors = embeddings.descriptors(table, kept, owner=OWNER)
    num_clusters = max(1, min(inputs.num_clusters, len(kept) // MIN_CLIPS_PER_CLUSTER))
    labels = clusters(vectors, num_clusters, seed=inputs.seed, num_threads=inputs.num_threads)

    wanted = math.ceil(round(inputs.keep_ratio * len(kept), 6))  # 0.07 of 100 is 7.000000000000001 to a machine
    total = min(wanted, inputs.max_clips or len(kept))
    sizes = np.bincount(labels, minlength=num_clusters)
    settings = {name: getattr(inputs, name) for name in SETTINGS}
    changes = {}
    for label, quota in enumerate(quotas(sizes, total, inputs.rule)):
        members = [kept[index] for index in np.flatnonzero(labels == label)]
        stay = chosen([rows[place] for place in members], int(quota), seed=inputs.seed)
        for place in members:
            stamped = clips.stamp(rows[place], name=OWNER, version=ctx.code_digest, settings=settings)
            reason = None if rows[place]["clip_id"] in stay else "over_quota"
            changes[place] = {"cluster": label, "reason": reason, "stages": stamped["stages"]}
    clips.write_table(ctx.dir / "clips.parquet", clips.changed(table, changes))
    outputs = Outputs(
        clips_uri=Artifact("clips.parquet"),
        num_clips=total,
        num_over_quota=len(kept) - total,
        num_clusters=int((sizes > 0).sum()),
    )
    numbers = {name: float(getattr(outputs, name)) for name in ("num_clips", "num_over_quota", "num_clusters")}
    ctx.tracker.metrics({f"balance/{name.removeprefix('num_')}": value for name, value in numbers.items()}, step=0)
    log.info("event=balance_done %s", " ".join(f"{name}={value:g}" for name, value in numbers.items()))
    return outputs
