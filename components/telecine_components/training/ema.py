"""Exponential moving average of weights, the ones that are sampled from and published."""

import contextlib
from collections.abc import Iterator

import torch


class Ema:
    """Averaged float32 copy of a module's parameters, by name.

    The decay is warmed up as min(decay, (1+n)/(10+n)) after ``n`` updates (the schedule of the reference diffusion
    code bases), so that a short run's average is not held at the untrained weights.
    """

    def __init__(self, module: torch.nn.Module, decay: float) -> None:
        self.decay = decay
        self.weights = {name: p.detach().clone() for name, p in module.named_parameters()}

    def update(self, module: torch.nn.Module, num_updates: int) -> None:
        """Move the average towards the module's weights; ``num_updates`` counts the updates made before."""
        decay = min(self.decay, (1 + num_updates) / (10 + num_updates))
        current = dict(module.named_parameters())
        with torch.no_grad():
            torch._foreach_lerp_(list(self.weights.values()), [current[name] for name in self.weights], 1.0 - decay)

    @contextlib.contextmanager
    def swapped_into(self, module: torch.nn.Module) -> Iterator[torch.nn.Module]:
        """The module with the averaged weights for the length of the block."""
        own = {name: p.detach().clone() for name, p in module.named_parameters()}
        _assign(module, self.weights)
        try:
            yield module
        finally:
            _assign(module, own)


def _assign(module: torch.nn.Module, weights: dict[str, torch.Tensor]) -> None:
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            parameter.copy_(weights[name])
