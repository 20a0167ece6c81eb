"""The times that a sampler visits: from 1 (noise) down to 0 (data), in float32."""

import math

import torch
from jaxtyping import Float
from torch import Tensor


def linear_times(num_steps: int) -> Float[Tensor, " times"]:
    """``num_steps + 1`` times in equal steps.

    Raises:
        ValueError: ``num_steps`` below 1.
    """
    if num_steps < 1:
        raise ValueError(f"linear_times: num_steps must be at least 1, got {num_steps}")
    return torch.linspace(1, 0, num_steps + 1, dtype=torch.float32)


def shifted_times(num_steps: int, shift: float, last: float | None = None) -> Float[Tensor, " times"]:
    """``num_steps + 1`` times t = shift u / (1 + (shift - 1) u) for equal steps of u (arXiv 2403.03206, section 5.3.2).

    A shift above 1 spends more steps on noise, as large videos want; 1 is linear. ``last`` is the time from which the
    final step is taken: the other steps share the way from 1 to it. Diffusers' Stable Diffusion 3 has shift 3 and
    ``last`` 0.0089; without ``last`` the final step is as long in u as the others.

    Raises:
        ValueError: ``num_steps`` below 1, ``shift`` not positive and finite, or ``last`` outside (0, 1).
    """
    if num_steps < 1:
        raise ValueError(f"shifted_times: num_steps must be at least 1, got {num_steps}")
    if not (math.isfinite(shift) and shift > 0):
        raise ValueError(f"shifted_times: shift must be positive and finite, got {shift}")
    if last is not None and not 0 < last < 1:
        raise ValueError(f"shifted_times: last must lie between 0 and 1, got {last}")
    if last is None:
        u = torch.linspace(1, 0, num_steps + 1, dtype=torch.float64)[:-1]
    else:
        u = torch.linspace(1, last / (shift - (shift - 1) * last), num_steps, dtype=torch.float64)
    # Rounded once, from double precision, so that the first time is 1: just below it the noise of an SDE has a pole.
    return torch.cat([shift * u / (1 + (shift - 1) * u), torch.zeros(1)]).to(torch.float32)
