"""evaluate.compare: film every held-out prompt with both models from equal noise, read the films, count the wins."""

import json
import logging
from typing import Any

import numpy as np

from telecine.config import Artifact
from telecine.context import Context
from telecine.errors import InputError, RetryLater
from telecine_components.evaluate.compare.spec import MIN_PROMPTS, Inputs, Outputs
from telecine_components.evaluate.compare.verdict import verdict
from telecine_components.media.sheet import write_side_by_side
from telecine_components.training.determinism import deterministic
from telecine_components.training.films import Camera
from telecine_models.backlot.caption import draw_captions
from telecine_models.rewards.caption import PARTS, caption_reward

log = logging.getLogger(__name__)

_SHEET_PROMPTS = 12

Judged = dict[str, list[list[dict[str, float]]]]
"""Parts of the reward by model, prompt and seed."""


def run(inputs: Inputs, ctx: Context) -> Outputs:
    """Compare; see :class:`Inputs`."""
    prompts = inputs.prompts or draw_captions(inputs.num_prompts, seed=(inputs.prompt_seed,), held_out=True)
    if len(prompts) < MIN_PROMPTS:
        raise InputError(
            f"evaluate.compare: prompts must name at least {MIN_PROMPTS} captions, got {len(prompts)}; give more"
        )
    uris = {"model": inputs.model_uri, "reference": inputs.reference_uri}
    how = {name: getattr(inputs, name) for name in ("num_steps", "guidance_scale", "lora_scale")}
    with deterministic(inputs.num_threads):
        cameras = {name: Camera(ctx.fetch(uri), **how) for name, uri in uris.items()}
    judged, shown = _film(cameras, prompts, inputs, ctx)
    rewards = {
        name: np.array([[parts["reward"] for parts in row] for row in by_prompt]) for name, by_prompt in judged.items()
    }
    figures = verdict(
        rewards["model"],
        rewards["reference"],
        tie_margin=inputs.tie_margin,
        num_rounds=inputs.num_rounds,
        seed=inputs.prompt_seed,
    )
    _write(prompts, judged, shown, figures, ctx)
    log.info(
        "event=compared reward=%.4f reward_reference=%.4f win_rate=%.3f low=%.3f high=%.3f",
        *(figures[name] for name in ("reward", "reward_reference", "win_rate", "win_rate_low", "win_rate_high")),
    )
    return Outputs(
        comparison_uri=Artifact("comparison.json"),
        preview_uri=Artifact("comparison.png"),
        num_prompts=len(prompts),
        **figures,
    )


def _film(
    cameras: dict[str, Camera], prompts: tuple[str, ...], inputs: Inputs, ctx: Context
) -> tuple[Judged, dict[str, np.ndarray]]:
    """The verdict on every film, and the films of the first seed to show."""
    judged: Judged = {name: [[] for _ in prompts] for name in cameras}
    shown: dict[str, np.ndarray] = {}
    with deterministic(inputs.num_threads):
        for done in range(inputs.num_seeds):
            for name, camera in cameras.items():
                if ctx.stop_requested:
                    raise RetryLater(f"evaluate.compare: stopped after {done} of {inputs.num_seeds} seeds; call again")
                films = camera.film(prompts, inputs.first_seed + done)
                shown.setdefault(name, films)
                for place, (prompt, film) in enumerate(zip(prompts, films, strict=True)):
                    judged[name][place].append(_judge(prompt, film))
            ctx.progress(done + 1, inputs.num_seeds)
    return judged, shown


def _judge(prompt: str, film: np.ndarray) -> dict[str, float]:
    try:
        return caption_reward(prompt, film)
    except ValueError as error:
        raise InputError(f"evaluate.compare: {error}") from error


def _write(
    prompts: tuple[str, ...],
    judged: Judged,
    shown: dict[str, np.ndarray],
    figures: dict[str, Any],
    ctx: Context,
) -> None:
    parts = {
        name: {part: float(np.mean([film[part] for row in rows for film in row])) for part in PARTS}
        for name, rows in judged.items()
    }
    films = [
        {"prompt": prompt, "model": judged["model"][place], "reference": judged["reference"][place]}
        for place, prompt in enumerate(prompts)
    ]
    document = {**figures, "parts": parts, "films": films}
    path = ctx.dir / "comparison.json"
    path.write_text(json.dumps(document, indent=1, sort_keys=True))
    means = [
        {name: float(np.mean([f["reward"] for f in judged[name][place]])) for name in judged}
        for place in range(len(prompts))
    ]
    rows = [
        (
            f"{prompt}   model (left) {means[place]['model']:.2f}, reference (right) {means[place]['reference']:.2f}",
            [shown["model"][place], shown["reference"][place]],
        )
        for place, prompt in enumerate(prompts[:_SHEET_PROMPTS])
    ]
    sheet = ctx.dir / "comparison.png"
    write_side_by_side(sheet, rows, factor=2)
    for file in (path, sheet):
        ctx.tracker.artifact(file, "comparison")
    ctx.tracker.metrics({f"{name}/{part}": value for name, seen in parts.items() for part, value in seen.items()}, 0)
