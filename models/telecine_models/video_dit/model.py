"""The video DiT: a velocity field over videos, conditioned on text whose tokens join the video's sequence.

All conditions are tokens of one sequence under full self-attention (FullDiT, arXiv 2503.19907); there are no adapters.
Axes: B batch, C channels, F frames, H height, W width, L text tokens, S tokens (text then video), M context tokens,
D width.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.embeddings import TimestepEmbedding, get_timestep_embedding
from diffusers.models.modeling_utils import ModelMixin
from jaxtyping import Bool, Float
from torch import Tensor, nn

from telecine_models.local import FromFolder
from telecine_models.moe.choices import ExpertChoice, TokenChoice
from telecine_models.moe.diffmoe import DiffMoE, Route
from telecine_models.moe.routing import Routing
from telecine_models.video_dit.block import Block, Context, Heard
from telecine_models.video_dit.conditions import ConditionEmbedder, Conditions, check
from telecine_models.video_dit.config import VideoDiTConfig
from telecine_models.video_dit.modulation import modulated
from telecine_models.video_dit.packing import pack_of
from telecine_models.video_dit.patches import Triple, grid_of, patchify, unpatchify
from telecine_models.video_dit.rope import angles_of, grid_angles, turn_of
from telecine_models.video_dit.sharing import Share, Sharing

_TIME_CHANNELS = 256
# Sinusoids were made for diffusion step numbers; flow time and metrics in 0..1 are stretched to their range.
_TIME_SCALE = 1000.0

# Experts have the shape of the dense feed-forward, so that capacity 1 costs what a dense block costs.
_MIXTURES: dict[str, Callable[[int, int], nn.Module]] = {
    "diffmoe": functools.partial(DiffMoE, activation="swiglu"),
    "token_choice": functools.partial(TokenChoice, activation="swiglu"),
    "expert_choice": functools.partial(ExpertChoice, activation="swiglu"),
}
Steer = Callable[[Float[Tensor, "B F P D"], int], Float[Tensor, "B F P D"]]
"""What is added to the video's tokens [B, frames, tokens of a frame, D] after a block, counted from 0."""


@dataclasses.dataclass(frozen=True, eq=False)
class HeardContext:
    """What conditions say in each block, computed once for all steps of a sampler; see :meth:`VideoDiT.listen`."""

    blocks: tuple[Heard | None, ...]
    batch: int
    video: Triple


