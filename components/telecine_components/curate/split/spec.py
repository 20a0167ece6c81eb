"""curate.split: one decode per file finds the shots, cuts them into clips and measures each clip."""

import dataclasses

from telecine.component import Component, Resources
from telecine.config import Artifact, param


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inputs:
    videos_uri: Artifact = param(help="Folder of video files, searched through all its subfolders.")
    detector: str = param(
        "telecine",
        choices=("telecine", "koala"),
        help="Who finds the shots: our detector, or Koala-36M's as published.",
    )
    max_clip_s: float = param(4.0, gt=0, help="Longer shots are cut into equal clips of at most this length.")
    trim_frames: int = param(4, ge=0, help="Frames dropped on both sides of a transition.")
    num_threads: int = param(1, ge=1, help="Threads of one decoder.")
    num_workers: int = param(1, ge=1, keyed=False, help="Processes that decode, where no Ray cluster does.")
    stall_s: float = param(120.0, gt=0, keyed=False, help="Silence after which a decoder counts as hung.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outputs:
    clips_uri: Artifact = param(help="Manifest (parquet): a row per clip, and one with its reason per unusable file.")
    num_files: int = param(help="Video files found.")
    num_bad_files: int = param(help="Files that could not be used; the manifest gives the reason of each.")
    num_clips: int = param(help="Clips found in the others.")


COMPONENT = Component(
    name="curate.split",
    inputs=Inputs,
    outputs=Outputs,
    entry="telecine_components.curate.split.run:run",
    image="curate",
    resources=Resources(cpus=1, memory_gib=1.5),
    max_ray_workers=1000,
)
