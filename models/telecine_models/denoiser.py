"""What training and sampling ask of a model: the velocity of noisy latents at a flow time, given text.

Our video DiT is one as it is; open models in diffusers' format become one by :func:`as_denoiser`.
Axes: B batch, C channels, F frames, H height, W width, L text tokens.
"""

import contextlib
import os
from collections.abc import Iterator
from typing import Any, Protocol, cast, runtime_checkable

from diffusers.models.transformers.transformer_wan import WanTransformer3DModel
from jaxtyping import Bool, Float
from torch import Tensor, nn

from telecine_models.video_dit.action import ActionControl, Actions
from telecine_models.video_dit.conditions import Conditions
from telecine_models.video_dit.model import VideoDiT

_NUM_TRAIN_STEPS = 1000.0


@runtime_checkable
class Denoiser(Protocol):
    """A velocity field: t=0 is data, t=1 is noise, v = noise - x_0."""

    def __call__(
        self,
        hidden_states: Float[Tensor, "B C F H W"],
        timestep: Float[Tensor, " B"],
        encoder_hidden_states: Float[Tensor, "B L text_dim"],
        encoder_attention_mask: Bool[Tensor, "B L"] | None = None,
    ) -> Float[Tensor, "B C F H W"]:
        """Velocity of ``hidden_states`` at flow time ``timestep``."""
        ...


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """The model as it is in evaluation for the block, also in the middle of its training: experts route otherwise."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


class SteeredDenoiser(nn.Module):
    """A video DiT with the action module that steers it, as one model; without actions it is the DiT alone."""

    def __init__(self, transformer: VideoDiT, control: ActionControl) -> None:
        super().__init__()
        self.transformer, self.control = transformer, control

    def forward(
        self,
        hidden_states: Float[Tensor, "B C F H W"],
        timestep: Float[Tensor, " B"],
        encoder_hidden_states: Float[Tensor, "B L text_dim"],
        encoder_attention_mask: Bool[Tensor, "B L"] | None = None,
        *,
        conditions: Conditions | None = None,
        actions: Actions | None = None,
    ) -> Float[Tensor, "B C F H W"]:
        """See :class:`Denoiser`; raises a ValueError for actions that do not fit the frames."""
        steer = None if actions is None else self.control.steering(actions, hidden_states.shape[2])
        velocity: Tensor = self.transformer(
            hidden_states,
            timestep,
            encoder_hidden_states,
            encoder_attention_mask,
            conditions=conditions,
            steer=steer,
        )
        return velocity


class WanDenoiser(nn.Module):
    """Wan 2.1's transformer (arXiv 2503.20314) as diffusers has it.

    It predicts the same velocity; it counts flow time in thousandths, and has no text mask: tokens that are not real
    are zeros, as it was trained with.
    """

    def __init__(self, transformer: WanTransformer3DModel) -> None:
        super().__init__()
        self.transformer = transformer

    def forward(
        self,
        hidden_states: Float[Tensor, "B C F H W"],
        timestep: Float[Tensor, " B"],
        encoder_hidden_states: Float[Tensor, "B L text_dim"],
        encoder_attention_mask: Bool[Tensor, "B L"] | None = None,
    ) -> Float[Tensor, "B C F H W"]:
        """See :class:`Denoiser`."""
        text = encoder_hidden_states
        if encoder_attention_mask is not None:
            text = text * encoder_attention_mask[..., None]
        velocity: Tensor = self.transformer(hidden_states, timestep * _NUM_TRAIN_STEPS, text, return_dict=False)[0]
        return velocity


def as_denoiser(model: nn.Module) -> Denoiser:
    """A model that follows the protocol, around one that may not.

    Raises:
        ValueError: a kind of model that nobody has taught the protocol.
    """
    if isinstance(model, WanTransformer3DModel):
        return WanDenoiser(model)
    if isinstance(model, VideoDiT):
        return cast(Denoiser, model)
    raise ValueError(f"as_denoiser: model must be a VideoDiT or a WanTransformer3DModel, got {type(model).__name__}")


def load_wan(folder: str | os.PathLike[Any], **kwargs: Any) -> WanDenoiser:
    """The transformer of a Wan model from a folder of safetensors."""
    return WanDenoiser(
        WanTransformer3DModel.from_pretrained(folder, use_safetensors=True, local_files_only=True, **kwargs)
    )
