"""Text to video in one call; a folder of safetensors on disk.

``TelecinePipeline.from_pretrained(folder)`` needs this module imported and nothing else: no network, no remote code.
"""

import math
import os
from typing import Any

import numpy as np
import torch
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from jaxtyping import UInt8
from torch import Tensor

from telecine_models.pixels import to_frames
from telecine_models.sampling import EVALUATIONS_PER_STEP, Denoise, Method, guide, sample_ode
from telecine_models.text import HashTextEncoder
from telecine_models.video_dit.model import VideoDiT


class TelecinePipeline(DiffusionPipeline):
    """A video DiT over pixels, its text encoder, and the solver that turns noise into frames."""

    def __init__(self, transformer: VideoDiT, text_encoder: HashTextEncoder) -> None:
        super().__init__()
        self.register_modules(transformer=transformer, text_encoder=text_encoder)

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | os.PathLike[Any], **kwargs: Any
    ) -> "TelecinePipeline":
        """Load the folder that ``save_pretrained`` wrote; weights in any format but safetensors are refused."""
        return super().from_pretrained(pretrained_model_name_or_path, use_safetensors=True, **kwargs)

    @torch.no_grad()
    def __call__(
        self,
        prompt: str | list[str],
        *,
        num_frames: int,
        height_px: int,
        width_px: int,
        num_steps: int = 20,
        guidance_scale: float = 3.0,
        seed: int = 0,
        method: Method = "euler",
    ) -> UInt8[np.ndarray, "batch frames height width 3"]:
        """Sample one video per prompt.

        The noise depends on the seed and the size alone: a video does not change with the other prompts of its batch.
        The bar counts evaluations of the model; ``set_progress_bar_config(disable=True)`` silences it.

        Raises:
            ValueError: no prompt, a size that is no multiple of the model's patch, or a setting out of range.
        """
        prompts = [prompt] if isinstance(prompt, str) else prompt
        self._check(prompts, (num_frames, height_px, width_px), num_steps, guidance_scale)
        noise = self._noise((num_frames, height_px, width_px), seed).expand(len(prompts), -1, -1, -1, -1)
        if method not in EVALUATIONS_PER_STEP:
            raise ValueError(f"TelecinePipeline: method must be one of {sorted(EVALUATIONS_PER_STEP)}, got {method!r}")
        conditional = self._denoiser(prompts)
        unconditional = self._denoiser([""] * len(prompts))
        with self.progress_bar(total=num_steps * EVALUATIONS_PER_STEP[method]) as bar:

            def denoise(x: Tensor, t: Tensor) -> Tensor:
                bar.update()
                return guided(x, t)

            guided = guide(conditional, unconditional, guidance_scale)
            video = sample_ode(denoise, noise, num_steps, method)
        return to_frames(video).cpu().numpy()

    def _denoiser(self, captions: list[str]) -> Denoise:
        tokens, mask = self.text_encoder.encode(captions)
        dtype, device = self.transformer.dtype, self.transformer.device

        def denoise(x: Tensor, t: Tensor) -> Tensor:
            velocity: Tensor = self.transformer(x.to(dtype), t, tokens.to(device, dtype), mask.to(device))
            return velocity

        return denoise

    def _noise(self, size: tuple[int, int, int], seed: int) -> Tensor:
        # Drawn on the CPU, because devices number their random streams differently.
        generator = torch.Generator().manual_seed(seed)
        noise = torch.randn(1, self.transformer.config.in_channels, *size, generator=generator)
        return noise.to(self.transformer.device)

    def _check(self, prompts: list[str], size: tuple[int, int, int], num_steps: int, guidance_scale: float) -> None:
        if not prompts:
            raise ValueError("TelecinePipeline: prompt must hold at least one caption, got an empty list")
        names = ("num_frames", "height_px", "width_px")
        for name, value, patch in zip(names, size, self.transformer.config.patch_size, strict=True):
            if value < 1 or value % patch:
                raise ValueError(
                    f"TelecinePipeline: {name} must be a positive multiple of {patch} (the model's patch), got {value}"
                )
        if num_steps < 1:
            raise ValueError(f"TelecinePipeline: num_steps must be at least 1, got {num_steps}")
        if not (math.isfinite(guidance_scale) and guidance_scale >= 0):
            raise ValueError(f"TelecinePipeline: guidance_scale must be finite and at least 0, got {guidance_scale}")
