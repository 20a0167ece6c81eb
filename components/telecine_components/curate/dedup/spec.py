"""curate.dedup: of clips that are copies of each other, or look the same, the best one is kept."""

import dataclasses

from telecine.component import Component, Resources
from telecine.config import Artifact, param


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inputs:
    clips_uri: Artifact = param(help="Manifest that curate.filter wrote (parquet).")
    earlier_uri: Artifact = param(
        "",
        help="What was curated before: a manifest or a folder of manifests (parquet), whose kept clips count as taken.",
    )
    embeddings_uri: Artifact = param(
        "",
        help="Embeddings of all clips compared (parquet, or a folder of what curate.embed wrote for each manifest); "
        "empty: descriptors.",
    )
    max_bits: int = param(
        10,
        ge=0,
        le=16,
        help="Frames whose hashes differ in at most this many of 64 bits are the same; 0 looks for none.",
    )
    epsilon: float = param(
        0.005,
        ge=0,
        lt=1,
        help="Clips whose cosine is above 1 - epsilon look the same; 0 looks for none. 0.01 is usual for embeddings.",
    )
    seed: int = param(0, ge=0, help="Seed of the clusters that clips are compared within.")
    num_threads: int = param(1, ge=1, help="Threads of the comparison.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outputs:
    clips_uri: Artifact = param(help="The same manifest with reason and duplicate_of for each duplicate (parquet).")
    num_clips: int = param(help="Clips kept.")
    num_earlier: int = param(help="Clips taken before, with which they were compared.")
    num_exact: int = param(help="Clips with the same frames as a kept one.")
    num_perceptual: int = param(help="Clips that are a kept one coded, sized, framed, mirrored or cut differently.")
    num_semantic: int = param(help="Clips that look like a kept one.")


COMPONENT = Component(
    name="curate.dedup",
    inputs=Inputs,
    outputs=Outputs,
    entry="telecine_components.curate.dedup.run:run",
    image="curate",
    resources=Resources(cpus=1, memory_gib=2.0),
)
