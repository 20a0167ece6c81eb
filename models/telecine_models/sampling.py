"""From noise to data: fixed-step solvers of dx/dt = v(x, t) from t=1 to t=0, and classifier-free guidance."""

import itertools
from collections.abc import Callable
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

Denoise = Callable[[Float[Tensor, "batch axis *axes"], Float[Tensor, " batch"]], Float[Tensor, "batch axis *axes"]]
"""Velocity of a batch of noisy samples ``x`` at flow times ``t`` in [0, 1]."""

Method = Literal["euler", "heun"]
EVALUATIONS_PER_STEP: dict[Method, int] = {"euler": 1, "heun": 2}


def sample_ode(
    denoise: Denoise,
    noise: Float[Tensor, "batch axis *axes"],
    num_steps: int,
    method: Method = "euler",
) -> Float[Tensor, "batch axis *axes"]:
    """Integrate from ``noise`` (t=1) to data (t=0) in ``num_steps`` equal steps.

    Euler is of first order; Heun averages the slopes at both ends of a step and is of second order. The state
    is kept in float32 whatever ``denoise`` computes in, because low precision loses the small updates.

    Raises:
        ValueError: ``num_steps`` below 1 or an unknown ``method``.
    """
    if num_steps < 1:
        raise ValueError(f"sample_ode: num_steps must be at least 1, got {num_steps}")
    if method not in EVALUATIONS_PER_STEP:
        raise ValueError(f"sample_ode: method must be one of {sorted(EVALUATIONS_PER_STEP)}, got {method!r}")
    x = noise.to(torch.float32)
    times = torch.linspace(1, 0, num_steps + 1, dtype=torch.float32, device=noise.device)

    def slope(x: Tensor, t: Tensor) -> Tensor:
        return denoise(x.to(noise.dtype), t.expand(len(x))).to(torch.float32)

    for start, end in itertools.pairwise(times):
        v = slope(x, start)
        if method == "heun":
            v = (v + slope(x + (end - start) * v, end)) / 2
        x = x + (end - start) * v
    return x.to(noise.dtype)


def guide(conditional: Denoise, unconditional: Denoise, scale: float) -> Denoise:
    """Classifier-free guidance (arXiv 2207.12598): v = v_uncond + scale (v_cond - v_uncond).

    Scale 1 is the conditional branch itself, and costs no second evaluation.
    """
    if scale == 1:
        return conditional

    def guided(x: Tensor, t: Tensor) -> Tensor:
        base = unconditional(x, t)
        return base + scale * (conditional(x, t) - base)

    return guided
