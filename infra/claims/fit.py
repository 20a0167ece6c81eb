"""Train one small model: AdamW at a constant learning rate after a warm-up, an average of the weights beside it.

A plain loop, because a study needs hundreds of steps a second more than it needs to survive a kill.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from telecine_components.training.ema import Ema
from telecine_components.training.randomness import generator, permutation, stratified_times
from telecine_models.flow import flow_matching_loss, interpolate

_ORDER_STREAM, _NOISE_STREAM, _EVAL_STREAM = 31, 32, 33
_CURVE_POINTS = 50

Loss = Callable[[nn.Module, int], Tensor]
"""(model, step) to the scalar loss of that step; a pure function of both."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """How to train a model in a few hundred steps; ``max_grad_norm`` may be infinite."""

    num_steps: int
    learning_rate: float
    warmup_steps: int = 20
    weight_decay: float = 0.0
    ema_decay: float = 0.99
    max_grad_norm: float = 1.0


@dataclasses.dataclass(frozen=True, eq=False)
class Fitted:
    """The average of a model's weights, and (step, mean loss since the last point) pairs."""

    ema: Ema
    curve: list[tuple[int, float]]


def fit(model: nn.Module, loss: Loss, recipe: Recipe, after_step: Callable[[], None] = lambda: None) -> Fitted:
    """Train the parameters of ``model`` that want gradients, in place.

    Args:
        after_step: called after each optimizer step.

    Raises:
        ValueError: no step.
    """
    if recipe.num_steps < 1:
        raise ValueError(f"fit: num_steps must be at least 1, got {recipe.num_steps}")
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=recipe.learning_rate, weight_decay=recipe.weight_decay, foreach=True)
    ema, curve, every = Ema(model, recipe.ema_decay), [], max(1, recipe.num_steps // _CURVE_POINTS)
    losses: list[Tensor] = []
    model.train()
    for step in range(recipe.num_steps):
        for group in optimizer.param_groups:
            group["lr"] = recipe.learning_rate * min(1.0, (step + 1) / max(1, recipe.warmup_steps))
        value = loss(model, step)
        value.backward()
        torch.nn.utils.clip_grad_norm_(parameters, recipe.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        after_step()
        ema.update(model, step)
        losses.append(value.detach())
        if (step + 1) % every == 0:
            curve.append((step + 1, float(torch.stack(losses).mean())))
            losses.clear()
    return Fitted(ema, curve)


def batch_of(num_items: int, batch_size: int, seed: int, step: int) -> Tensor:
    """Indices [batch_size] int64 of a step: whole epochs, each in an order of its own, cut into batches.

    Raises:
        ValueError: fewer items than a batch has.
    """
    per_epoch = num_items // batch_size
    if not per_epoch:
        raise ValueError(f"batch_of: num_items must be at least the batch of {batch_size}, got {num_items}")
    epoch, place = divmod(step, per_epoch)
    order = permutation(num_items, seed, _ORDER_STREAM, epoch)
    return torch.from_numpy(order[place * batch_size : (place + 1) * batch_size])


def noise_of(shape: torch.Size, seed: int, step: int, *, shift: float = 1.0) -> tuple[Tensor, Tensor]:
    """Flow times [B], stratified, and noise of ``shape`` [B, …] of a training step; on the CPU, so on all devices.

    Args:
        shift: s of t -> s t / (1 + (s - 1) t), which moves uniform times towards noise (arXiv 2403.03206).
    """
    return _drawn(shape, generator(seed, _NOISE_STREAM, step), shift)


def eval_noise_of(shape: torch.Size, seed: int, draw: int, *, shift: float = 1.0) -> tuple[Tensor, Tensor]:
    """As :func:`noise_of`, for a draw of the held-out loss: never that of a training step."""
    return _drawn(shape, generator(seed, _EVAL_STREAM, draw), shift)


def _drawn(shape: torch.Size, random: torch.Generator, shift: float) -> tuple[Tensor, Tensor]:
    times = stratified_times(shape[0], random)
    return shift * times / (1 + (shift - 1) * times), torch.randn(shape, generator=random)


def flops_of(loss: Callable[[], Tensor]) -> int:
    """FLOPs of the matrix products of a loss and of its gradients, counted by torch."""
    # The fused attention of CPUs is one that torch does not count.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        loss().backward()
    return int(counter.get_total_flops())


def keep(model: nn.Module, folder: str, seed: int) -> None:
    """Keep the weights of a seed's base, from which all its arms start."""
    save_file({name: value.cpu() for name, value in model.state_dict().items()}, _base(folder, seed))


def kept(folder: str, seed: int) -> dict[str, Tensor]:
    """Weights that :func:`keep` kept, on the CPU."""
    return load_file(_base(folder, seed))


def _base(folder: str, seed: int) -> Path:
    return Path(folder) / f"base-{seed}.safetensors"


Velocity = Callable[[Tensor, Tensor], Tensor]
"""(x_t [B, C, F, H, W], t [B]) to the velocity."""


def velocity_loss(velocity: Velocity, x0: Tensor, times: Tensor, noise: Tensor) -> Tensor:
    """Flow-matching loss [B] of each sample; all on one device."""
    return flow_matching_loss(velocity(interpolate(x0, noise, times), times), x0, noise)
