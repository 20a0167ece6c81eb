"""Exponential moving average of weights, the ones that are sampled from and published."""

import contextlib
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from telecine_components.training.zero import local_weight


class Ema:
    """Averaged float32 copy of what a module trains, by name; where it is spread, of this rank's share.

    The decay is warmed up as min(decay, (1+n)/(10+n)) after ``n`` updates (the schedule of the reference diffusion
    code bases), so that a short run's average is not held at the untrained weights.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.weights = {name: local_weight(p).clone() for name, p in trained(module)}

    def update(self, module: nn.Module, num_updates: int) -> None:
        """Move the average towards the module's weights; ``num_updates`` counts the updates made before."""
        decay = min(self.decay, (1 + num_updates) / (10 + num_updates))
        with torch.no_grad():
            torch._foreach_lerp_(list(self.weights.values()), list(self._own(module).values()), 1.0 - decay)

    @contextlib.contextmanager
    def swapped_into(self, module: nn.Module) -> Iterator[nn.Module]:
        """The module with the averaged weights for the length of the block."""
        own = {name: tensor.clone() for name, tensor in self._own(module).items()}
        _assign(self._own(module), self.weights)
        try:
            yield module
        finally:
            _assign(self._own(module), own)

    def _own(self, module: nn.Module) -> dict[str, Tensor]:
        current = dict(module.named_parameters())
        return {name: local_weight(current[name]) for name in self.weights}


def trained(module: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """The parameters that a module trains, by name."""
    return ((name, p) for name, p in module.named_parameters() if p.requires_grad)


def _assign(targets: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> None:
    with torch.no_grad():
        for name, target in targets.items():
            target.copy_(values[name])
