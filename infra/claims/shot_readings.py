"""How far films are from the camera, the depth and the element that they were to follow, read from their pixels alone.

The wall is grey and the things are not, which tells them apart. Axes as in :mod:`wall_shots`.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from wall_shots import KINDS, WALL_M, Shots, look_levels

_COLOURFUL_LEVELS = 70.0
"""The brightest channel is at least so far above the darkest in a pixel that shows a thing."""
_LEAST_RATIO = 0.01
"""A film in which fewer pixels are colourful shows no thing."""
_REACH_M, _NUM_STEPS = 1.0, 33
"""Moves of the camera that are tried."""

Films = Float[Tensor, "N 3 F H W"]


def misses(films: Films, shots: Shots) -> dict[str, Float[Tensor, " N"]]:
    """For each kind how far each film, in model range, is from what the shot says; 0 is best.

    ``camera``: metres between the read and the true move. ``depth``: 1 less the intersection over union of where the
    film and where the depth has a thing. ``elements``: share of the thing's pixels that are nearer to another thing's
    colour; 1 if there is none.
    """
    levels = ((films + 1) * 127.5).clamp(0, 255)
    colourful = levels.amax(1) - levels.amin(1) > _COLOURFUL_LEVELS
    both, either = ((colourful & shots.shown).flatten(1).sum(1), (colourful | shots.shown).flatten(1).sum(1))
    return dict(
        zip(
            KINDS,
            (
                (read_truck_m(levels.mean(1), colourful) - shots.truck_m).abs(),
                1 - both / either.clamp(min=1),
                1 - _own_colour(levels, colourful, shots),
            ),
            strict=True,
        )
    )


def _own_colour(levels: Films, colourful: Bool[Tensor, "N F H W"], shots: Shots) -> Float[Tensor, " N"]:
    looks = look_levels().to(levels)[None, :, :, None, None, None]
    nearest = (levels[:, None] - looks).square().sum(2).argmin(1)
    own = colourful & (nearest == shots.colour[:, None, None, None])
    num, num_own = colourful.flatten(1).sum(1), own.flatten(1).sum(1)
    enough = num >= _LEAST_RATIO * colourful[0].numel()
    return torch.where(enough, num_own / num.clamp(min=1), 0.0)


def read_truck_m(grey: Float[Tensor, "N F H W"], covered: Bool[Tensor, "N F H W"]) -> Float[Tensor, " N"]:
    """How far the camera went to the right: the even move under which the frames' walls agree best with the first's.

    Args:
        covered: where no wall is seen.
    """
    num_frames, width = grey.shape[1], grey.shape[3]
    tried = torch.linspace(-_REACH_M, _REACH_M, _NUM_STEPS, device=grey.device)
    wall = (~covered).to(grey)
    errors = []
    for move_m in tried:
        error = torch.zeros(len(grey), device=grey.device)
        for frame in range(1, num_frames):
            # At the wall the frame is as wide as the wall is far: the lens sees 53 degrees.
            shift_px = float(move_m) * width / WALL_M * frame / (num_frames - 1)
            moved, seen = _shifted(grey[:, 0], shift_px), _shifted(wall[:, 0], shift_px) * wall[:, frame]
            column = torch.arange(width, device=grey.device) + shift_px
            seen = seen * ((column >= 0) & (column <= width - 1))
            apart = (moved - grey[:, frame]).square() * seen
            error += apart.flatten(1).sum(1) / seen.flatten(1).sum(1).clamp(min=1)
        errors.append(error)
    return tried[torch.stack(errors).argmin(0)]


def _shifted(rows: Float[Tensor, "N H W"], shift_px: float) -> Float[Tensor, "N H W"]:
    """Values ``shift_px`` further to the right, between pixels in a straight line; the edge goes on outside."""
    width = rows.shape[2]
    column = (torch.arange(width, device=rows.device) + shift_px).clamp(0, width - 1)
    left = column.floor().long()
    share = column - left
    return rows[..., left] * (1 - share) + rows[..., (left + 1).clamp(max=width - 1)] * share
