"""From a prompt and whatever else is given to frames, in one call; a folder of safetensors on disk.

``TelecinePipeline.from_pretrained(folder)`` needs this module imported and nothing else: no network, no remote code.

Axes: B batch, C channels, F frames, H height, W width; f, h, w of latents; A actions, K keys.
"""

import contextlib
import dataclasses
import functools
import itertools
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from diffusers.models.modeling_utils import ModelMixin
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from jaxtyping import Float, UInt8
from torch import Tensor

from telecine_models.denoiser import evaluating
from telecine_models.pipeline_checks import (
    check_actions,
    check_inputs,
    check_parts,
    check_settings,
    check_size,
    check_windows,
)
from telecine_models.pipeline_inputs import Inputs, Picture, encode
from telecine_models.pixels import to_frames
from telecine_models.sampling import EVALUATIONS_PER_STEP, Denoise, Method, guide, sample_ode
from telecine_models.text import HashTextEncoder, TransformersTextEncoder
from telecine_models.vae import IdentityVAE, VideoVAE, as_video_vae
from telecine_models.video_dit.action import ActionControl, Actions
from telecine_models.video_dit.conditions import Conditions
from telecine_models.video_dit.model import HeardContext, Steer, VideoDiT
from telecine_models.video_dit.rollout import Rollout, actions_between, frame_times, keep_history, roll_out

OnEvaluation = Callable[[int, int], None]
"""Told before each evaluation of the model how many there have been, of how many; what it raises ends the call."""


@dataclasses.dataclass(frozen=True, eq=False)
class _Wanted:
    """What is asked of the model, whatever the noise."""

    prompts: list[str]
    conditions: Conditions
    metrics: Mapping[str, float]
    actions: Actions | None
    num_steps: int
    guidance_scale: float
    method: Method


