"""backlot.encode: clips of Backlot as training samples, with all that a model can be conditioned on beside them."""

import dataclasses

from telecine.component import Component, Resources
from telecine.config import Artifact, param

SUBJECTS = ("camera", "play")
STYLES = ("studio", "open world", "block game", "neon game", "any")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inputs:
    num_clips: int = param(256, ge=2, le=999999, help="How many clips to draw; each is a sample.")
    seed: int = param(0, ge=0, help="Clip k is drawn from seed + k, so a longer list starts with the shorter one.")
    subject: str = param(
        "camera", choices=SUBJECTS, help="Camera moves over moving objects, or a player whose actions move the camera."
    )
    style: str = param("any", choices=STYLES, help="How the world looks; any draws a look for each clip.")
    num_frames: int = param(8, ge=1, help="Frames of a sample.")
    fps: int = param(8, ge=1, le=120, help="Frames per second.")
    width_px: int = param(32, ge=16, help="Width of a sample.")
    height_px: int = param(32, ge=16, help="Height of a sample.")
    element_px: int = param(16, ge=8, help="Side of an element's picture; the model's patch must divide it.")
    clips_per_shard: int = param(64, ge=1, help="Clips of one shard, which is drawn once, ever.")
    val_ratio: float = param(0.2, gt=0, lt=1, help="Share of the clips held out for validation, at least one.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outputs:
    dataset_uri: Artifact = param(
        help="Folder with index.parquet, which names shard, offset and length of each sample and of what it has beside."
    )
    num_samples: int = param(help="Samples in all.")
    num_train: int = param(help="Samples to train on.")
    num_val: int = param(help="Samples held out.")


COMPONENT = Component(
    name="backlot.encode",
    inputs=Inputs,
    outputs=Outputs,
    entry="telecine_components.backlot.encode.run:run",
    image="curate",
    resources=Resources(cpus=1, memory_gib=1.0),
)
