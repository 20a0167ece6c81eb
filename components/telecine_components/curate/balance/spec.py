"""curate.balance: where fewer clips are wanted than there are, clusters of alike clips give up their share."""

import dataclasses

from telecine.component import Component, Resources
from telecine.config import Artifact, param


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inputs:
    """Every clip is kept unless ``keep_ratio`` or ``max_clips`` asks for fewer: footage goes only on demand."""

    clips_uri: Artifact = param(help="Manifest that curate.dedup wrote (parquet).")
    embeddings_uri: Artifact = param(
        "", help="Embeddings that curate.embed wrote (parquet); empty: the descriptors of the manifest."
    )
    keep_ratio: float = param(1.0, gt=0, le=1, help="Share of the clips to keep.")
    max_clips: int = param(0, ge=0, help="Clips to keep at most; 0 sets no limit.")
    rule: str = param(
        "sqrt",
        choices=("sqrt", "cap", "none"),
        help="Who gives up clips: sqrt keeps numbers that go with the square root of a cluster's size, cap levels the "
        "largest clusters, none takes the same share of each.",
    )
    num_clusters: int = param(
        100, ge=1, le=100_000, help="Clusters of alike clips; fewer where there would be less than 10 clips in each."
    )
    seed: int = param(0, ge=0, help="Seed of the clusters, and of the choice between clips of equal suitability.")
    num_threads: int = param(1, ge=1, help="Threads of the clustering.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outputs:
    clips_uri: Artifact = param(
        help="The same manifest with the cluster of each clip, and over_quota as reason (parquet)."
    )
    num_clips: int = param(help="Clips kept.")
    num_over_quota: int = param(help="Clips left out.")
    num_clusters: int = param(help="Clusters found.")


COMPONENT = Component(
    name="curate.balance",
    inputs=Inputs,
    outputs=Outputs,
    entry="telecine_components.curate.balance.run:run",
    image="curate",
    resources=Resources(cpus=1, memory_gib=2.0),
)
