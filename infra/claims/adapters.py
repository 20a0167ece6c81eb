"""The peer of fulldit_composes: a ControlNet for each condition over one frozen video DiT, composed by adding them.

As a ControlNet for transformers has it (arXiv 2401.05252), a branch is a trainable copy of the first blocks with the
condition beside the noisy video, and what each of its blocks makes of the video is added, through a layer that starts
at zero, after the same block of the frozen model. Here a condition reaches its branch as tokens of the branch's own
sequence, so that all kinds take one way, and the same as in the model that it is compared with.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from telecine_models.video_dit.config import VideoDiTConfig
from telecine_models.video_dit.model import Steer, VideoDiT
from wall_shots import Shots


def model_of(config: VideoDiTConfig, device: str = "cpu") -> VideoDiT:
    """A fresh model."""
    model: VideoDiT = VideoDiT(**dataclasses.asdict(config)).to(device)
    return model


def inherit(model: VideoDiT, weights: Mapping[str, Tensor]) -> VideoDiT:
    """Give a model the weights of one that may have more blocks but knows no conditions; those start fresh.

    Raises:
        ValueError: a weight of the model, other than the conditions', that the others lack.
    """
    names = [name for name in model.state_dict() if not name.startswith("conditions_in.")]
    if lacking := [name for name in names if name not in weights]:
        raise ValueError(f"inherit: weights must hold all that the model has but its conditions', lack {lacking}")
    model.load_state_dict({name: weights[name] for name in names}, strict=False)
    return model


class Adapter(nn.Module):
    """What one condition adds to a frozen video DiT, for ``num_layers`` of its blocks.

    Args:
        kind: of the condition.
        config, weights: of the frozen model.
    """

    def __init__(self, kind: str, config: VideoDiTConfig, weights: Mapping[str, Tensor], num_layers: int) -> None:
        super().__init__()
        self.kind = kind
        self.branch = inherit(model_of(dataclasses.replace(config, num_layers=num_layers, conditions=(kind,))), weights)
        # What comes after the branch's last block is not used.
        for name in ("patch_out", "skip"):
            self.branch.get_submodule(name).requires_grad_(False)
        self.branch.modulation_out.requires_grad_(False)
        self.to_frozen = nn.ModuleList(nn.Linear(config.width, config.width) for _ in range(num_layers))
        for layer in self.to_frozen:
            assert isinstance(layer, nn.Linear)
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor, t: Tensor, shots: Shots) -> list[Tensor]:
        """For each steered block what to add to the video's tokens [B, frames, tokens of a frame, D]."""
        added: list[Tensor] = []

        def overhear(video: Tensor, block: int) -> Tensor:
            added.append(self.to_frozen[block](video))
            return torch.zeros_like(video)

        self.branch(x, t, shots.text, shots.real, conditions=shots.conditions((self.kind,)), steer=overhear)
        return added


def composed(frozen: VideoDiT, adapters: Sequence[Adapter], x: Tensor, t: Tensor, shots: Shots) -> Tensor:
    """Velocity [B, C, F, H, W] of the frozen model with what all adapters add; without any it is the frozen model's."""
    steer = _sum([adapter(x, t, shots) for adapter in adapters])
    velocity: Tensor = frozen(x, t, shots.text, shots.real, steer=steer)
    return velocity


def _sum(added: Sequence[Sequence[Tensor]]) -> Steer | None:
    if not added:
        return None

    def steer(video: Tensor, block: int) -> Tensor:
        parts = [each[block] for each in added if block < len(each)]
        return torch.stack(parts).sum(0) if parts else torch.zeros_like(video)

    return steer
