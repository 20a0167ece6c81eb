"""What was laid over a clip: edges that stay exactly where they are, while what is behind them moves."""

import dataclasses

import cv2
import numpy as np
import numpy.typing as npt

cv2.setNumThreads(1)

EDGE_LEVELS, STILL_EDGE_LEVELS = 36.0, 100.0
"""Slope of an edge, in levels a pixel, from which it counts: where the picture around it moves, and where it does not
and only such steep edges as graphics have tell."""
MOVING_LEVELS, MOVING_RATIO = 6.0, 0.4
WINDOWS = ((1 / 16, 0.12), (1 / 4, 0.02))
"""Windows, as shares of the picture's height, and how much of one edges of either direction fill where a mark is."""
CORNER_RATIO = 0.42
LOGO_RATIO = 0.01

Lumas = npt.NDArray[np.uint8]
Plane = npt.NDArray[np.float32]
Places = npt.NDArray[np.intp]


@dataclasses.dataclass(frozen=True)
class Overlay:
    """What lies over a clip.

    Attributes:
        text: share of the picture under steady marks, those in the corners left out.
        logo: 0 .. 1, 1 - exp(-a / 1 %) of the share a of the picture that steady marks in one corner cover.
    """

    text: float
    logo: float


def overlay(lumas: Lumas) -> Overlay:
    """Steady marks over a clip, from pictures [F, h, w] spread over it.

    An edge is as steady as the mean of its slope over time exceeds the deviation from it. A mark is where steady edges
    in both directions lie close together, which lettering has and a window frame or a horizon has not; marks with a gap
    of a letter between them are one. One that lies wholly in a corner is a logo, any other is text. Before a still
    background nothing tells a painted sign from a title, so there only edges count that are as steep as a graphic's.
    """
    marks = _marks(lumas)
    reach = max(3, lumas.shape[1] // 7 | 1)
    letter = np.ones((reach // 2 | 1, reach), np.uint8)
    joined = cv2.dilate(marks, letter)
    count, labels = cv2.connectedComponents(joined, connectivity=8)
    covered = cv2.erode(joined, letter) > 0
    corners, text = np.zeros(4), 0.0
    for label in range(1, count):
        rows, columns = np.nonzero((labels == label) & covered)
        corner = _corner(rows, columns, marks.shape)
        if corner is None:
            text += rows.size / marks.size
        else:
            corners[corner] += rows.size / marks.size
    return Overlay(float(text), float(1 - np.exp(-corners.max() / LOGO_RATIO)))


def _marks(lumas: Lumas) -> npt.NDArray[np.uint8]:
    """Where the marks are, 0 or 1 [h, w]."""
    values = lumas.astype(np.float32)
    height = lumas.shape[1]
    moving = (_over_time(values)[1] > MOVING_LEVELS).astype(np.float32)
    near = height // 4 | 1
    least = np.where(cv2.blur(moving, (near, near)) > MOVING_RATIO, EDGE_LEVELS, STILL_EDGE_LEVELS)
    edges = [(_steady(values, axis) > least).astype(np.float32) for axis in (1, 2)]
    dense = np.zeros(values.shape[1:], np.bool_)
    for share, ratio in WINDOWS:
        side = max(3, round(height * share) | 1)
        dense |= np.minimum(*(cv2.blur(edge, (side, side)) for edge in edges)) > ratio
    close = max(3, height // 32 | 1)
    found: npt.NDArray[np.uint8] = (dense & (cv2.dilate(np.maximum(*edges), np.ones((close, close))) > 0)).astype(
        np.uint8
    )
    return found


def _steady(values: Plane, axis: int) -> Plane:
    """By how much the mean slope along an axis of [F, h, w] exceeds its deviation -> [h, w]."""
    mean, deviation = _over_time(np.diff(values, axis=axis))
    steady = np.abs(mean) - deviation
    padded: Plane = np.pad(steady, ((0, axis == 1), (0, axis == 2)))
    return padded


def _over_time(values: Plane) -> tuple[Plane, Plane]:
    """Mean and standard deviation of whole levels [F, h, w] over time."""
    mean: Plane = values.mean(axis=0)
    variance = np.einsum("fhw,fhw->hw", values, values) / len(values) - mean * mean
    return mean, np.sqrt(np.maximum(0, variance))


def _corner(rows: Places, columns: Places, shape: tuple[int, ...]) -> int | None:
    """Which corner pixels lie in, if in any."""
    high, wide = CORNER_RATIO * shape[0], CORNER_RATIO * shape[1]
    at_row = [rows.max() < high, rows.min() >= shape[0] - high]
    at_column = [columns.max() < wide, columns.min() >= shape[1] - wide]
    if not any(at_row) or not any(at_column):
        return None
    return 2 * at_row.index(True) + at_column.index(True)
