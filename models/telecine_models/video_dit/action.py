"""Actions of a player steer a video DiT: what the keys and the mouse did goes in beside every transformer block.

Keys are on or off and the mouse has a magnitude, so they take different ways (GameFactory, arXiv 2501.08325): keys are
attended to, which answers to similarity; the mouse is concatenated with the features, which keeps how far it moved.

A causal VAE keeps the first video frame alone and puts r frames into each later latent frame, so n+1 latent frames have
r n actions: action j leads from video frame j to frame j+1. No latent frame ever sees an action that comes later.

Axes: B batch, F latent frames, P tokens of one frame, D width of the video's tokens, A actions, K keys, S slots of a
window of actions, N heads, M numbers of a window's mouse.
"""

import dataclasses
from collections.abc import Callable

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from telecine_models.local import FromFolder
from telecine_models.video_dit.rope import rotate, turn_of

# GF-Minecraft (arXiv 2501.08325) counts mouse deltas in units of 15 degrees, which makes them numbers around one.
_MOUSE_UNIT_DEG = 15.0
# Of the rotary positions over time in Matrix-Game 2.0 (arXiv 2508.13009), which rebuilds this module.
_TIME_BASE = 256.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Actions:
    """What the player did between one video frame and the next.

    Args:
        keys: which keys were down; in GF-Minecraft W, A, S, D, space, shift, ctrl.
        mouse: by how many degrees the view turned, to the right and down.
        known: which actions are known; None means all. An unknown action tells nothing, whatever it holds.

    Raises:
        ValueError: shapes that do not fit each other, keys or ``known`` that are not boolean, or a mouse not finite.
    """

    keys: Bool[Tensor, "B A K"]
    mouse: Float[Tensor, "B A 2"]
    known: Bool[Tensor, "B A"] | None = None

    def __post_init__(self) -> None:
        if self.keys.ndim != 3 or self.keys.dtype != torch.bool:
            found = f"{list(self.keys.shape)} of {self.keys.dtype}"
            raise ValueError(f"Actions: keys must be shaped [B, A, K] of torch.bool, got {found}")
        steps = self.keys.shape[:2]
        if self.mouse.shape != (*steps, 2):
            raise ValueError(f"Actions: mouse must be shaped {[*steps, 2]}, as keys are, got {list(self.mouse.shape)}")
        if not self.mouse.isfinite().all():
            raise ValueError(f"Actions: mouse must be finite, got {_first_not_finite(self.mouse)}")
        if self.known is not None and (self.known.shape != steps or self.known.dtype != torch.bool):
            found = f"{list(self.known.shape)} of {self.known.dtype}"
            raise ValueError(f"Actions: known must be shaped {list(steps)} of torch.bool, as keys are, got {found}")

    def map(self, change: Callable[[Tensor], Tensor]) -> "Actions":
        """The same with every tensor changed: on a device, or of other samples."""
        known = None if self.known is None else change(self.known)
        return Actions(keys=change(self.keys), mouse=change(self.mouse), known=known)


@dataclasses.dataclass(frozen=True, kw_only=True)
class GroupedActions:
    """The window of actions of every latent frame, oldest first; what ``keys`` hold counts only where ``known``.

    ``mouse`` holds for each slot the two turns in units of 15 degrees and 1, or three zeros if the action is unknown.
    """

    keys: Bool[Tensor, "B F S K"]
    mouse: Float[Tensor, "B F M"]
    known: Bool[Tensor, "B F S"]


def action_windows(num_frames: int, compression: int, window: int) -> Int64[Tensor, "F S"]:
    """Indices of the actions that each latent frame sees directly, oldest first; -1 where there was none yet.

    Latent frame i > 0 holds the ``compression`` video frames that its own group of actions led to; it sees that group
    and the ``window`` - 1 groups before it, because some actions, such as a jump, take effect later. Latent frame 0 is
    what the player found.
    """
    end = torch.arange(num_frames) * compression
    return (end[:, None] + torch.arange(-window * compression, 0)).clamp(min=-1)