class VideoDiT(FromFolder, ModelMixin, ConfigMixin):  # type: ignore[misc]
    """Predicts the velocity of a noisy video. The arguments are the fields of :class:`VideoDiTConfig`.

    The output layers start at zero, and so does every block's gate: a fresh model predicts zero velocity.

    Attributes:
        sharing: how ranks that are given the same samples share the work of the blocks; None where one does it all.
    """

    _supports_gradient_checkpointing = True

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
        conditions: tuple[str, ...] | list[str] = (),
        metrics: tuple[str, ...] | list[str] = (),
        num_experts: int = 0,
        mixture: str = "diffmoe",
        decoupled_context: bool = False,
        context_keep_ratio: float = 1.0,
        context_blocks: tuple[int, ...] | list[int] = (),
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
            conditions=tuple(conditions),
            metrics=tuple(metrics),
            num_experts=num_experts,
            mixture=mixture,
            decoupled_context=decoupled_context,
            context_keep_ratio=context_keep_ratio,
            context_blocks=tuple(context_blocks),
        )
        self.size = size
        self.gradient_checkpointing = False
        self.sharing: Sharing | None = None
        patch_channels = in_channels * frames * rows * columns
        self.patch_in = nn.Linear(patch_channels, size.width)
        self.text_in = nn.Linear(text_dim, size.width)
        self.time_in = TimestepEmbedding(_TIME_CHANNELS, size.width)
        self.time_modulation = nn.Linear(size.width, 6 * size.width)
        self.blocks = nn.ModuleList(_block(size, index) for index in range(num_layers))
        self.norm_out = nn.LayerNorm(size.width, eps=1e-6, elementwise_affine=False)
        self.modulation_out = nn.Parameter(torch.zeros(2, size.width))
        self.patch_out = nn.Linear(size.width, patch_channels)
        # The velocity holds all the noise of a patch, which can be more numbers than the model is wide. This way around
        # the blocks, scaled by flow time, carries it: the skip of EDM (arXiv 2206.00364), learned.
        self.skip = nn.Linear(size.width, 1)
        self.conditions_in = ConditionEmbedder(size) if size.conditions else None
        self.metrics_in = nn.ModuleDict({name: TimestepEmbedding(_TIME_CHANNELS, size.width) for name in size.metrics})
        self._initialise()

    @property
    def mixtures(self) -> list[DiffMoE]:
        """The DiffMoE layers, in the order of the routings that :meth:`forward` returns."""
        return [module for module in self.modules() if isinstance(module, DiffMoE)]

    def route(self, route: Route) -> None:
        """Say how DiffMoE layers route in evaluation, ``mask`` for serving; see :class:`DiffMoE`."""
        for layer in self.mixtures:
            layer.routing = route

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        for layer in (self.time_modulation, self.patch_out, self.skip):
            nn.init.zeros_(layer.weight)
        for embedding in self.metrics_in.values():
            assert isinstance(embedding, TimestepEmbedding)
            nn.init.zeros_(embedding.linear_2.weight)

    def forward(
        self,
        hidden_states: Float[Tensor, "B C F H W"],
        timestep: Float[Tensor, " B"] | Float[Tensor, "B F"],
        encoder_hidden_states: Float[Tensor, "B L text_dim"],
        encoder_attention_mask: Bool[Tensor, "B L"] | None = None,
        *,
        conditions: Conditions | HeardContext | None = None,
        metrics: Mapping[str, Float[Tensor, " B"]] | None = None,
        steer: Steer | None = None,
        return_routings: bool = False,
    ) -> Float[Tensor, "B C F H W"] | tuple[Float[Tensor, "B C F H W"], list[Routing]]:
        """Velocity of ``hidden_states`` at flow time ``timestep`` (0 data, 1 noise).

        Args:
            timestep: one flow time for each sample, or [B, F] one for each frame, as a video has that goes on from
                clean frames.
            encoder_attention_mask: which text tokens are real; the others change nothing. None means all of them.
            conditions: what else the video is to follow, or what :meth:`listen` made of it.
            metrics: scores in [0, 1] of each sample; those that are left out are not told.
            steer: what the actions of a player add, :meth:`telecine_models.video_dit.action.ActionControl.steering`.
            return_routings: also return what each mixture of experts did: losses to be added to the training's, and
                what :func:`telecine_models.moe.thresholds.update_thresholds` takes after each optimizer step.

        Raises:
            ValueError: a shape, condition or metric that does not fit the configuration or the other arguments.
        """
        self._check(hidden_states, timestep, encoder_hidden_states, encoder_attention_mask)
        patch_size = self.size.patch_size
        grid = grid_of(hidden_states, patch_size)
        video, text = self.patch_in(patchify(hidden_states, patch_size)), self.text_in(encoder_hidden_states)
        num_text = text.shape[1]
        angles = grid_angles(grid, self.size.head_dim, hidden_states.device)
        # Text has its order from its encoder and no place in the video: its tokens are not rotated.
        angles = torch.cat((angles.new_zeros(num_text, angles.shape[1]), angles))
        time = self._embed_time(_token_times(timestep, grid, patch_size[0]), video.dtype, metrics or {})
        active_time = nn.functional.silu(time)
        modulation = self.time_modulation(active_time).unflatten(2, (6, -1)).transpose(1, 2)
        real = None if encoder_attention_mask is None else _pad_real(encoder_attention_mask, video.shape[1])
        x, routings = self._blocks(
            torch.cat((text, video), dim=1),
            _each_token(modulation, num_text, grid),
            angles,
            real,
            self._context(conditions, hidden_states),
            None if steer is None else functools.partial(_steered, steer, num_text, grid),
        )
        shift, scale = (_each_token(time[:, None], 0, grid) + self.modulation_out[:, None]).unbind(1)
        patches = self.patch_out(modulated(self.norm_out, x[:, num_text:], shift, scale))
        velocity = unpatchify(patches, grid, patch_size) + self._skip(active_time, patch_size[0]) * hidden_states
        return (velocity, routings) if return_routings else velocity

    def forward_packed(
        self,
        hidden_states: Sequence[Float[Tensor, "_ C _ _ _"]],
        timestep: Sequence[Float[Tensor, " _"]],
        encoder_hidden_states: Sequence[Float[Tensor, "_ _ text_dim"]],
        encoder_attention_mask: Sequence[Bool[Tensor, "_ _"]],
    ) -> tuple[list[Tensor], list[Routing]]:
        """As :meth:`forward` for batches of several shapes in one pass, without padding; each argument has one each.

        All tokens of all samples follow each other in one sequence: linear layers, norms and feed-forwards take it as
        one, attention takes each sample by itself, and text that is not real is left out. Velocities and gradients are
        those of separate passes up to rounding. A DiffMoE layer's pool, and a token choice's evenness, is that of all
        batches together, as if they were one.

        Returns:
            velocities, shaped as ``hidden_states``, and the routings of the mixtures.

        Raises:
            ValueError: as :meth:`forward`, no batch, a timestep a frame, or experts that choose within a sample.
        """
        batches = list(zip(hidden_states, timestep, encoder_hidden_states, encoder_attention_mask, strict=True))
        self._check_packed(batches)
        patch_size = self.size.patch_size
        pack = pack_of([(video, mask) for video, _, _, mask in batches], patch_size)
        video = self.patch_in(torch.cat([patchify(each, patch_size).flatten(0, 1) for each in hidden_states]))
        text = self.text_in(torch.cat([each[mask] for _, _, each, mask in batches]))
        time = self._embed_time(torch.cat(list(timestep))[:, None], video.dtype, {})
        active_time = nn.functional.silu(time)
        modulation = self.time_modulation(active_time[:, 0]).unflatten(1, (6, -1)).transpose(0, 1)
        angles = pack.angles(self.size.head_dim, video.device)
        x, routings = self._blocks(
            pack.joined(text, video)[None], modulation[None], angles, None, None, None, pack.lengths
        )
        shift, scale = (time + self.modulation_out).unbind(1)
        films = pack.films(x[0])[None]
        patches = self.patch_out(modulated(self.norm_out, films, shift[None], scale[None], pack.videos))[0]
        around = self._skip(active_time, patch_size[0]).split(pack.counts)
        parts = zip(pack.parted(patches), pack.grids, around, hidden_states, strict=True)
        return [unpatchify(part, grid, patch_size) + ratio * noisy for part, grid, ratio, noisy in parts], routings

    def _check_packed(self, batches: Sequence[tuple[Tensor, Tensor, Tensor, Tensor]]) -> None:
        for batch in batches:
            self._check(*batch)
        if any(len(timestep.shape) != 1 for _, timestep, _, _ in batches):
            raise ValueError("VideoDiT.forward_packed: timestep must be one for each sample, got one for each frame")
        if self.size.num_experts and self.size.mixture == "expert_choice":
            raise ValueError("VideoDiT.forward_packed: mixture must not be 'expert_choice', which looks at one sample")

    def listen(self, conditions: Conditions, hidden_states: Float[Tensor, "B C F H W"]) -> HeardContext:
        """What conditions say to videos shaped like ``hidden_states``, whatever their noise, time and text.

        Raises:
            ValueError: the model's context is not decoupled, so that it depends on the noise.
        """
        if not self.size.decoupled_context:
            raise ValueError("VideoDiT.listen: the model's decoupled_context must be True, got False")
        context = self._context(conditions, hidden_states)
        blocks: list[Heard | None] = []
        for index, block in enumerate(self.blocks):
            assert isinstance(block, Block)
            heard = None
            if isinstance(context, Context) and self.size.has_context(index):
                context, heard = block.listen(context)
            blocks.append(heard)
        return HeardContext(tuple(blocks), len(hidden_states), _size(hidden_states))

    def _blocks(
        self,
        x: Tensor,
        modulation: Tensor,
        angles: Tensor,
        real: Tensor | None,
        heard: Context | HeardContext | None,
        steered: Callable[[Tensor, int], Tensor] | None,
        lengths: Sequence[int] | None = None,
    ) -> tuple[Tensor, list[Routing]]:
        routings: list[Routing] = []
        share = None
        if self.sharing is not None:
            share = self._share(self.sharing, x, heard, steered)
            x, angles = share.mine(x, 1), share.mine(angles, 0)
            modulation = share.mine(modulation, 2) if lengths is None and modulation.shape[2] > 1 else modulation
        turn = turn_of(angles)
        for index, block in enumerate(self.blocks):
            told = heard.blocks[index] if isinstance(heard, HeardContext) else heard
            takes_part = told if self.size.has_context(index) else None
            x, after, routing = self._run(block, x, modulation, turn, real, takes_part, lengths, share)
            x = x if steered is None else steered(x, index)
            if isinstance(after, Context):
                heard = after
            routings += routing
        return x if share is None else share.whole(x), routings

    def _share(self, sharing: Sharing, x: Tensor, *others: object) -> Share:
        """This rank's share of the tokens."""
        if self.size.num_experts or any(other is not None for other in others):
            raise ValueError("VideoDiT: ranks share text and video alone, not experts, conditions or actions")
        return Share(sharing, x.shape[1])

    def _skip(self, active_time: Tensor, patch_frames: int) -> Tensor:
        """How much of the noisy video is in its velocity, the same for all frames or for each."""
        ratio: Tensor = self.skip(active_time)[..., None, None]
        return ratio if ratio.shape[1] == 1 else ratio[:, 1:].repeat_interleave(patch_frames, dim=1).transpose(1, 2)

    def _run(self, block: nn.Module, *arguments: Any) -> tuple[Tensor, Any, list[Routing]]:
        again = self._gradient_checkpointing_func
        if again is None or not (torch.is_grad_enabled() and self.gradient_checkpointing):
            once: tuple[Tensor, Any, list[Routing]] = block(*arguments)
            return once
        recomputed: tuple[Tensor, Any, list[Routing]] = again(block, *arguments)
        return recomputed

    def _context(
        self, conditions: Conditions | HeardContext | None, video: Float[Tensor, "B C F H W"]
    ) -> Context | HeardContext | None:
        """Condition tokens with their positions, modulated as clean data is: at flow time zero."""
        if isinstance(conditions, HeardContext):
            heard, seen = (conditions.batch, *conditions.video), (len(video), *_size(video))
            if heard != seen:
                raise ValueError(f"VideoDiT: conditions were heard for [B, F, H, W] of {list(heard)}, got {list(seen)}")
            return conditions
        if conditions is None:
            return None
        check(conditions, self.size, _size(video), len(video))
        if self.conditions_in is None or not any(conditions.given()):
            return None
        tokens, positions, real = self.conditions_in(conditions, _size(video))
        clean = self._embed_time(video.new_zeros((len(video), 1), dtype=torch.float32), tokens.dtype, {})
        time = self.time_modulation(nn.functional.silu(clean)).unflatten(2, (6, -1)).transpose(1, 2)
        return Context(tokens, turn_of(angles_of(positions, self.size.head_dim)), real, time)

    def _check(self, video: Tensor, timestep: Tensor, text: Tensor, text_mask: Tensor | None) -> None:
        channels, text_dim, batch = self.size.in_channels, self.size.text_dim, len(video)
        rules = [
            ("hidden_states", video, video.ndim == 5 and video.shape[1] == channels, f"[B, {channels}, F, H, W]"),
            (
                "timestep",
                timestep,
                timestep.shape in ((batch,), (batch, video.shape[2])),
                f"[{batch}] or [{batch}, F], F as in hidden_states",
            ),
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
            if text_mask.dtype != torch.bool:
                raise ValueError(f"VideoDiT: encoder_attention_mask must be of torch.bool, got {text_mask.dtype}")
        for name, value, holds, shape in rules:
            if not holds:
                raise ValueError(f"VideoDiT: {name} must be shaped {shape}, got {list(value.shape)}")

    def _embed_time(
        self, times: Float[Tensor, "B T"], dtype: torch.dtype, metrics: Mapping[str, Float[Tensor, " B"]]
    ) -> Float[Tensor, "B T D"]:
        """Flow times, and the scores beside them as Koala-36M has them (arXiv 2410.08260)."""
        embedded: Tensor = self.time_in(_waves(times.flatten()).to(dtype)).unflatten(0, times.shape)
        for name, value in metrics.items():
            if name not in self.metrics_in or value.shape != times.shape[:1]:
                known = f"{list(self.metrics_in)}, each shaped {list(times.shape[:1])}"
                raise ValueError(f"VideoDiT: metrics must be of {known}, got {name} {list(value.shape)}")
            embedded = embedded + self.metrics_in[name](_waves(value).to(dtype))[:, None]
        return embedded


def _block(size: VideoDiTConfig, index: int) -> Block:
    keep = size.context_keep_ratio if size.conditions and size.has_context(index) else 1.0
    mixture = _MIXTURES[size.mixture](size.width, size.num_experts) if size.has_experts(index) else None
    return Block(size.num_heads, size.head_dim, mixture=mixture, decoupled=size.decoupled_context, keep_ratio=keep)


def _token_times(
    timestep: Float[Tensor, " B"] | Float[Tensor, "B F"], grid: Triple, patch_frames: int
) -> Float[Tensor, "B T"]:
    """The different flow times of a sample: one, or first that of the text and then that of each frame of tokens.

    Text belongs to what is being made, so that it has the latest time of all.
    """
    if timestep.ndim == 1:
        return timestep[:, None]
    frames = timestep.unflatten(1, (grid[0], patch_frames))
    if patch_frames > 1 and not torch.equal(frames.amin(2), frames.amax(2)):
        raise ValueError(f"VideoDiT: timestep must be the same in all {patch_frames} frames of a patch")
    return torch.cat((timestep.amax(1, keepdim=True), frames[..., 0]), dim=1)


def _each_token(values: Float[Tensor, "B G T D"], num_text: int, grid: Triple) -> Float[Tensor, "B G S D"]:
    """Values of :func:`_token_times` spread over the tokens they hold for; one that holds for all stays one."""
    if values.shape[2] == 1:
        return values
    text = values[:, :, :1].expand(-1, -1, num_text, -1)
    return torch.cat((text, values[:, :, 1:].repeat_interleave(grid[1] * grid[2], dim=2)), dim=2)


def _steered(steer: "Steer", num_text: int, grid: Triple, x: Tensor, block: int) -> Tensor:
    """The stream with what actions add to its video tokens, frame by frame."""
    text, video = x[:, :num_text], x[:, num_text:]
    return torch.cat((text, video + steer(video.unflatten(1, (grid[0], -1)), block).flatten(1, 2)), dim=1)


def _waves(values: Float[Tensor, " B"]) -> Float[Tensor, "B waves"]:
    waves: Tensor = get_timestep_embedding(values.to(torch.float32) * _TIME_SCALE, _TIME_CHANNELS, flip_sin_to_cos=True)
    return waves


def _size(video: Float[Tensor, "B C F H W"]) -> Triple:
    frames, height, width = video.shape[2:]
    return frames, height, width


def _pad_real(text_mask: Bool[Tensor, "B L"], num_video_tokens: int) -> Bool[Tensor, "B S"]:
    """Every token may look at all video tokens and at real text tokens."""
    return nn.functional.pad(text_mask, (0, num_video_tokens), value=True)
