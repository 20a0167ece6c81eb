"""evaluate.sample: films from fixed prompts and seeds, as mp4 files and one contact sheet."""

import dataclasses

from telecine.component import Component, Resources
from telecine.config import Artifact, param

PROMPTS = (
    "a large red circle moves right on a blue background",
    "two green squares move down on a yellow background",
    "a large purple triangle moves left on a cyan background",
    "three orange circles bounce around on a checkered pink background",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inputs:
    model_uri: Artifact = param(help="Pipeline folder that pretrain.train wrote.")
    prompts: tuple[str, ...] = param(PROMPTS, help="Captions to film; the defaults speak the language of Backlot.")
    seeds: tuple[int, ...] = param((0, 1), ge=0, help="One film of every prompt for each seed.")
    num_steps: int = param(30, ge=1, help="Steps of the solver (Euler).")
    guidance_scale: float = param(2.0, ge=0, help="Classifier-free guidance; 1 is none.")
    lora_scale: float = param(1.0, ge=0, help="What a LoRA beside the model's weights is multiplied with; 0 for none.")
    num_frames: int = param(0, ge=0, help="Frames of a film; 0 is what the model was trained on.")
    height_px: int = param(0, ge=0, help="Height of a film; 0 is what the model was trained on.")
    width_px: int = param(0, ge=0, help="Width of a film; 0 is what the model was trained on.")
    upscale: int = param(4, ge=1, le=32, help="Pixels are repeated this often in the mp4, so that a person can look.")
    num_threads: int = param(2, ge=1, help="CPU threads; part of the address, because sums differ between counts.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outputs:
    samples_uri: Artifact = param(help="Folder of mp4 files, contact_sheet.png and samples.json.")
    num_samples: int = param(help="Films in the folder.")


COMPONENT = Component(
    name="evaluate.sample",
    inputs=Inputs,
    outputs=Outputs,
    entry="telecine_components.evaluate.sample.run:run",
    image="train",
    resources=Resources(cpus=2, memory_gib=2.0),
)
