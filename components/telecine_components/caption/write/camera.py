"""How the camera moves, from few pictures of a clip: what the picture as a whole does between them.

Corners, one of each small cell of the picture, are followed from picture to picture (pyramidal Lucas-Kanade, checked
backwards). A similarity that many cells all over the picture agree on is the background's; what moves otherwise moves
by itself. The flow of the background is then fitted by

    u = x + x_by_y v' - roll v' + zoom u' + zoom_by_y u' v'
    v = y + roll u' + zoom v' + zoom_by_y v' v'

with (u', v') from the middle, everything in shorter sides of the picture. A camera that only turns or zooms shows near
and far things move alike. One that travels moves what is near, which lies low in most pictures, more: ``x_by_y`` and
``zoom_by_y`` tell a truck from a pan and a dolly from a zoom.
"""

import dataclasses
from collections.abc import Sequence
from itertools import pairwise

import cv2
import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]

CELL_PX = 12
MIN_CORNER = 2e-5
"""Least eigenvalue of a corner; haze and soft shadows have it, flat colour after coding has not."""
MAX_BACKWARD_PX = 0.4
INLIER_PX = 0.8
MOVING_PX = 1.6
"""What differs so much from the background's motion, from picture to picture, moves by itself."""
MAX_FADE = 0.12
"""While light comes or goes so fast, what changes is taken for motion."""
BLOCKS = 4
MIN_BLOCKS = 10
"""Of the picture's 4 x 4 blocks, in how many the background has to be seen: an object lies in fewer."""
STILL_PX = 0.35
STILL_BLOCKS = 1.5
"""So many more blocks must move together before a picture that holds still elsewhere counts as moved."""
SCALE_PX = 0.25
_COUPLING_PRIOR = 0.3
"""Keeps x_by_y and zoom_by_y near zero where few corners speak for them."""


@dataclasses.dataclass(frozen=True, eq=False)
class Step:
    """From one picture to the next.

    Attributes:
        flow: (x, x_by_y, y, roll, zoom, zoom_by_y) of the background, in shorter sides and radians.
        moving: places [N, 2] of corners that do not move with it, and ``moves`` [N, 2], how they move against it, both
            as (column, row) in shares of the width and the height.
    """

    flow: Floats
    moving: Floats
    moves: Floats


@dataclasses.dataclass(frozen=True, kw_only=True)
class CameraMotion:
    """What the background does from the first picture to the last, positive to the right, down, clockwise and inwards.

    Attributes:
        shake: median jump from the course of the motion, per picture, in shorter sides.
        seen_ratio: share of the steps in which a background was found; the rest is unknown where that is small.
    """

    x: float
    x_by_y: float
    y: float
    roll: float
    zoom: float
    zoom_by_y: float
    shake: float
    seen_ratio: float


def steps_of(lumas: Sequence[Pixels]) -> list[Step | None]:
    """Of each pair of successive pictures, uint8 [H, W] of one size; None where no background is seen."""
    cv2.setNumThreads(1)
    return [_step(before, after) for before, after in pairwise(lumas)]


def camera_motion(steps: Sequence[Step | None]) -> CameraMotion:
    """Put steps together: the median of each, times their number, so that single failures do not count."""
    seen = np.array([step.flow for step in steps if step is not None]).reshape(-1, 6)
    if not len(seen):
        return CameraMotion(x=0, x_by_y=0, y=0, roll=0, zoom=0, zoom_by_y=0, shake=0, seen_ratio=0)
    total = np.median(seen, axis=0) * len(steps)
    x, x_by_y, y, roll, zoom, zoom_by_y = (float(value) for value in total)
    jumps = np.abs(np.diff(seen[:, [0, 2]], axis=0, n=2)) if len(seen) > 2 else np.zeros((1, 2))
    return CameraMotion(
        x=x,
        x_by_y=x_by_y,
        y=y,
        roll=roll,
        zoom=zoom,
        zoom_by_y=zoom_by_y,
        shake=float(np.median(jumps.sum(axis=1))),
        seen_ratio=len(seen) / len(steps),
    )


def _step(before: Pixels, after: Pixels) -> Step | None:
    levels = float(before.mean()), float(after.mean())
    if abs(levels[0] - levels[1]) > MAX_FADE * max(levels) + 1:
        return None
    places, moved = _tracks(before, after)
    background = _background(places, moved, before.shape)
    if background is None:
        return None
    height, width = before.shape
    flow, left_px = _fit(places, moved, background, (width, height))
    apart = np.hypot(left_px[:, 0], left_px[:, 1]) > MOVING_PX
    size = np.array((width, height))
    return Step(flow, places[apart] / size, left_px[apart] / size)


