"""Rectified flow: the path from data to noise, and the loss that learns its velocity.

Convention everywhere: t=0 is data, t=1 is noise, x_t = (1-t) x_0 + t noise, v = dx_t/dt = noise - x_0
(rectified flow, arXiv 2209.03003).
"""

import torch
from jaxtyping import Float
from torch import Tensor


def interpolate(
    x0: Float[Tensor, "batch axis *axes"], noise: Float[Tensor, "batch axis *axes"], t: Float[Tensor, " batch"]
) -> Float[Tensor, "batch axis *axes"]:
    """The point x_t on the straight path between data and noise, one flow time in [0, 1] per sample.

    It is found in float32 and has the data's type, because bfloat16 cannot tell the last flow times from 1.

    Raises:
        ValueError: noise or times that do not fit the data.
    """
    if noise.shape != x0.shape or t.shape != x0.shape[:1]:
        wanted, got = f"{list(x0.shape)} and {list(x0.shape[:1])}", f"{list(noise.shape)} and {list(t.shape)}"
        raise ValueError(f"interpolate: noise and t must be shaped {wanted}, got {got}")
    t = t.to(torch.float32).view(-1, *[1] * (x0.ndim - 1))
    return ((1 - t) * x0.to(torch.float32) + t * noise.to(torch.float32)).to(x0.dtype)


def velocity(
    x0: Float[Tensor, "batch axis *axes"], noise: Float[Tensor, "batch axis *axes"]
) -> Float[Tensor, "batch axis *axes"]:
    """The velocity of the path, constant in t."""
    return noise - x0


def flow_matching_loss(
    denoiser_output: Float[Tensor, "batch axis *axes"],
    x0: Float[Tensor, "batch axis *axes"],
    noise: Float[Tensor, "batch axis *axes"],
) -> Float[Tensor, " batch"]:
    """Mean squared error of a predicted velocity, one float32 value per sample.

    Raises:
        ValueError: data or noise of another shape than the output.
    """
    if not denoiser_output.shape == x0.shape == noise.shape:
        shapes = f"{list(x0.shape)} and {list(noise.shape)}"
        raise ValueError(f"flow_matching_loss: x0 and noise must be shaped {list(denoiser_output.shape)}, got {shapes}")
    error = denoiser_output.to(torch.float32) - velocity(x0.to(torch.float32), noise.to(torch.float32))
    return error.square().flatten(1).mean(1)
