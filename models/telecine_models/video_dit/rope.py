"""Rotary positions over time, height and width (RoPE, arXiv 2104.09864, one share of the channels per axis)."""

import torch
from jaxtyping import Float
from torch import Tensor

# Language models use 10000; a video has tens of tokens per axis, and each axis few channel pairs to spend on them.
_BASE = 256.0


def grid_angles(grid: tuple[int, int, int], head_dim: int, device: torch.device) -> Float[Tensor, "tokens half_dim"]:
    """Rotation angles of the tokens of a ``(frames, rows, columns)`` grid, columns running fastest.

    A quarter of the channel pairs turn with the frame index, three eighths with each of row and column.
    """
    pairs = head_dim // 2
    shares = (pairs // 4, pairs * 3 // 8, pairs * 3 // 8)
    axes = torch.meshgrid(*(torch.arange(size, device=device) for size in grid), indexing="ij")
    turns = [axis.flatten()[:, None] * _frequencies(share, device) for axis, share in zip(axes, shares, strict=True)]
    return torch.cat(turns, dim=1)


def rotate(
    x: Float[Tensor, "batch heads tokens head_dim"], angles: Float[Tensor, "tokens half_dim"]
) -> Float[Tensor, "batch heads tokens head_dim"]:
    """Turn channel pairs (i, i + head_dim / 2) of every token by its angles; angle zero changes nothing."""
    cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)


def _frequencies(count: int, device: torch.device) -> Float[Tensor, " count"]:
    steps = torch.arange(count, dtype=torch.float32, device=device) / count
    return _BASE**-steps
