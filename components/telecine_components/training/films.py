"""Films from a pipeline folder, for everybody who samples many: one size, fixed solver, reproducible bytes."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from telecine.errors import InputError
from telecine_components.training.pipelines import load_pipeline

Pixels = npt.NDArray[np.uint8]

TRAINED_ON = "trained_on.json"


class Camera:
    """A trained model that films at the size and rate it was trained at.

    Args:
        folder: pipeline folder that pretrain.train or align.tune wrote.
        num_steps: steps of the Euler solver.
        guidance_scale: classifier-free guidance; 1 is none.
        lora_scale: of a LoRA in the folder, as :func:`load_pipeline` takes it.
    """

    def __init__(self, folder: Path, *, num_steps: int, guidance_scale: float, lora_scale: float) -> None:
        path = folder / TRAINED_ON
        if not path.is_file():
            raise InputError(f"{folder}: no {TRAINED_ON} in it; pass the model folder that pretrain.train wrote")
        trained_on = json.loads(path.read_text())
        self.size: dict[str, Any] = {name: trained_on[name] for name in ("num_frames", "height_px", "width_px")}
        self.fps = float(trained_on["fps"])
        self._pipeline = load_pipeline(folder, lora_scale=lora_scale)
        self._num_steps, self._guidance_scale = num_steps, guidance_scale

    def film(self, prompts: Sequence[str], seed: int) -> Pixels:
        """One film per prompt, uint8 [prompts, F, H, W, 3], all from the noise of ``seed``."""
        films: Pixels = self._pipeline(
            list(prompts),
            num_steps=self._num_steps,
            guidance_scale=self._guidance_scale,
            seed=seed,
            **self.size,
        )
        return films
