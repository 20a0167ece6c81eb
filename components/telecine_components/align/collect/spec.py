"""align.collect: films of many prompts and seeds from two checkpoints, with equal noise for each prompt and seed."""

import dataclasses

from telecine.component import Component, Resources
from telecine.config import Artifact, param


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inputs:
    model_uri: Artifact = param(help="Pipeline folder of the model to be aligned.")
    reference_uri: Artifact = param(
        help="Pipeline folder to compare with; with the model's own weights, pairs are made of two seeds instead."
    )
    prompts: tuple[str, ...] = param((), help="Captions to film; empty draws them from Backlot's grammar.")
    num_prompts: int = param(32, ge=1, help="Captions to draw where prompts is empty; none is ever held out.")
    prompt_seed: int = param(0, ge=0, help="Seed of the captions that are drawn.")
    num_seeds: int = param(8, ge=1, help="Films of every prompt by each checkpoint.")
    first_seed: int = param(0, ge=0, help="Seed of the first film's noise; the others follow.")
    round: int = param(1, ge=1, help="Round of a loop; each draws captions and noise of its own.")
    num_steps: int = param(20, ge=1, help="Steps of the solver (Euler).")
    guidance_scale: float = param(2.0, ge=0, help="Classifier-free guidance; 1 is none.")
    lora_scale: float = param(1.0, ge=0, help="What a LoRA beside a model's weights is multiplied with; 0 for none.")
    max_pairs: int = param(8, ge=1, le=100, help="Pairs that a person is asked about.")
    num_threads: int = param(2, ge=1, help="CPU threads; part of the address, because sums differ between counts.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outputs:
    films_uri: Artifact = param(help="Folder with index.parquet, which says where each film lies, and pairs.json.")
    preview_uri: Artifact = param(help="Folder of the pairs side by side: pairs.png and one mp4 a pair.")
    num_films: int = param(help="Films in the index.")
    num_pairs: int = param(help="Pairs to choose between.")


COMPONENT = Component(
    name="align.collect",
    inputs=Inputs,
    outputs=Outputs,
    entry="telecine_components.align.collect.run:run",
    image="train",
    resources=Resources(cpus=2, memory_gib=2.0),
)
