"""What moves by itself, against the background: how many places of the picture, where, how large and which way."""

import dataclasses
from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

from telecine_components.caption.write.camera import Step

Codes = npt.NDArray[np.intp]
Floats = npt.NDArray[np.float64]

GRID = 16
"""Cells along each side of the picture: corners of one thing lie in the same or in neighbouring cells."""
MIN_CORNERS = 2
MIN_STEPS_RATIO = 0.3
COHERENCE = 0.7


@dataclasses.dataclass(frozen=True, kw_only=True)
class Things:
    """Over a clip.

    Attributes:
        num: how many at a time, typically; one from several it tells well, two from three badly.
        area: of the largest, as a share of the picture.
        place: (column, row) of their middle in shares of the picture.
        move: how far they go in a step, (columns, rows) in shares; near zero where they go different ways.
        coherent: whether they go the same way.
        spots: cells (row, column) in which they were, for each step; none where no background was seen.
    """

    num: int
    area: float
    place: tuple[float, float]
    move: tuple[float, float]
    coherent: bool
    spots: tuple[npt.NDArray[np.bool_], ...]


def things_of(steps: Sequence[Step | None]) -> Things | None:
    """What moves by itself in most steps; None where nothing does, or no background is known to move against."""
    found = [None if step is None else _groups(step) for step in steps]
    known = [groups for groups in found if groups is not None]
    busy = [groups for groups in known if groups.num]
    if not busy or len(busy) < MIN_STEPS_RATIO * len(known):
        return None
    moves = np.concatenate([groups.moves for groups in busy])
    mean, speed = moves.mean(axis=0), float(np.hypot(*moves.T).mean())
    place = np.concatenate([groups.places for groups in busy]).mean(axis=0)
    return Things(
        num=round(float(np.median([groups.num for groups in busy]))),
        area=float(np.median([groups.area for groups in busy])),
        place=(float(place[0]), float(place[1])),
        move=(float(mean[0]), float(mean[1])),
        coherent=float(np.hypot(*mean)) > COHERENCE * speed,
        spots=tuple(np.zeros((GRID, GRID), np.bool_) if groups is None else groups.cells for groups in found),
    )


@dataclasses.dataclass(frozen=True, eq=False)
class _Groups:
    num: int
    area: float
    cells: npt.NDArray[np.bool_]
    places: Floats
    moves: Floats


def _groups(step: Step) -> _Groups:
    cells = np.zeros((GRID, GRID), np.uint8)
    columns, rows = np.minimum(step.moving * GRID, GRID - 1).astype(int).T.reshape(2, -1)
    cells[rows, columns] = 1
    # One thing's corners lie along its outline, a cell apart or two.
    _, labels = cv2.connectedComponents(cv2.dilate(cells, np.ones((2, 2), np.uint8)), connectivity=8)
    of_corner = labels[rows, columns]
    counts = np.bincount(of_corner, minlength=1)
    large = np.flatnonzero(counts >= MIN_CORNERS)
    large = large[large > 0]
    inside = np.isin(of_corner, large)
    sizes = [int((labels == label).sum()) / GRID**2 for label in large]
    return _Groups(
        num=len(large),
        area=max(sizes, default=0.0),
        cells=(cells > 0) & np.isin(labels, large),
        places=step.moving[inside],
        moves=step.moves[inside],
    )
