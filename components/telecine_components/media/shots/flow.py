"""How much of what changes from frame to frame is the picture moving as a whole: a pan, a tilt, a zoom or a roll.

One step of Lucas and Kanade's method (1981) on the sketch: the motion of four parameters that explains the difference
of two frames best, by least squares on their mean's gradients. It reaches about a cell a frame, which is a third of the
view a second; what moves faster is no mixture of its ends either.
"""

import numpy as np
import numpy.typing as npt

_RIDGE = 64.0
"""Added to the power of each gradient: where there are hardly any, nothing is told from them."""

Floats = npt.NDArray[np.float64]


def change_powers(lumas: npt.NDArray[np.int16]) -> tuple[Floats, Floats]:
    """Change of each pair of frames [F, h, w], brightness aside, and what of it no motion explains.

    Returns:
        Two arrays [F - 1]: mean squares per cell, in grey levels.
    """
    values = lumas.astype(np.float64)
    change = (values[1:] - values[:-1])[:, 1:-1, 1:-1]
    doubled = values[1:] + values[:-1]  # integers, so that sums of products stay exact
    across = (doubled[:, 1:-1, 2:] - doubled[:, 1:-1, :-2]) / 4
    down = (doubled[:, 2:, 1:-1] - doubled[:, :-2, 1:-1]) / 4
    height, width = change.shape[1:]
    y, x = np.mgrid[:height, :width] - np.array([height - 1, width - 1])[:, None, None] / 2
    modes = np.stack([across, down, x * across + y * down, x * down - y * across], axis=1)
    modes = _centred(modes.reshape(len(change), 4, -1))
    change = _centred(change.reshape(len(change), 1, -1))
    gram = modes @ modes.transpose(0, 2, 1)
    gram[:, range(4), range(4)] += _RIDGE * np.array([1, 1, (x**2 + y**2).mean(), (x**2 + y**2).mean()])
    along = modes @ change.transpose(0, 2, 1)
    explained = (along * np.linalg.solve(gram, along)).sum(axis=(1, 2))
    power = (change**2).sum(axis=(1, 2))
    cells = height * width
    return power / cells, np.maximum(power - explained, 0) / cells


def _centred(values: Floats) -> Floats:
    centred: Floats = values - values.mean(axis=-1, keepdims=True)
    return centred