def _tracks(before: Pixels, after: Pixels) -> tuple[Floats, Floats]:
    """Places (column, row) [N, 2] in both pictures of the corners that were found again."""
    corners = _corners(before)
    if not len(corners):
        return np.zeros((0, 2)), np.zeros((0, 2))
    ahead, found = _followed(before, after, corners)
    back, found_back = _followed(after, before, ahead)
    good = found & found_back & (np.abs(corners - back).max(axis=1) < MAX_BACKWARD_PX)
    return corners[good].astype(np.float64), ahead[good].astype(np.float64)


def _corners(picture: Pixels) -> npt.NDArray[np.float32]:
    """The strongest corner of each cell that has one, float32 [N, 2]."""
    strength = cv2.cornerMinEigenVal(cv2.GaussianBlur(picture, (0, 0), 0.8), 5, ksize=3)
    rows, columns = (size // CELL_PX for size in picture.shape)
    whole = np.asarray(strength)[: rows * CELL_PX, : columns * CELL_PX].reshape(rows, CELL_PX, columns, CELL_PX)
    cells = whole.swapaxes(1, 2).reshape(rows * columns, CELL_PX**2)
    best = cells.argmax(axis=1)
    row, column = np.divmod(np.arange(rows * columns), columns)
    places = np.stack([column * CELL_PX + best % CELL_PX, row * CELL_PX + best // CELL_PX], axis=1)
    corners: npt.NDArray[np.float32] = places[cells.max(axis=1) > MIN_CORNER].astype(np.float32)
    return corners


def _followed(
    before: Pixels, after: Pixels, places: npt.NDArray[np.float32]
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    ending = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 30, 0.005)
    guess = places[:, None].copy()
    ahead, found, _ = cv2.calcOpticalFlowPyrLK(
        before, after, places[:, None], guess, winSize=(17, 17), maxLevel=3, criteria=ending, minEigThreshold=1e-6
    )
    return np.asarray(ahead, np.float32)[:, 0], np.asarray(found)[:, 0] == 1


def _background(places: Floats, moved: Floats, shape: tuple[int, ...]) -> npt.NDArray[np.bool_] | None:
    """Which corners [N] move together all over the picture; None where no such group reaches far enough."""
    left = np.ones(len(places), np.bool_)
    candidates = [np.hypot(*(moved - places).T) < STILL_PX]
    for _ in range(3):
        on = _largest_group(places, moved, left)
        if on is None:
            break
        candidates.append(on)
        left &= ~on
    reached = [_num_blocks(places[on], shape) + 0.01 * int(on.sum()) for on in candidates]
    reached[0] += STILL_BLOCKS
    best = int(np.argmax(reached))
    return candidates[best] if reached[best] >= MIN_BLOCKS else None


def _largest_group(places: Floats, moved: Floats, among: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_] | None:
    chosen = np.flatnonzero(among)
    if len(chosen) < 6:
        return None
    matrix, on = cv2.estimateAffinePartial2D(
        places[chosen], moved[chosen], ransacReprojThreshold=INLIER_PX, maxIters=500, confidence=0.995
    )
    if matrix is None:
        return None
    group = np.zeros(len(places), np.bool_)
    group[chosen[on[:, 0] == 1]] = True
    return group


def _num_blocks(places: Floats, shape: tuple[int, ...]) -> int:
    height, width = shape
    blocks = (places[:, 1] * BLOCKS // height) * BLOCKS + places[:, 0] * BLOCKS // width
    return len(np.unique(blocks))


def _fit(
    places: Floats, moved: Floats, background: npt.NDArray[np.bool_], size: tuple[int, int]
) -> tuple[Floats, Floats]:
    """The six numbers of the flow, and what it leaves of each corner's motion in pixels [N, 2] (Tukey's biweight)."""
    side = min(size)
    across, down = ((places - np.array(size) / 2) / side).T
    one, none = np.ones_like(across), np.zeros_like(across)
    terms = np.stack(
        [
            np.stack([one, down, none, -down, across, across * down], axis=1),
            np.stack([none, none, one, across, down, down * down], axis=1),
        ]
    )
    wanted = ((moved - places) / side).T
    prior = np.diag([0, 1, 0, 0, 0, 1]) * _COUPLING_PRIOR
    weights = background.astype(np.float64)
    for _ in range(8):
        root = np.sqrt(np.concatenate([weights, weights]))
        matrix = np.concatenate([terms.reshape(-1, 6) * root[:, None], prior])
        flow = np.linalg.lstsq(matrix, np.concatenate([wanted.reshape(-1) * root, np.zeros(6)]), rcond=None)[0]
        left = wanted - terms @ flow
        far = np.hypot(*left)
        scale = max(SCALE_PX / side, 1.48 * float(np.median(far[weights > 0]))) if weights.any() else 1.0
        weights = np.clip(1 - (far / (3 * scale)) ** 2, 0, None) ** 2
    return flow, left.T * side
