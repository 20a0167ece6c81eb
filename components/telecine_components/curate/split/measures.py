"""What is measured of each frame or pair of frames, on the luma that the cut detector looks at anyway."""

import numpy as np
import numpy.typing as npt

REBLUR_PX = 9
SHADOWS, HIGHLIGHTS = 0.01, 0.99

Greys = npt.NDArray[np.uint8]
Scores = npt.NDArray[np.float64]


def motion(greys: Greys) -> Scores:
    """Displacement between successive pictures [F, H, W] -> [F - 1], as a share of the picture's size.

    The gradient-weighted mean of the normal flow: sum |dI/dt| over sum |grad I|. It does not depend on contrast, and
    saturates for displacements beyond the size of the details.
    """
    values = greys.astype(np.int16)
    change = np.abs(values[1:] - values[:-1]).sum(axis=(1, 2), dtype=np.int64)
    across, down = values[:, :, 1:] - values[:, :, :-1], values[:, 1:] - values[:, :-1]
    steepness = sum(np.abs(step).sum(axis=(1, 2), dtype=np.int64) for step in (across, down))
    size_px = (greys.shape[1] + greys.shape[2]) / 2
    moved: Scores = change / np.maximum(1, np.minimum(steepness[:-1], steepness[1:])) / size_px
    return moved


def blur(grey: Greys) -> float:
    """Blur of one picture [H, W]: 0 sharp .. 1 flat (Crete et al. 2007, doi 10.1117/12.702790).

    How much of the variation between neighbours is left when the picture is blurred: a sharp one loses most of it.
    """
    values = grey.astype(np.int32)
    return max(_kept_variation(values), _kept_variation(values.T))


def _kept_variation(rows: npt.NDArray[np.int32]) -> float:
    """How much of the variation along rows [lines, pixels] is left."""
    sums = np.cumsum(rows, axis=1, dtype=np.int32)
    windows = sums[:, REBLUR_PX:] - sums[:, :-REBLUR_PX]
    half = REBLUR_PX // 2
    middle = rows[:, half + 1 : rows.shape[1] - half]
    # Both scaled by REBLUR_PX, so that they stay integers.
    before = REBLUR_PX * np.abs(middle[:, 1:] - middle[:, :-1])
    after = np.abs(windows[:, 1:] - windows[:, :-1])
    total = int(before.sum(dtype=np.int64))
    return 1.0 - int(np.maximum(0, before - after).sum(dtype=np.int64)) / total if total else 1.0


def exposure(histogram: npt.NDArray[np.int64]) -> float:
    """Middle of the tonal range of a luma histogram [256]: 0 all black .. 1 all white.

    The mean of shadows and highlights (1st and 99th percentile). The mean of all pixels would take a night scene with
    lights, which is well exposed, for an underexposed day.
    """
    shares = np.cumsum(histogram) / histogram.sum()
    shadows, highlights = np.searchsorted(shares, (SHADOWS, HIGHLIGHTS))
    return float(shadows + highlights) / 2 / 255