class TelecinePipeline(DiffusionPipeline):
    """A video DiT, its text encoder and autoencoder, and the solver that turns noise into frames.

    =============== =============================================================================================
    text to video   a prompt
    image           ``num_frames=1``
    image to video  ``inputs`` with ``first_frame``, ``last_frame`` or both, which the video begins and ends with
    elements        ``inputs`` with ``elements``: pictures of what is to appear
    edit            ``inputs`` with ``source`` and ``source_mask``: swap, add (with ``elements``) or remove; outside
                    of the mask every pixel stays
    structure       ``inputs`` with ``depth``, ``sketch``, ``camera``, ``style``
    extend          ``extend``: the video begins with it and goes on to ``num_frames``, in windows
    play            ``actions``: one for each frame but the first, with ``extend`` for as long as one likes
    =============== =============================================================================================

    Args:
        vae: an autoencoder of :data:`telecine_models.vae.CAUSAL_VAES`, or None for a model of pixels.
        action_control: what a player's actions add, for a model that is steered.
    """

    _optional_components = ["vae", "action_control"]  # noqa: RUF012 - diffusers reads a list

    def __init__(
        self,
        transformer: VideoDiT,
        text_encoder: HashTextEncoder | TransformersTextEncoder,
        vae: ModelMixin | None = None,
        action_control: ActionControl | None = None,
    ) -> None:
        super().__init__()
        self.register_modules(
            transformer=transformer, text_encoder=text_encoder, vae=vae, action_control=action_control
        )
        check_parts(transformer.size, text_encoder, self.latents, action_control)
        # A mixture's other routes make a video depend on what else is in its batch.
        transformer.route("mask")

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | os.PathLike[Any], **kwargs: Any
    ) -> "TelecinePipeline":
        """Load the folder that ``save_pretrained`` wrote; weights in any format but safetensors are refused."""
        strict = {"use_safetensors": True, "local_files_only": True}
        return super().from_pretrained(pretrained_model_name_or_path, **(kwargs | strict))

    @functools.cached_property
    def latents(self) -> VideoVAE:
        """The way between pixels and latents."""
        return as_video_vae(IdentityVAE() if self.vae is None else self.vae)

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
        inputs: Inputs | None = None,
        metrics: Mapping[str, float] | None = None,
        actions: Actions | None = None,
        extend: Picture | None = None,
        window_frames: int | None = None,
        on_evaluation: OnEvaluation | None = None,
    ) -> UInt8[np.ndarray, "batch frames height width 3"]:
        """Sample one video per prompt; what is given beside it says which ability is asked for.

        The noise depends on the seed and the size alone: a video does not change with the other prompts of its batch.
        Guidance strengthens the prompt; everything else that is given holds with and without it. The bar counts
        evaluations of the model; ``set_progress_bar_config(disable=True)`` silences it.

        Args:
            metrics: scores in [0, 1] that the model is told; by default the best of each that it knows.
            extend: uint8 [f, H, W, 3] fewer frames than ``num_frames``; a model that goes on has learned to.
            window_frames: frames that are made at once when extending, those that are known included; by default all.

        Raises:
            ValueError: no prompt, a size that does not fit the model, an input that does not fit the video or that
                the model does not know, or a setting out of range.
        """
        prompts = [prompt] if isinstance(prompt, str) else prompt
        inputs = inputs or Inputs()
        size = (num_frames, height_px, width_px)
        config, compression = self.transformer.size, self.latents.compression
        check_settings(prompts, num_steps, guidance_scale, method, metrics, config.metrics)
        check_size(size, config, compression)
        check_inputs(inputs, size, config, compression)
        check_actions(actions, num_frames, config, self.action_control)
        check_windows(extend, window_frames, inputs, size, config, compression)
        metrics = dict.fromkeys(config.metrics, 1.0) if metrics is None else metrics
        conditions = inputs.conditions(self.latents, len(prompts), self.transformer.device, self.transformer.dtype)
        wanted = _Wanted(prompts, conditions, metrics, actions, num_steps, guidance_scale, method)
        noise = self._noise(compression.latent_size(*size), seed).expand(len(prompts), -1, -1, -1, -1)
        with evaluating(self.transformer):
            latents = self._roll_out(wanted, noise, extend, window_frames, on_evaluation)
        video = to_frames(self.latents.decode(latents)).cpu().numpy()
        return _keep_what_was_given(video, inputs, extend)

    def _roll_out(
        self,
        wanted: _Wanted,
        noise: Tensor,
        extend: Picture | None,
        window_frames: int | None,
        on_evaluation: OnEvaluation | None,
    ) -> Tensor:
        """Latents that begin with those of ``extend`` and go on, window by window, to the length of the noise."""
        num_frames, known = noise.shape[2], noise[:, :, :0]
        if extend is not None:
            known = encode(self.latents, extend, noise.device).to(noise.dtype).expand(len(noise), -1, -1, -1, -1)
        side = self.latents.compression
        window = num_frames if window_frames is None else side.latent_size(window_frames, side.height, side.width)[0]
        rollout = _rollout(known.shape[2], num_frames, window, self.transformer.size.patch_size[0])
        num_windows, per_step = len(rollout.windows(known.shape[2], num_frames)), EVALUATIONS_PER_STEP[wanted.method]
        with self._counted(num_windows * wanted.num_steps * per_step, on_evaluation) as count:

            def generate(frames: range, history: Tensor) -> Tensor:
                denoise = self._guided(wanted, frames, history, count)
                made = sample_ode(denoise, noise[:, :, frames.start : frames.stop], wanted.num_steps, wanted.method)
                return made[:, :, history.shape[2] :]

            return roll_out(generate, known, rollout, num_frames)

    def _guided(self, wanted: _Wanted, frames: range, history: Tensor, count: Callable[[], None]) -> Denoise:
        """Velocity of the latent frames of a window that follows its history."""
        shape = history.new_empty(len(history), history.shape[1], len(frames), *history.shape[3:])
        heard: Conditions | HeardContext = wanted.conditions
        if self.transformer.size.decoupled_context and any(wanted.conditions.given()):
            heard = self.transformer.listen(wanted.conditions, shape)
        with_prompt = guided = self._denoiser(wanted, wanted.prompts, heard, frames, history)
        if wanted.guidance_scale != 1:
            without = self._denoiser(wanted, [""] * len(wanted.prompts), heard, frames, history)
            guided = guide(with_prompt, without, wanted.guidance_scale)

        def denoise(x: Tensor, t: Tensor) -> Tensor:
            count()
            return guided(x, t)

        return denoise

    def _denoiser(
        self,
        wanted: _Wanted,
        prompts: list[str],
        heard: Conditions | HeardContext,
        frames: range,
        history: Tensor,
    ) -> Denoise:
        transformer: VideoDiT = self.transformer
        dtype, device = transformer.dtype, transformer.device
        tokens, mask = (part.to(device) for part in self.text_encoder.encode(prompts))
        metrics = {name: torch.full((len(prompts),), value, device=device) for name, value in wanted.metrics.items()}
        steer = self._steer(wanted.actions, frames, len(prompts))

        def denoise(x: Tensor, t: Tensor) -> Tensor:
            times = frame_times(t, len(frames), history.shape[2]) if history.shape[2] else t
            x = keep_history(x.to(dtype), history.to(dtype))
            velocity = transformer(x, times, tokens.to(dtype), mask, conditions=heard, metrics=metrics, steer=steer)
            assert isinstance(velocity, Tensor)
            return velocity

        return denoise

    def _steer(self, actions: Actions | None, frames: range, batch: int) -> Steer | None:
        """What the actions that lead through a window add."""
        if actions is None:
            return None
        part, device = actions_between(actions, frames, self.latents.compression.frames), self.transformer.device
        each = Actions(
            keys=part.keys.to(device).expand(batch, -1, -1),
            mouse=part.mouse.to(device).expand(batch, -1, -1),
            known=None if part.known is None else part.known.to(device).expand(batch, -1),
        )
        control: ActionControl = self.action_control
        return control.steering(each, len(frames))

    @contextlib.contextmanager
    def _counted(self, total: int, on_evaluation: OnEvaluation | None) -> Iterator[Callable[[], None]]:
        """A bar in the terminal, and word to whoever asked, before each evaluation."""
        with self.progress_bar(total=total) as bar:
            done = itertools.count()

            def count() -> None:
                if on_evaluation is not None:
                    on_evaluation(next(done), total)
                bar.update()

            yield count

    def _noise(self, shape: tuple[int, int, int], seed: int) -> Float[Tensor, "1 C f h w"]:
        # Drawn on the CPU, because devices number their random streams differently.
        generator = torch.Generator().manual_seed(seed)
        noise = torch.randn(1, self.transformer.config.in_channels, *shape, generator=generator)
        return noise.to(self.transformer.device)


def _rollout(num_known: int, num_frames: int, window: int, patch_frames: int) -> Rollout:
    """How the latent frames that are missing are made: in windows, at most half of each known, in whole patches."""
    half = max(patch_frames, window // 2 // patch_frames * patch_frames)
    return Rollout(window_frames=max(2, window), history_frames=max(1, min(num_known, half)))


def _keep_what_was_given(video: npt.NDArray[np.uint8], inputs: Inputs, extend: Picture | None) -> npt.NDArray[np.uint8]:
    """The frames with the very pixels that were to stay, which a decoder gives back only nearly."""
    if inputs.source is not None and inputs.source_mask is not None:
        video = np.where(inputs.source_mask[..., None], video, inputs.source)
    if inputs.first_frame is not None:
        video[:, 0] = inputs.first_frame
    if inputs.last_frame is not None:
        video[:, -1] = inputs.last_frame
    if extend is not None:
        video[:, : len(extend)] = extend
    return video
