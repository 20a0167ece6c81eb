"""backlot.shoot: clips of a small world with everything true about them, so that every condition can be trained."""

import dataclasses

from telecine.component import Component, Resources
from telecine.config import Artifact, param

SUBJECTS = ("camera", "play", "physics", "any")
STYLES = ("studio", "open world", "block game", "neon game", "any")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inputs:
    num_clips: int = param(48, ge=1, le=99999, help="How many clips to shoot.")
    seed: int = param(0, ge=0, help="Clip k is shot from seed + k, so a longer list starts with the shorter one.")
    subject: str = param(
        "any",
        choices=SUBJECTS,
        help="Camera moves over moving objects, a player who acts, objects that fall and collide, or all in turn.",
    )
    style: str = param("any", choices=STYLES, help="How the world looks; any draws a look for each clip.")
    violation_ratio: float = param(0.5, ge=0.0, le=1.0, help="Share of the physics clips that break a law of physics.")
    defect_ratio: float = param(
        0.0, ge=0.0, le=1.0, help="Share of all clips that are spoilt, by a drawn kind and severity."
    )
    num_frames: int = param(49, ge=4, help="Frames per clip.")
    fps: int = param(12, ge=1, le=120, help="Frames per second.")
    width_px: int = param(160, ge=16, help="Width of the clips.")
    height_px: int = param(120, ge=16, help="Height of the clips.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outputs:
    videos_uri: Artifact = param(
        help="Folder of clip_00001.mp4 with truth in .json and arrays in .npz, and truth.parquet."
    )
    num_clips: int = param(help="Clips in the folder.")
    num_implausible: int = param(help="Of these, how many break a law of physics.")
    num_spoilt: int = param(help="Of these, how many are spoilt.")


COMPONENT = Component(
    name="backlot.shoot",
    inputs=Inputs,
    outputs=Outputs,
    entry="telecine_components.backlot.shoot.run:run",
    image="curate",
    resources=Resources(cpus=1, memory_gib=1.0),
)
