"""The thresholds of DiffMoE (arXiv 2503.14487), moved once per optimizer step by whoever trains.

They are not moved in a layer's forward, because that runs twice under activation checkpointing and once for every
micro-batch of an accumulated gradient, and must run where there is no process group.
"""

from collections.abc import Sequence

import torch
from torch import distributed, nn

from telecine_models.moe.diffmoe import DiffMoE
from telecine_models.moe.routing import Routing


@torch.no_grad()
def update_thresholds(layers: Sequence[DiffMoE], routings: Sequence[Sequence[Routing]], decay: float = 0.95) -> None:
    """Move each expert's threshold to ``decay`` of itself and the rest of the quantiles' mean.

    The mean is over micro-steps, where torch.distributed is initialised those of all ranks: one collective for all
    layers, which every rank has to call. ``decay`` is the paper's.

    Args:
        routings: for every micro-step of one optimizer step, the routing of every layer, in the order of ``layers``;
            a rank among others may have none.

    Raises:
        ValueError: no micro-step on any rank, one with other layers, routings without quantiles, or a decay outside
            [0, 1).
    """
    if not 0 <= decay < 1:
        raise ValueError(f"update_thresholds: decay must lie in [0, 1), got {decay}")
    experts = [layer.num_experts for layer in layers]
    sums = torch.zeros(sum(experts) + 1, device=layers[0].thresholds.device)  # the last is the number of micro-steps
    for step in routings:
        sums[:-1] += _quantiles(step, len(layers))
        sums[-1] += 1
    if distributed.is_available() and distributed.is_initialized():
        distributed.all_reduce(sums)
    if not sums[-1]:
        raise ValueError("update_thresholds: routings must hold at least one micro-step, got none")
    for layer, quantiles in zip(layers, (sums[:-1] / sums[-1]).split(experts), strict=True):
        layer.thresholds.lerp_(quantiles.to(layer.thresholds), 1 - decay)


def _quantiles(step: Sequence[Routing], num_layers: int) -> torch.Tensor:
    """The quantiles of all layers in one row; numbers of experts may differ."""
    if len(step) != num_layers:
        raise ValueError(f"update_thresholds: a micro-step must hold {num_layers} routings, as layers, got {len(step)}")
    found = [routing.quantiles for routing in step if routing.quantiles is not None]
    if len(found) < len(step):
        raise ValueError("update_thresholds: routings must come from training, got one without quantiles")
    return torch.cat(found)


@torch.no_grad()
def copy_buffers(source: nn.Module, target: nn.Module) -> None:
    """Give an averaged copy of a model the model's own buffers.

    Averaging thresholds like weights would hold them near 0 for as long as the average remembers: at a decay of 0.9999
    they have 63 % of their value after 10,000 steps, and all that time nearly every token passes.

    Raises:
        ValueError: the two have different buffers.
    """
    theirs, ours = dict(source.named_buffers()), dict(target.named_buffers())
    if theirs.keys() != ours.keys():
        raise ValueError(f"copy_buffers: target must have the buffers {sorted(theirs)} of source, got {sorted(ours)}")
    for name, buffer in ours.items():
        buffer.copy_(theirs[name])
