"""How alike two successive frames are: the colour-structure score of Koala-36M (arXiv 2410.08260, section 4.1).

Colour is the correlation of histograms, structure the SSIM of the grey picture with its edges drawn in white. The
released detector's constants are kept; edges are found as by Canny, but hysteresis grows by GROWTH_STEPS pixels only.
All sums are of integers, so results do not depend on the order in which they are added up.
"""

import numpy as np
import numpy.typing as npt

COLOUR_WEIGHT, STRUCTURE_WEIGHT, BIAS = 4.61480465, 3.75211168, -5.485968377
EDGE_LOW, EDGE_HIGH = 100, 200
GROWTH_STEPS = 4
SSIM_WINDOW_PX = 7
SSIM_C1, SSIM_C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2

Greys = npt.NDArray[np.uint8]
Histograms = npt.NDArray[np.int64]
Scores = npt.NDArray[np.float64]


def similarity(colour: Scores, structure: Scores) -> Scores:
    """Score per pair: 2.881 for equal frames, below 0 for a hard cut."""
    return COLOUR_WEIGHT * colour + STRUCTURE_WEIGHT * structure + BIAS


def colour_correlation(histograms: Histograms) -> Scores:
    """Mean over channels of the correlation of successive histograms.

    Args:
        histograms: [F, channels, 256]; bins 0 and 255 (black bars, burnt-out areas) are left out.

    Returns:
        [F - 1]; a channel that is empty in both frames counts as 1, in one of them as 0.
    """
    bins = histograms[..., 1:255].astype(np.float64)
    centred = bins - bins.mean(axis=-1, keepdims=True)
    norms = np.sqrt((centred**2).sum(axis=-1))
    products = (centred[:-1] * centred[1:]).sum(axis=-1)
    scale = norms[:-1] * norms[1:]
    flat = ((norms[:-1] == 0) & (norms[1:] == 0)).astype(np.float64)
    correlation = np.divide(products, scale, out=flat, where=scale > 0)
    means: Scores = correlation.mean(axis=-1)
    return means


def with_edges(greys: Greys) -> Greys:
    """Grey pictures [F, H, W] with their edges in white."""
    padded = np.pad(greys.astype(np.int16), ((0, 0), (1, 1), (1, 1)), mode="edge")
    across = padded[:, :-2] + 2 * padded[:, 1:-1] + padded[:, 2:]
    down = padded[:, :, :-2] + 2 * padded[:, :, 1:-1] + padded[:, :, 2:]
    gx, gy = across[:, :, 2:] - across[:, :, :-2], down[:, 2:] - down[:, :-2]
    ridges = _ridges(gx, gy)
    return np.maximum(greys, np.where(_grow(ridges > EDGE_HIGH, ridges > EDGE_LOW), 255, 0).astype(np.uint8))


def structure_similarity(pictures: Greys) -> Scores:
    """SSIM of successive pictures [F, H, W] -> [F - 1]; uniform 7x7 window, sample covariance."""
    count = SSIM_WINDOW_PX**2
    values = pictures.astype(np.int32)
    sums = _window_sums(values)
    # count^2 times (co)variances and products of means, exact in 32 bits.
    sums_squared = sums * sums
    variances = (count * _window_sums(values * values) - sums_squared).astype(np.float32)
    means_product = sums[:-1] * sums[1:]
    covariances = (count * _window_sums(values[:-1] * values[1:]) - means_product).astype(np.float32)
    c1, c2 = np.float32(SSIM_C1 * count**2), np.float32(SSIM_C2 * count * (count - 1))
    top = (2 * means_product.astype(np.float32) + c1) * (2 * covariances + c2)
    bottom = ((sums_squared[:-1] + sums_squared[1:]).astype(np.float32) + c1) * (variances[:-1] + variances[1:] + c2)
    means: Scores = (top / bottom).mean(axis=(1, 2), dtype=np.float64)
    return means


def _ridges(gx: npt.NDArray[np.int16], gy: npt.NDArray[np.int16]) -> npt.NDArray[np.int16]:
    """Gradient magnitude |gx| + |gy| where it is the largest across the edge, else 0."""
    ax, ay = np.abs(gx), np.abs(gy)
    magnitude = ax + ay
    padded = np.pad(magnitude, ((0, 0), (1, 1), (1, 1)))
    # Sectors of 45 degrees; 5 / 12 is tan(22.5 degrees) in numbers that 16 bits hold.
    level, upright = 12 * ay < 5 * ax, 12 * ax < 5 * ay
    falling = (gx < 0) == (gy < 0)
    peaks = [_peaks(padded, *step) for step in ((0, 1), (1, 0), (1, 1), (1, -1))]
    keep = np.select([level, upright, falling], peaks[:3], peaks[3])
    return np.where(keep, magnitude, 0)


def _peaks(padded: npt.NDArray[np.int16], down: int, right: int) -> npt.NDArray[np.bool_]:
    centre = padded[:, 1:-1, 1:-1]
    peaks: npt.NDArray[np.bool_] = (centre > _shifted(padded, -down, -right)) & (
        centre >= _shifted(padded, down, right)
    )
    return peaks


def _shifted(padded: npt.NDArray[np.int16], down: int, right: int) -> npt.NDArray[np.int16]:
    height, width = padded.shape[1] - 2, padded.shape[2] - 2
    return padded[:, 1 + down : 1 + down + height, 1 + right : 1 + right + width]


def _grow(strong: npt.NDArray[np.bool_], weak: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Strong pixels, and weak ones that touch them over at most GROWTH_STEPS pixels."""
    grown = strong
    for _ in range(GROWTH_STEPS):
        rows = np.pad(grown, ((0, 0), (1, 1), (0, 0)))
        rows = rows[:, :-2] | rows[:, 1:-1] | rows[:, 2:]
        both = np.pad(rows, ((0, 0), (0, 0), (1, 1)))
        grown = weak & (both[:, :, :-2] | both[:, :, 1:-1] | both[:, :, 2:])
    return grown


def _window_sums(values: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
    rows = np.cumsum(values, axis=1, dtype=np.int32)
    rows[:, SSIM_WINDOW_PX:] -= rows[:, :-SSIM_WINDOW_PX].copy()
    both = np.cumsum(rows[:, SSIM_WINDOW_PX - 1 :], axis=2, dtype=np.int32)
    both[:, :, SSIM_WINDOW_PX:] -= both[:, :, :-SSIM_WINDOW_PX].copy()
    return both[:, :, SSIM_WINDOW_PX - 1 :]