def group_actions(actions: Actions, num_frames: int, compression: int, window: int) -> GroupedActions:
    """Give each of ``num_frames`` latent frames its window of actions; see :func:`action_windows`.

    Raises:
        ValueError: a number of actions other than ``compression`` x (``num_frames`` - 1).
    """
    num_actions = actions.keys.shape[1]
    if num_actions != compression * (num_frames - 1):
        raise ValueError(
            f"group_actions: actions must hold {compression} x {num_frames - 1} actions, {compression} for each of "
            f"{num_frames} latent frames but the first, got {num_actions}"
        )
    known = torch.ones_like(actions.keys[..., 0]) if actions.known is None else actions.known
    mouse = torch.cat((actions.mouse / _MOUSE_UNIT_DEG, torch.ones_like(actions.mouse[..., :1])), dim=-1)
    # Slot 0 of the padded sequence is what a window holds before the first action: nothing known.
    slots = action_windows(num_frames, compression, window).to(known.device) + 1
    return GroupedActions(
        keys=F.pad(actions.keys, (0, 0, 1, 0))[:, slots],
        mouse=F.pad(mouse * known[..., None], (0, 0, 1, 0))[:, slots].flatten(2),
        known=F.pad(known, (1, 0))[:, slots],
    )


class MouseAttention(nn.Module):
    """Mouse and features through one MLP, then causal attention over time at each place of the frame."""

    def __init__(self, width: int, num_heads: int, head_dim: int, num_slots: int) -> None:
        super().__init__()
        inner = num_heads * head_dim
        self.num_heads = num_heads
        # A linear layer over a concatenation is the sum of two; so the mouse is not copied to every token of a frame.
        self.video_in = nn.Linear(width, inner)
        self.mouse_in = nn.Linear(3 * num_slots, inner, bias=False)
        self.mlp_out = nn.Linear(inner, inner)
        self.to_qkv = nn.Linear(inner, 3 * inner, bias=False)
        self.norm_q = nn.RMSNorm(head_dim, eps=1e-6)
        self.norm_k = nn.RMSNorm(head_dim, eps=1e-6)
        self.to_out = nn.Linear(inner, width, bias=False)
        nn.init.zeros_(self.to_out.weight)

    def forward(self, video: Float[Tensor, "B F P D"], mouse: Float[Tensor, "B F M"]) -> Float[Tensor, "B F P D"]:
        hidden = self.video_in(video) + self.mouse_in(mouse)[:, :, None]
        places = self.mlp_out(F.gelu(hidden)).transpose(1, 2)
        q, k, v = self.to_qkv(places.flatten(0, 1)).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        turn = turn_of(_time_angles(q.shape[2], q.shape[3], q.device))
        q, k = rotate(self.norm_q(q), turn), rotate(self.norm_k(k), turn)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2)
        out: Tensor = self.to_out(mixed.unflatten(0, places.shape[:2]).transpose(1, 2))
        return out


