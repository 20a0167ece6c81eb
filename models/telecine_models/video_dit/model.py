"""The video DiT: a velocity field over videos, conditioned on text whose tokens join the video's sequence.

All conditions are tokens of one sequence under full self-attention (FullDiT, arXiv 2503.19907); there are no adapters.
Axes: B batch, C channels, F frames, H height, W width, L text tokens, S tokens (text then video), D width.
"""

import os
from typing import Any

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.embeddings import TimestepEmbedding, get_timestep_embedding
from diffusers.models.modeling_utils import ModelMixin
from jaxtyping import Bool, Float
from torch import Tensor, nn

from telecine_models.video_dit.block import Block
from telecine_models.video_dit.config import VideoDiTConfig
from telecine_models.video_dit.patches import grid_of, patchify, unpatchify
from telecine_models.video_dit.rope import grid_angles

_TIME_CHANNELS = 256
# Sinusoids were made for diffusion step numbers; flow time in 0..1 is stretched to their range.
_TIME_SCALE = 1000.0


class VideoDiT(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """Predicts the velocity of a noisy video. The arguments are the fields of :class:`VideoDiTConfig`.

    The output layers start at zero, and so does every block's gate: a fresh model predicts zero velocity.
    """

    @register_to_config
    def __init__(
        self,
        *,
        in_channels: int = 3,
        patch_size: tuple[int, int, int] | list[int] = (1, 4, 4),
        num_layers: int = 4,
        num_heads: int = 2,
        head_dim: int = 32,
        text_dim: int = 64,
    ) -> None:
        super().__init__()
        frames, rows, columns = patch_size
        size = VideoDiTConfig(
            in_channels=in_channels,
            patch_size=(frames, rows, columns),
            num_layers=num_layers,
            num_heads=num_heads,
            head_dim=head_dim,
            text_dim=text_dim,
        )
        self.size = size
        patch_channels = in_channels * frames * rows * columns
        self.patch_in = nn.Linear(patch_channels, size.width)
        self.text_in = nn.Linear(text_dim, size.width)
        self.time_in = TimestepEmbedding(_TIME_CHANNELS, size.width)
        self.time_modulation = nn.Linear(size.width, 6 * size.width)
        self.blocks = nn.ModuleList(Block(num_heads, head_dim) for _ in range(num_layers))
        self.norm_out = nn.LayerNorm(size.width, eps=1e-6, elementwise_affine=False)
        self.modulation_out = nn.Parameter(torch.zeros(2, size.width))
        self.patch_out = nn.Linear(size.width, patch_channels)
        # The velocity holds all the noise of a patch, which can be more numbers than the model is wide. This way around
        # the blocks, scaled by flow time, carries it: the skip of EDM (arXiv 2206.00364), learned.
        self.skip = nn.Linear(size.width, 1)
        self._initialise()

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | os.PathLike[Any] | None, **kwargs: Any) -> "VideoDiT":
        """Load a saved model whose outputs equal the saved one's to the bit.

        Weights mapped from a file are not aligned in memory as allocated ones are, and matrix products of unaligned
        operands round differently on a CPU; so the weights are copied.
        """
        model: VideoDiT = super().from_pretrained(pretrained_model_name_or_path, **kwargs)
        for parameter in model.parameters():
            parameter.data = parameter.data.clone()
        return model

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        for layer in (self.time_modulation, self.patch_out, self.skip):
            nn.init.zeros_(layer.weight)

    def forward(
        self,
        hidden_states: Float[Tensor, "B C F H W"],
        timestep: Float[Tensor, " B"],
        encoder_hidden_states: Float[Tensor, "B L text_dim"],
        encoder_attention_mask: Bool[Tensor, "B L"] | None = None,
    ) -> Float[Tensor, "B C F H W"]:
        """Velocity of ``hidden_states`` at flow time ``timestep`` (0 data, 1 noise).

        Args:
            encoder_attention_mask: which text tokens are real; the others change nothing. None means all of them.

        Raises:
            ValueError: a shape that does not fit the configuration or the other arguments.
        """
        self._check(hidden_states, timestep, encoder_hidden_states, encoder_attention_mask)
        patch_size = self.size.patch_size
        grid = grid_of(hidden_states, patch_size)
        video, text = self.patch_in(patchify(hidden_states, patch_size)), self.text_in(encoder_hidden_states)
        angles = grid_angles(grid, self.size.head_dim, hidden_states.device)
        # Text has its order from its encoder and no place in the video: its tokens are not rotated.
        angles = torch.cat((angles.new_zeros(text.shape[1], angles.shape[1]), angles))
        time = self._embed_time(timestep, video.dtype)
        active_time = nn.functional.silu(time)
        modulation = self.time_modulation(active_time).unflatten(1, (6, -1))
        key_mask = _key_mask(encoder_attention_mask, video.shape[1])
        x = torch.cat((text, video), dim=1)
        for block in self.blocks:
            x = block(x, modulation, angles, key_mask)
        shift, scale = (time[:, None] + self.modulation_out).unsqueeze(2).unbind(1)
        patches = self.patch_out(self.norm_out(x[:, text.shape[1] :]) * (1 + scale) + shift)
        skip: Tensor = self.skip(active_time)[:, :, None, None, None] * hidden_states
        return unpatchify(patches, grid, patch_size) + skip

    def _check(self, video: Tensor, timestep: Tensor, text: Tensor, text_mask: Tensor | None) -> None:
        channels, text_dim, batch = self.size.in_channels, self.size.text_dim, len(video)
        rules = [
            ("hidden_states", video, video.ndim == 5 and video.shape[1] == channels, f"[B, {channels}, F, H, W]"),
            ("timestep", timestep, timestep.shape == (batch,), f"[{batch}]"),
            (
                "encoder_hidden_states",
                text,
                text.ndim == 3 and text.shape == (batch, text.shape[1], text_dim),
                f"[{batch}, L, {text_dim}]",
            ),
        ]
        if text_mask is not None:
            shape = f"{list(text.shape[:2])}, as encoder_hidden_states is"
            rules.append(("encoder_attention_mask", text_mask, text_mask.shape == text.shape[:2], shape))
        for name, value, holds, shape in rules:
            if not holds:
                raise ValueError(f"VideoDiT: {name} must be shaped {shape}, got {list(value.shape)}")

    def _embed_time(self, timestep: Float[Tensor, " B"], dtype: torch.dtype) -> Float[Tensor, "B D"]:
        waves = get_timestep_embedding(timestep.to(torch.float32) * _TIME_SCALE, _TIME_CHANNELS, flip_sin_to_cos=True)
        embedded: Tensor = self.time_in(waves.to(dtype))
        return embedded


def _key_mask(text_mask: Bool[Tensor, "B L"] | None, num_video_tokens: int) -> Bool[Tensor, "B 1 1 S"] | None:
    """Every token may look at all video tokens and at real text tokens."""
    if text_mask is None:
        return None
    return nn.functional.pad(text_mask, (0, num_video_tokens), value=True)[:, None, None]
