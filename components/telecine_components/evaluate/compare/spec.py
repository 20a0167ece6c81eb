"""evaluate.compare: rewards of two models on held-out prompts with equal noise, and how often one beats the other."""

import dataclasses

from telecine.component import Component, Resources
from telecine.config import Artifact, param

MIN_PROMPTS = 8
"""Of fewer, not even winning all is safely beyond chance for the best of three rounds."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inputs:
    model_uri: Artifact = param(help="Pipeline folder of the model to judge.")
    reference_uri: Artifact = param(help="Pipeline folder of the model to beat.")
    prompts: tuple[str, ...] = param((), help="Captions to film; empty draws held-out ones from Backlot's grammar.")
    num_prompts: int = param(
        24, ge=MIN_PROMPTS, help="Captions to draw where prompts is empty; align.collect never draws them."
    )
    prompt_seed: int = param(1, ge=0, help="Seed of the captions that are drawn.")
    num_seeds: int = param(4, ge=1, help="Films of every prompt by each model.")
    first_seed: int = param(1000, ge=0, help="Seed of the first film's noise; the others follow.")
    num_steps: int = param(20, ge=1, help="Steps of the solver (Euler).")
    guidance_scale: float = param(2.0, ge=0, help="Classifier-free guidance; 1 is none.")
    lora_scale: float = param(1.0, ge=0, help="What a LoRA beside a model's weights is multiplied with; 0 for none.")
    tie_margin: float = param(
        0.02, ge=0, help="Films are tied whose rewards differ by at most this; a tie is half a win."
    )
    num_rounds: int = param(
        1, ge=1, le=3, help="Rounds of which the best is taken: 95 % is for all their intervals at once (Bonferroni)."
    )
    num_threads: int = param(2, ge=1, help="CPU threads; part of the address, because sums differ between counts.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outputs:
    comparison_uri: Artifact = param(help="Rewards of every film and the figures below (JSON).")
    preview_uri: Artifact = param(help="The two models side by side, one film a prompt (PNG).")
    reward: float = param(help="Mean reward of the model.")
    reward_reference: float = param(help="Mean reward of the reference.")
    reward_gain: float = param(help="Mean of (model - reference) over prompts.")
    reward_gain_low: float = param(help="Lower end of its 95 % interval over prompts, wider where num_rounds is.")
    reward_gain_high: float = param(help="Upper end of that interval.")
    win_rate: float = param(help="Share of films in which the model beats the reference, ties counted half.")
    win_rate_low: float = param(help="Lower end of its 95 % interval over prompts, wider where num_rounds is.")
    win_rate_high: float = param(help="Upper end of that interval.")
    num_prompts: int = param(help="Prompts compared.")


COMPONENT = Component(
    name="evaluate.compare",
    inputs=Inputs,
    outputs=Outputs,
    entry="telecine_components.evaluate.compare.run:run",
    image="train",
    resources=Resources(cpus=2, memory_gib=2.0),
)
