"""Looks at the averaged weights while a training goes on: when they are due, and the films that are made of them."""

import logging
import math
from pathlib import Path

import numpy as np
import numpy.typing as npt
from torch import nn

from telecine import tracking
from telecine.context import Context
from telecine.errors import InputError
from telecine_components.media.encode import write_mp4
from telecine_components.media.sheet import enlarged, write_side_by_side
from telecine_components.pretrain.train.data import Splits
from telecine_components.pretrain.train.spec import Inputs
from telecine_components.training.randomness import torch_seed
from telecine_models.pipeline import TelecinePipeline
from telecine_models.video_dit.model import VideoDiT

log = logging.getLogger(__name__)

_FILM_STREAM = 5
# Few steps and little guidance: enough to see what the model has learned.
_NUM_STEPS, _GUIDANCE_SCALE = 12, 2.0
_SHOWN_PX = 256

Pixels = npt.NDArray[np.uint8]


def check(inputs: Inputs) -> None:
    """Raise :class:`InputError` where the best checkpoints are to stay and hardly any would be measured."""
    intervals = inputs.checkpoint_every_steps, inputs.eval_every_steps
    if inputs.keep_best and max(intervals) % min(intervals):
        raise InputError(
            f"pretrain.train: with keep_best, one of checkpoint_every_steps and eval_every_steps must be a multiple of "
            f"the other, so that checkpoints are measured, got {intervals[0]} and {intervals[1]}"
        )


def every_steps(inputs: Inputs) -> int:
    """How often one or the other look may be due."""
    return math.gcd(inputs.eval_every_steps, inputs.sample_every_steps)


def is_measured(inputs: Inputs, step: int) -> bool:
    """Whether the held-out loss is measured after ``step`` steps."""
    return step == inputs.num_steps or step % inputs.eval_every_steps == 0


def is_filmed(inputs: Inputs, step: int) -> bool:
    """Whether films are made after ``step`` steps."""
    every = inputs.sample_every_steps
    return every > 0 and (step == inputs.num_steps or step % every == 0)


class Films:
    """Films of the same prompts from the same noise, for MLflow; they draw from no random state of the training.

    Args:
        pipeline: whose encoders are used.
        splits: say of what size, and at what rate, a film is.
    """

    def __init__(self, inputs: Inputs, pipeline: TelecinePipeline, splits: Splits, ctx: Context) -> None:
        self._inputs, self._pipeline, self._splits, self._ctx = inputs, pipeline, splits, ctx

    def make(self, module: nn.Module, step: int) -> list[Pixels]:
        """One film uint8 [F, H, W, 3] for each prompt, also as mp4 and on a poster in MLflow's ``samples/step_<n>``."""
        films = list(self._filmed(module))
        folder = self._ctx.scratch / "films"
        folder.mkdir(exist_ok=True)
        factor = max(1, _SHOWN_PX // films[0].shape[1])
        for number, film in enumerate(films):
            write_mp4(folder / f"{number:02d}.mp4", enlarged(film, factor), self._splits.fps)
        rows = [(prompt, [film]) for prompt, film in zip(self._inputs.sample_prompts, films, strict=True)]
        write_side_by_side(folder / "poster.png", rows, factor=max(1, factor // 2))
        self._show(folder, step)
        return films

    def _filmed(self, module: nn.Module) -> Pixels:
        assert isinstance(module, VideoDiT)
        parts = {name: getattr(self._pipeline, name) for name in ("text_encoder", "vae", "action_control")}
        if parts["vae"] is not None:
            parts["vae"].to(module.device)
        pipeline = TelecinePipeline(transformer=module, **parts)
        pipeline.set_progress_bar_config(disable=True)
        num_frames, height_px, width_px = self._splits.shape
        films: Pixels = pipeline(
            list(self._inputs.sample_prompts),
            num_frames=num_frames,
            height_px=height_px,
            width_px=width_px,
            num_steps=_NUM_STEPS,
            guidance_scale=_GUIDANCE_SCALE,
            seed=torch_seed(self._inputs.seed, _FILM_STREAM),
        )
        return films

    def _show(self, folder: Path, step: int) -> None:
        """Hand the films to MLflow; that it is away stops no training, which only loses these pictures."""
        try:
            for path in sorted(folder.iterdir()):
                self._ctx.tracker.artifact(path, f"samples/step_{step}")
        except tracking.failures() as error:
            log.warning("event=films_not_shown step=%d error=%r", step, str(error))
        else:
            log.info("event=filmed step=%d films=%d", step, len(self._inputs.sample_prompts))
