"""curate.encode: kept clips become training samples in tar shards with a Parquet index."""

import dataclasses

from telecine.component import Component, Resources
from telecine.config import Artifact, param


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inputs:
    clips_uri: Artifact = param(help="Manifest that curate.filter wrote (parquet).")
    videos_uri: Artifact = param(help="Folder of video files that curate.split read.")
    width_px: int = param(32, ge=8, help="Width of a sample; frames are cropped to the aspect ratio from the centre.")
    height_px: int = param(32, ge=8, help="Height of a sample.")
    keep_aspect: bool = param(
        False, help="Give samples the aspect of their clip instead: about the area of width by height, hardly cropped."
    )
    side_multiple_px: int = param(16, ge=1, help="What divides the sides of samples that keep their aspect.")
    num_frames: int = param(8, ge=1, help="Frames of a sample.")
    sample_fps: float = param(8.0, gt=0, help="Frames per second of a sample, whatever the source has.")
    max_samples_per_clip: int = param(4, ge=1, help="Windows taken from one clip; they never overlap.")
    val_ratio: float = param(
        0.2, gt=0, lt=1, help="Share of the clips held out for validation, whole shots at a time, at least one."
    )
    seed: int = param(0, ge=0, help="Seed of the choice of held-out clips.")
    num_threads: int = param(1, ge=1, help="Threads of one decoder.")
    num_workers: int = param(1, ge=1, keyed=False, help="Processes that decode, where no Ray cluster does.")
    stall_s: float = param(120.0, gt=0, keyed=False, help="Silence after which a decoder counts as hung.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outputs:
    dataset_uri: Artifact = param(
        help="Folder with index.parquet, which names shard, offset and length of each sample."
    )
    contact_sheet_uri: Artifact = param(help="Picture of some training samples, one per row (PNG).")
    num_samples: int = param(help="Samples in all.")
    num_train: int = param(help="Samples to train on.")
    num_val: int = param(help="Samples held out; none shares a shot with a training sample.")
    num_clips: int = param(help="Clips that gave at least one sample.")


COMPONENT = Component(
    name="curate.encode",
    inputs=Inputs,
    outputs=Outputs,
    entry="telecine_components.curate.encode.run:run",
    image="curate",
    resources=Resources(cpus=1, memory_gib=1.0),
    max_ray_workers=1000,
)
