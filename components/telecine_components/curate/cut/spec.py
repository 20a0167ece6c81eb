"""curate.cut: kept clips become mp4 files, without encoding where cut points allow, in shards of alike clips."""

import dataclasses

from telecine.component import Component, Resources
from telecine.config import Artifact, param

PRESETS = ("ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inputs:
    clips_uri: Artifact = param(help="Manifest of the clips (parquet); those without a reason are cut.")
    videos_uri: Artifact = param(help="Folder of video files that curate.split read.")
    mode: str = param(
        "smart",
        choices=("smart", "copy_only", "encode"),
        help="Encode what cannot be copied; leave it out; or encode everything.",
    )
    max_trim_frames: int = param(
        4, ge=0, help="Frames that smart may drop at either end of a clip where that saves encoding."
    )
    max_widen_frames: int = param(
        4, ge=0, help="Frames between a cut and a clip that may be added where that saves encoding."
    )
    crf: int = param(
        18,
        ge=1,
        le=51,
        help="Quality of what is encoded: x264's rate factor, lower is better; 0, lossless, cannot be joined.",
    )
    preset: str = param("veryfast", choices=PRESETS, help="How hard x264 tries to make what is encoded small.")
    shard_mib: int = param(500, ge=1, help="Size of a shard at most; a larger clip has one of its own.")
    num_workers: int = param(1, ge=1, keyed=False, help="Processes that decode, where no Ray cluster does.")
    stall_s: float = param(120.0, gt=0, keyed=False, help="Silence after which a decoder counts as hung.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outputs:
    clips_uri: Artifact = param(help="The same manifest, with a reason for each clip that could not be cut (parquet).")
    shards_uri: Artifact = param(help="Folder of shards, and shards.parquet, which says where in them each clip lies.")
    num_clips: int = param(help="Clips in the shards.")
    num_copied: int = param(help="Those of them of which nothing was encoded.")
    num_encoded: int = param(help="Those of which everything was encoded; the others were copied in part.")
    num_shards: int = param(help="Shards.")


COMPONENT = Component(
    name="curate.cut",
    inputs=Inputs,
    outputs=Outputs,
    entry="telecine_components.curate.cut.run:run",
    image="curate",
    resources=Resources(cpus=1, memory_gib=1.0),
    max_ray_workers=1000,
)
