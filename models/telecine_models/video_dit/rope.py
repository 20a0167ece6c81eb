"""Rotary positions over time, height and width (RoPE, arXiv 2104.09864, one share of the channels per axis).

Axes: B batch, N heads, S tokens, P half of a head's channels.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

# Language models use 10000; a video has tens of tokens per axis, and each axis few channel pairs to spend on them.
_BASE = 256.0

Turn = tuple[Float[Tensor, "*#batch S P"], Float[Tensor, "*#batch S P"]]
"""Cosines and sines of the angles of tokens, which may differ between samples: [S, P] or [B, 1, S, P]."""


def grid_positions(grid: tuple[int, int, int], device: torch.device, *, first_frame: int = 0) -> Int[Tensor, "S 3"]:
    """Frame, row and column of the tokens of a ``(frames, rows, columns)`` grid, columns running fastest.

    Args:
        first_frame: frame index that the grid begins with.
    """
    axes = torch.meshgrid(*(torch.arange(size, device=device) for size in grid), indexing="ij")
    positions = torch.stack([axis.flatten() for axis in axes], dim=1)
    positions[:, 0] += first_frame
    return positions


def angles_of(positions: Int[Tensor, "S 3"], head_dim: int) -> Float[Tensor, "S P"]:
    """Rotation angles of tokens at (frame, row, column).

    A quarter of the channel pairs turn with the frame index, three eighths with each of row and column.
    """
    pairs = head_dim // 2
    shares = (pairs // 4, pairs * 3 // 8, pairs * 3 // 8)
    turns = [
        axis[:, None] * _frequencies(share, positions.device)
        for axis, share in zip(positions.unbind(1), shares, strict=True)
    ]
    return torch.cat(turns, dim=1)


def grid_angles(grid: tuple[int, int, int], head_dim: int, device: torch.device) -> Float[Tensor, "S P"]:
    """Rotation angles of the tokens of a grid; see :func:`grid_positions` and :func:`angles_of`."""
    return angles_of(grid_positions(grid, device), head_dim)


def turn_of(angles: Float[Tensor, "*#batch S P"]) -> Turn:
    """Cosine and sine of angles, once for all blocks."""
    return angles.cos(), angles.sin()


def rotate(x: Float[Tensor, "B N S head_dim"], turn: Turn) -> Float[Tensor, "B N S head_dim"]:
    """Turn channel pairs (i, i + head_dim / 2) of every token by its angles; angle zero changes nothing."""
    cos, sin = (each.to(x.dtype) for each in turn)
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)


def _frequencies(count: int, device: torch.device) -> Float[Tensor, " count"]:
    steps = torch.arange(count, dtype=torch.float32, device=device) / count
    return _BASE**-steps
