"""backlot.render: films with exact truth, so that everything can be tried without footage of one's own."""

import dataclasses

from telecine.component import Component, Resources
from telecine.config import Artifact, param


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inputs:
    num_films: int = param(48, ge=1, le=9999, help="How many films to render.")
    seed: int = param(0, ge=0, help="Film k is rendered from seed + k, so a longer list starts with the shorter one.")
    num_frames: int = param(72, ge=2, help="Frames per film.")
    fps: int = param(12, ge=1, le=120, help="Frames per second.")
    width_px: int = param(160, ge=16, help="Width of the films.")
    height_px: int = param(120, ge=16, help="Height of the films.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outputs:
    videos_uri: Artifact = param(help="Folder of film_0001.mp4 with its truth in film_0001.json, and so on.")
    num_films: int = param(help="Films in the folder.")


COMPONENT = Component(
    name="backlot.render",
    inputs=Inputs,
    outputs=Outputs,
    entry="telecine_components.backlot.render.run:run",
    image="curate",
    resources=Resources(cpus=1, memory_gib=1.0),
)
