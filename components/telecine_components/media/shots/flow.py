"""How much of what changes from frame to frame is the picture moving as a whole: a pan, a tilt, a zoom or a roll.

One step of Lucas and Kanade's method (1981) on the sketch: the motion of four parameters that explains the difference
of two frames best, by least squares on their mean's gradients. It reaches about a cell a frame, which is a third of the
view a second; what moves faster is no mixture of its ends either.
"""

import numpy as np
import numpy.typing as npt

_RIDGE = 64.0
"""Added to the power of each gradient: where there are hardly any, nothing is told from them."""
_PARAMETERS = 4
_PAIRS = 64
"""Worked through at a time, so that they stay in the processor's cache."""

Floats = npt.NDArray[np.float64]


def change_powers(lumas: npt.NDArray[np.int16]) -> tuple[Floats, Floats]:
    """Change of each pair of frames [F, h, w], brightness aside, and what of it no motion explains.

    Returns:
        Two arrays [F - 1]: mean squares per cell, in grey levels.
    """
    num = len(lumas) - 1
    power, unmoved = np.empty(num), np.empty(num)
    for start in range(0, num, _PAIRS):
        part = slice(start, start + _PAIRS)
        power[part], unmoved[part] = _powers(lumas[start : start + _PAIRS + 1].astype(np.float64))
    return power, unmoved


def _powers(values: Floats) -> tuple[Floats, Floats]:
    height, width = values.shape[1] - 2, values.shape[2] - 2
    y, x = np.mgrid[:height, :width] - np.array([height - 1, width - 1])[:, None, None] / 2
    doubled = values[1:] + values[:-1]
    rows = np.empty((len(doubled), _PARAMETERS + 1, height, width))
    across, down, zoomed, rolled, change = rows.swapaxes(0, 1)
    across[:] = (doubled[:, 1:-1, 2:] - doubled[:, 1:-1, :-2]) / 4
    down[:] = (doubled[:, 2:, 1:-1] - doubled[:, :-2, 1:-1]) / 4
    zoomed[:] = x * across + y * down
    rolled[:] = x * down - y * across
    change[:] = (values[1:] - values[:-1])[:, 1:-1, 1:-1]
    # All are multiples of an eighth, so that their products and sums are exact.
    cells = height * width
    rows = rows.reshape(len(rows), _PARAMETERS + 1, cells)
    sums = rows.sum(axis=2)
    products = rows @ rows.transpose(0, 2, 1) - sums[:, :, None] * sums[:, None] / cells
    along, power = products[:, :-1, -1:], products[:, -1, -1]
    turn = (x**2 + y**2).mean()
    gram = products[:, :-1, :-1] + _RIDGE * np.diag([1, 1, turn, turn])
    explained = (along * np.linalg.solve(gram, along)).sum(axis=(1, 2))
    return power / cells, np.maximum(power - explained, 0) / cells
