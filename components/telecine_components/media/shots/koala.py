"""The transition detector of Koala-36M (arXiv 2410.08260, section 4.1) as released, with its published constants.

How alike two successive frames are is a linear classifier on two numbers: the correlation of their colour histograms,
and the SSIM of their grey pictures with edges drawn in white. A pair below 0 is a transition, and so is one whose
smoothed score lies far below its recent past.
"""

import cv2
import numpy as np
import numpy.typing as npt

from telecine_components.media.glance import array_of, full_range
from telecine_components.media.planes import Planes
from telecine_components.media.shots.shot import Shot, Transition, shots_between

COLOUR_WEIGHT, STRUCTURE_WEIGHT, BIAS = 4.61480465, 3.75211168, -5.485968377115124
COLOUR_PX, STRUCTURE_PX = 256, 128
EDGE_LOW, EDGE_HIGH = 100, 200
SSIM_WINDOW_PX = 7
SSIM_C1, SSIM_C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
PAST_PAIRS = 8
TRIM_RATIO = 0.2
DIP_SCORE, DIP_SIGMAS, MIN_SIGMA = 0.75, 3.0, 0.2

Pixels = npt.NDArray[np.uint8]
Scores = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]

cv2.setNumThreads(1)


class KoalaFinder:
    """Looks at every frame of a film in the order shown; keeps one number a frame."""

    def __init__(self) -> None:
        self._last: tuple[Pixels, npt.NDArray[np.float32]] | None = None
        self._scores: list[float] = []

    def look_at(self, planes: Planes) -> None:
        """Compare a frame with the one before."""
        picture = _picture(planes)
        now = _with_edges(picture), _histograms(picture)
        if self._last is not None:
            self._scores.append(similarity(colour_correlation(self._last[1], now[1]), ssim(self._last[0], now[0])))
        self._last = now

    def shots(self) -> list[Shot]:
        """The shots of all that was seen; it does not tell dissolves from cuts, and calls both cuts."""
        flags = transition_pairs(np.array(self._scores))
        edges = np.flatnonzero(np.diff(np.concatenate([[False], flags, [False]]).astype(np.int8))).reshape(-1, 2)
        runs = [Transition(int(first), int(end) - 1, "cut") for first, end in edges]
        return shots_between(runs, len(flags) + 1)


def similarity(colour: float, structure: float) -> float:
    """Score of a pair: 2.881 for equal frames, below 0 for a hard cut."""
    return COLOUR_WEIGHT * colour + STRUCTURE_WEIGHT * structure + BIAS


def colour_correlation(left: npt.NDArray[np.float32], right: npt.NDArray[np.float32]) -> float:
    """Correlation of two sets of histograms; two that are flat count as alike."""
    return float(cv2.compareHist(left, right, cv2.HISTCMP_CORREL))


def ssim(left: Pixels, right: Pixels) -> float:
    """Structural similarity of two pictures [H, W]: uniform 7x7 window, sample covariance, borders left out."""
    x, y = left.astype(np.float64), right.astype(np.float64)
    mean_x, mean_y, mean_xx, mean_yy, mean_xy = (
        cv2.blur(each, (SSIM_WINDOW_PX, SSIM_WINDOW_PX)) for each in (x, y, x * x, y * y, x * y)
    )
    sample = SSIM_WINDOW_PX**2 / (SSIM_WINDOW_PX**2 - 1)
    var_x, var_y = sample * (mean_xx - mean_x * mean_x), sample * (mean_yy - mean_y * mean_y)
    cov = sample * (mean_xy - mean_x * mean_y)
    top = (2 * mean_x * mean_y + SSIM_C1) * (2 * cov + SSIM_C2)
    bottom = (mean_x**2 + mean_y**2 + SSIM_C1) * (var_x + var_y + SSIM_C2)
    border = SSIM_WINDOW_PX // 2
    return float((top / bottom)[border:-border, border:-border].mean())


def transition_pairs(scores: Scores) -> Flags:
    """Which pairs [P] are transitions."""
    flags: Flags = scores < 0
    if len(scores) <= PAST_PAIRS:
        return flags
    smooth = scores.copy()
    smooth[1:-1] = (scores[:-2] + scores[1:-1] + scores[2:]) / 3
    past = np.sort(np.lib.stride_tricks.sliding_window_view(smooth, PAST_PAIRS)[:-1], axis=1)
    typical = past[:, int(PAST_PAIRS * TRIM_RATIO) : int(PAST_PAIRS * (1 - TRIM_RATIO))]
    floor = typical.mean(axis=1) - DIP_SIGMAS * np.maximum(MIN_SIGMA, typical.std(axis=1))
    now = smooth[PAST_PAIRS:]
    flags[PAST_PAIRS:] |= (now < DIP_SCORE) & (now < floor)
    return flags


def _picture(planes: Planes) -> Pixels:
    """BGR [256, 256, 3], bilinear and in BT.601, as OpenCV gives it; shrunk before the colours are converted."""
    luma, cb, cr = (
        np.asarray(cv2.resize(array_of(plane), (COLOUR_PX, COLOUR_PX), interpolation=cv2.INTER_LINEAR), np.uint8)
        for plane in (planes.y, planes.cb, planes.cr)
    )
    if not planes.full_range:
        luma, cb, cr = full_range(luma, cb, cr)
    return np.asarray(cv2.cvtColor(cv2.merge([luma, cr, cb]), cv2.COLOR_YCrCb2BGR), np.uint8)


def _histograms(picture: Pixels) -> npt.NDArray[np.float32]:
    """Of each channel of [H, W, 3], 254 bins: black bars and burnt-out areas are left out."""
    counts = [cv2.calcHist([picture], [channel], None, [254], [1, 255]) for channel in range(3)]
    return np.asarray(counts, np.float32)


def _with_edges(picture: Pixels) -> Pixels:
    """The grey picture [128, 128] of BGR with its edges in white."""
    grey = cv2.resize(cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY), (STRUCTURE_PX, STRUCTURE_PX))
    return np.maximum(grey, cv2.Canny(grey, EDGE_LOW, EDGE_HIGH)).astype(np.uint8)