class KeyAttention(nn.Module):
    """Every token of a frame looks at the known actions of the frame's window: which keys, and how long ago."""

    def __init__(self, width: int, num_heads: int, head_dim: int, num_slots: int, num_keys: int) -> None:
        super().__init__()
        inner = num_heads * head_dim
        self.num_heads = num_heads
        self.key_in = nn.Linear(num_keys, inner, bias=False)
        self.slots = nn.Parameter(torch.randn(num_slots, inner) * inner**-0.5)
        self.to_q = nn.Linear(width, inner, bias=False)
        self.to_kv = nn.Linear(inner, 2 * inner, bias=False)
        self.norm_q = nn.RMSNorm(head_dim, eps=1e-6)
        self.norm_k = nn.RMSNorm(head_dim, eps=1e-6)
        self.to_out = nn.Linear(inner, width, bias=False)
        nn.init.zeros_(self.to_out.weight)

    def forward(
        self, video: Float[Tensor, "B F P D"], keys: Bool[Tensor, "B F S K"], known: Bool[Tensor, "B F S"]
    ) -> Float[Tensor, "B F P D"]:
        tokens = self.key_in(keys.to(video.dtype)) + self.slots
        q = self.to_q(video.flatten(0, 1)).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
        k, v = self.to_kv(tokens.flatten(0, 1)).unflatten(-1, (2, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        # Not every kernel defines attention to nothing; what a frame without known actions sees, the block drops.
        seen = (known | ~known.any(-1, keepdim=True)).flatten(0, 1)[:, None, None]
        mixed = F.scaled_dot_product_attention(self.norm_q(q), self.norm_k(k), v, attn_mask=seen)
        out: Tensor = self.to_out(mixed.transpose(1, 2).flatten(2).unflatten(0, video.shape[:2]))
        return out


class ActionBlock(nn.Module):
    """What the actions add to the video's tokens at one depth of the transformer; the mouse first, then the keys.

    The output layers start at zero, so a fresh block adds nothing. A frame whose window holds no known action is left
    as it is, always: without actions the model is the one that it was.
    """

    def __init__(self, width: int, num_heads: int, head_dim: int, num_slots: int, num_keys: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.mouse = MouseAttention(width, num_heads, head_dim, num_slots)
        self.keys = KeyAttention(width, num_heads, head_dim, num_slots, num_keys)

    def forward(self, video: Float[Tensor, "B F P D"], actions: GroupedActions) -> Float[Tensor, "B F P D"]:
        turned: Tensor = self.mouse(self.norm(video), actions.mouse.to(video.dtype))
        pressed: Tensor = self.keys(self.norm(video + turned), actions.keys, actions.known)
        return (turned + pressed) * actions.known.any(-1)[:, :, None, None]


class ActionControl(FromFolder, ModelMixin, ConfigMixin):  # type: ignore[misc]
    """One :class:`ActionBlock` for each transformer block that actions steer; plugs into any video DiT.

    It is a model of its own, so that it is trained alone over frozen weights, saved alone, and taken to other weights:
    what it learnt on one game's footage steers a model that never saw that game.

    Args:
        width: of the video's tokens.
        num_layers: how many blocks of the transformer are steered.
        num_heads, head_dim: of the attention inside; their product is the width that the module works in.
        num_keys: keys of the player.
        compression: video frames, and so actions, per latent frame after the first.
        window: groups of actions that a latent frame sees directly: its own and those before it.
    """

    @register_to_config
    def __init__(
        self,
        *,
        width: int,
        num_layers: int,
        num_heads: int = 2,
        head_dim: int = 32,
        num_keys: int = 7,
        compression: int = 4,
        window: int = 3,
    ) -> None:
        super().__init__()
        for name, value in self.config.items():
            if isinstance(value, int) and value < 1:
                raise ValueError(f"ActionControl: {name} must be at least 1, got {value}")
        if head_dim % 2:
            raise ValueError(f"ActionControl: head_dim must be even, because rotary pairs it, got {head_dim}")
        num_slots = window * compression
        self.blocks = nn.ModuleList(
            ActionBlock(width, num_heads, head_dim, num_slots, num_keys) for _ in range(num_layers)
        )

    def group(self, actions: Actions, num_frames: int) -> GroupedActions:
        """What :meth:`forward` takes, made once for all layers.

        Raises:
            ValueError: a number of keys or of actions that does not fit the configuration and ``num_frames``.
        """
        num_keys = self.config["num_keys"]
        if actions.keys.shape[2] != num_keys:
            raise ValueError(f"ActionControl: keys must be shaped [B, A, {num_keys}], got {list(actions.keys.shape)}")
        return group_actions(actions, num_frames, self.config["compression"], self.config["window"])

    def steering(self, actions: Actions, num_frames: int) -> Callable[[Tensor, int], Tensor]:
        """What a video DiT takes as its ``steer``: these actions, at each of its blocks that is steered.

        Raises:
            ValueError: as :meth:`group` does.
        """
        grouped = self.group(actions, num_frames)

        def steer(video: Tensor, layer: int) -> Tensor:
            if layer >= len(self.blocks):
                return torch.zeros_like(video)
            residual: Tensor = self(video, grouped, layer)
            return residual

        return steer

    def forward(self, video: Float[Tensor, "B F P D"], actions: GroupedActions, layer: int) -> Float[Tensor, "B F P D"]:
        """What to add to the video's tokens at block ``layer``, counted from 0.

        Raises:
            ValueError: tokens that do not fit the configuration or the actions, or no such layer.
        """
        if not 0 <= layer < len(self.blocks):
            raise ValueError(f"ActionControl: layer must lie in [0, {len(self.blocks)}), got {layer}")
        batch, frames = actions.known.shape[:2]
        if video.ndim != 4 or video.shape != (batch, frames, video.shape[2], self.config["width"]):
            shape = f"[{batch}, {frames}, P, {self.config['width']}]"
            raise ValueError(f"ActionControl: video must be shaped {shape}, got {list(video.shape)}")
        residual: Tensor = self.blocks[layer](video, actions)
        return residual


def _time_angles(num_frames: int, head_dim: int, device: torch.device) -> Float[Tensor, "F half_dim"]:
    pairs = head_dim // 2
    steps = torch.arange(pairs, dtype=torch.float32, device=device) / pairs
    return torch.arange(num_frames, device=device)[:, None] * _TIME_BASE**-steps


def _first_not_finite(values: Tensor) -> str:
    place = (~values.isfinite()).nonzero()[0].tolist()
    return f"{values[tuple(place)].item()} at {place}"
