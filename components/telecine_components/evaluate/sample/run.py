"""evaluate.sample: load the pipeline, film every prompt with every seed, write what a person can look at."""

import json
import logging
import re
from pathlib import Path
from typing import Any

import numpy as np

from telecine.config import Artifact
from telecine.context import Context
from telecine.errors import InputError, RetryLater
from telecine_components.evaluate.sample.sheet import upscale, write_contact_sheet
from telecine_components.evaluate.sample.spec import Inputs, Outputs
from telecine_components.media.encode import write_mp4
from telecine_components.training.determinism import deterministic
from telecine_components.training.pipelines import load_pipeline
from telecine_models.pipeline import TelecinePipeline

log = logging.getLogger(__name__)


def run(inputs: Inputs, ctx: Context) -> Outputs:
    """Sample; see :class:`Inputs`."""
    if not inputs.prompts or not inputs.seeds:
        raise InputError("evaluate.sample: prompts and seeds must name at least one film, got none; give one of each")
    folder = ctx.fetch(inputs.model_uri)
    size, fps = film_size(inputs, folder)
    samples = ctx.dir / "samples"
    samples.mkdir()
    films: list[np.ndarray] = []
    rows: list[dict[str, Any]] = []
    with deterministic(inputs.num_threads):
        pipeline = load_pipeline(folder, lora_scale=inputs.lora_scale)
        for done, seed in enumerate(inputs.seeds):
            if ctx.stop_requested:
                raise RetryLater("evaluate.sample: stopped before the last film")
            ctx.progress(done, len(inputs.seeds))
            for prompt, film in zip(inputs.prompts, _film(pipeline, inputs, size, seed), strict=True):
                name = f"{len(films):02d}-{slug(prompt)}-seed{seed}.mp4"
                rows.append({"file": name, "prompt": prompt, "seed": seed})
                films.append(film)
                write_mp4(samples / rows[-1]["file"], upscale(film, inputs.upscale), fps)
    ctx.progress(len(inputs.seeds), len(inputs.seeds))
    _write_summary(samples, films, rows, inputs, size, fps)
    _log_previews(samples, ctx)
    log.info("event=sampled films=%d steps=%d guidance_scale=%g", len(films), inputs.num_steps, inputs.guidance_scale)
    return Outputs(samples_uri=Artifact("samples"), num_samples=len(films))


def film_size(inputs: Inputs, folder: Path) -> tuple[dict[str, Any], float]:
    """Frames, height and width of a film, and its frame rate; what is not given is as in training."""
    path = folder / "trained_on.json"
    if not path.is_file():
        raise InputError(
            f"evaluate.sample: no {path.name} in {inputs.model_uri}; pass the folder that pretrain.train wrote"
        )
    trained_on = json.loads(path.read_text())
    size = {name: getattr(inputs, name) or trained_on[name] for name in ("num_frames", "height_px", "width_px")}
    return size, float(trained_on["fps"])


def slug(prompt: str) -> str:
    """File name of a prompt: lower-case words joined by dashes, at most 60 characters."""
    return re.sub(r"[^a-z0-9]+", "-", prompt.lower()).strip("-")[:60].rstrip("-") or "empty"


def _film(pipeline: TelecinePipeline, inputs: Inputs, size: dict[str, Any], seed: int) -> np.ndarray:
    try:
        films: np.ndarray = pipeline(
            list(inputs.prompts),
            num_steps=inputs.num_steps,
            guidance_scale=inputs.guidance_scale,
            seed=seed,
            **size,
        )
    except ValueError as error:
        raise InputError(f"evaluate.sample: {error}") from error
    return films


def _write_summary(
    folder: Path, films: list[np.ndarray], rows: list[dict[str, Any]], inputs: Inputs, size: dict[str, int], fps: float
) -> None:
    labels = [f"{row['prompt']} (seed {row['seed']})" for row in rows]
    write_contact_sheet(folder / "contact_sheet.png", films, labels, factor=max(1, inputs.upscale // 2))
    document = {
        "films": rows,
        "fps": fps,
        "guidance_scale": inputs.guidance_scale,
        "lora_scale": inputs.lora_scale,
        "num_steps": inputs.num_steps,
        **size,
    }
    (folder / "samples.json").write_text(json.dumps(document, indent=1, sort_keys=True))


def _log_previews(folder: Path, ctx: Context) -> None:
    for path in sorted(folder.iterdir()):
        ctx.tracker.artifact(path, "samples")
