"""Fixed-step solvers of dx/dt = v(x, t), from noise at t=1 to data at t=0."""

import itertools
from collections.abc import Callable
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from telecine_models.sampling.schedule import linear_times

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
    """Integrate from ``noise`` (t=1) to data (t=0) in ``num_steps`` equal steps; see :func:`solve_ode`.

    Raises:
        ValueError: ``num_steps`` below 1 or an unknown ``method``.
    """
    return solve_ode(denoise, noise, linear_times(num_steps), method)


def solve_ode(
    denoise: Denoise,
    x: Float[Tensor, "batch axis *axes"],
    times: Float[Tensor, " times"],
    method: Method = "euler",
) -> Float[Tensor, "batch axis *axes"]:
    """Integrate ``x`` from the first of ``times`` to the last, one step between neighbours.

    Euler is of first order; Heun averages the slopes at both ends of a step and is of second order. The state
    is kept in float32 whatever ``denoise`` computes in, because low precision loses the small updates.

    Raises:
        ValueError: an unknown ``method``.
    """
    if method not in EVALUATIONS_PER_STEP:
        raise ValueError(f"solve_ode: method must be one of {sorted(EVALUATIONS_PER_STEP)}, got {method!r}")
    dtype = x.dtype

    def slope(x: Tensor, t: Tensor) -> Tensor:
        return denoise(x.to(dtype), t.expand(len(x))).to(torch.float32)

    x = x.to(torch.float32)
    for start, end in itertools.pairwise(times.to(x.device)):
        v = slope(x, start)
        if method == "heun":
            v = (v + slope(x + (end - start) * v, end)) / 2
        x = x + (end - start) * v
    return x.to(dtype)
