"""How one picture looks, from its luma (uint8 [H, W], 0 black .. 255 white) a few times a second."""

import dataclasses
import math
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

cv2.setNumThreads(1)

REBLUR_PX = 9
NOISE_BLOCK_PX, NOISE_STRIPS, NOISE_PERCENTILE = 16, 4, 20
NOISE_LEVELS = (6, 249)
"""Blocks darker or brighter than this on average hide their grain."""
GRID_LINES, LEAST_GRID_PX, LEAST_STEP_LEVELS = 48, 4, 2
SHADOWS, HIGHLIGHTS = 0.01, 0.99
BLACK, WHITE = 3, 252
BAR_LEVEL, BAR_RATIO = 6, 0.01
VIVID = 100.0
"""Colourfulness that counts as 1; Hasler and Suesstrunk call 82 highly and 109 extremely colourful."""

Luma = npt.NDArray[np.uint8]
Plane = npt.NDArray[np.float32]


@dataclasses.dataclass(frozen=True)
class Tone:
    """Of a picture's tonal range: its middle, its width, and the share of the picture that lies at its very ends."""

    exposure: float
    contrast: float
    clipping: float


def tone(luma: Luma) -> Tone:
    """Exposure, contrast and clipping, from the 1st and 99th percentile of the luma.

    The mean of all pixels would take a night scene with lights, which is well exposed, for an underexposed day.
    """
    shares = np.cumsum(np.bincount(luma.ravel(), minlength=256)) / luma.size
    shadows, highlights = np.searchsorted(shares, (SHADOWS, HIGHLIGHTS)) / 255
    clipped = shares[BLACK] + 1 - shares[WHITE - 1]
    return Tone(float(shadows + highlights) / 2, float(highlights - shadows), float(clipped))


def blur(luma: Luma) -> float:
    """0 sharp .. 1 flat (Crete et al. 2007, doi 10.1117/12.702790).

    How much of the variation between neighbours is left when the picture is blurred: a sharp one loses most of it.
    """
    return max(_kept_variation(luma), _kept_variation(np.ascontiguousarray(luma.T)))


def _kept_variation(luma: Luma) -> float:
    """How much of the variation along rows is left."""
    half = REBLUR_PX // 2
    if luma.shape[1] <= REBLUR_PX:
        return 1.0
    # Both scaled by REBLUR_PX, so that they stay integers.
    windows = cv2.boxFilter(luma, cv2.CV_16S, (REBLUR_PX, 1), normalize=False)[:, half:-half]
    middle = luma[:, half:-half].astype(np.int16)
    before = REBLUR_PX * cv2.absdiff(middle[:, 1:], middle[:, :-1])
    after = cv2.absdiff(windows[:, 1:], windows[:, :-1])
    total = int(before.sum(dtype=np.int64))
    return 1.0 - int(np.maximum(0, before - after).sum(dtype=np.int64)) / total if total else 1.0


def noise(luma: Luma) -> float:
    """Standard deviation of the grain, as a share of white, in the picture's own pixels.

    The mean of what is left of blocks of 16x16 when planes and edges along rows or columns are taken away (Immerkaer
    1996, doi 10.1006/cviu.1996.0060); of all blocks that are neither black nor white the 20th percentile, because the
    others hold texture. Large pictures are looked at in four strips.
    """
    strips = _strips(luma)
    kernel = np.array([1.0, -2.0, 1.0])
    grain = _block_means(np.abs(cv2.sepFilter2D(strips, cv2.CV_32F, kernel, kernel)))
    level = _block_means(strips.astype(np.float32))
    usable = grain[(level > NOISE_LEVELS[0]) & (level < NOISE_LEVELS[1])]
    if not usable.size:
        return 0.0
    return float(np.percentile(usable, NOISE_PERCENTILE) * np.sqrt(np.pi / 2) / 6 / 255)


def _strips(luma: Luma) -> Luma:
    height = luma.shape[0]
    size = 2 * NOISE_BLOCK_PX
    if height <= 2 * NOISE_STRIPS * size:
        return luma
    starts = np.linspace(0, height - size, NOISE_STRIPS).astype(int)
    return np.concatenate([luma[start : start + size] for start in starts])


def _block_means(values: Plane) -> Plane:
    side = min(NOISE_BLOCK_PX, *values.shape)
    rows, columns = values.shape[0] // side, values.shape[1] // side
    blocks = values[: rows * side, : columns * side]
    return np.asarray(cv2.resize(blocks, (columns, rows), interpolation=cv2.INTER_AREA), np.float32)


def blockiness(luma: Luma) -> float:
    """Steps at the borders of coding blocks, 0 none .. 1 at every place.

    A step is a difference of neighbours that is larger than those on both sides together. Its share among the lines
    across a border, on the grid (of any period from 4 pixels on, and any offset) on which it is highest, over its share
    elsewhere; the lower of that across and that down, because a fence is no grid.
    """
    across = luma[:: max(1, luma.shape[0] // GRID_LINES)]
    down = np.ascontiguousarray(luma[:, :: max(1, luma.shape[1] // GRID_LINES)].T)
    return min(_grid(across), _grid(down))


def _grid(lines: Luma) -> float:
    """How much more often there is a step on the lines' [n, length] most likely grid than beside it."""
    steps = cv2.absdiff(lines[:, 1:], lines[:, :-1]).astype(np.int16)
    middle = steps[:, 1:-1]
    alone = (middle > steps[:, :-2] + steps[:, 2:]) & (middle >= LEAST_STEP_LEVELS)
    share = np.count_nonzero(alone, axis=0) / len(alone)
    longest = len(share) // 4
    if longest < LEAST_GRID_PX:
        return 0.0
    return max((_comb(share, period) for period in _periods(share, longest)), default=0.0)


def _periods(share: npt.NDArray[np.float64], longest: int) -> list[int]:
    """The three distances after which the profile is most like itself."""
    size = 1 << (2 * len(share)).bit_length()
    spectrum = np.fft.rfft(share - np.median(share), size)
    alike = np.fft.irfft(spectrum * spectrum.conj(), size)[: longest + 1]
    alike /= len(share) - np.arange(longest + 1)
    ranked = np.argsort(alike[LEAST_GRID_PX:], kind="stable")[::-1][:3] + LEAST_GRID_PX
    return [int(period) for period in ranked]


def _comb(share: npt.NDArray[np.float64], period: int) -> float:
    whole = len(share) // period * period
    folded = share[:whole].reshape(-1, period).mean(axis=0)
    return max(0.0, float(folded.max() - np.median(folded)))


@dataclasses.dataclass(frozen=True)
class Bars:
    """Black borders of one side, as shares of the picture's height (above and below) and width (left and right)."""

    down: float
    across: float

    @property
    def share(self) -> float:
        """Share of the picture that they cover."""
        return 1.0 - (1 - 2 * self.down) * (1 - 2 * self.across)

    def inside(self, luma: Luma) -> Luma:
        """The picture [H, W] without them; as it is where hardly anything would be left."""
        top, left = math.ceil(self.down * luma.shape[0]), math.ceil(self.across * luma.shape[1])
        inner = luma[top : luma.shape[0] - top, left : luma.shape[1] - left]
        return inner if min(inner.shape) >= 2 * REBLUR_PX else luma


def black_bars(luma: Luma) -> Bars:
    """Rows and columns at the borders in which hardly a pixel is brighter than near black.

    As much on both sides as on the side that has less: bars are drawn around a picture, and what is dark on one side
    alone is a dark thing.
    """
    bright = (luma > BAR_LEVEL).astype(np.uint8)
    down = _border(cv2.reduce(bright, 1, cv2.REDUCE_AVG, dtype=cv2.CV_32F).ravel())
    across = _border(cv2.reduce(bright, 0, cv2.REDUCE_AVG, dtype=cv2.CV_32F).ravel())
    return Bars(down, across)


def _border(shares: npt.NDArray[Any]) -> float:
    lit = np.flatnonzero(shares > BAR_RATIO)
    return min(int(lit[0]), len(shares) - 1 - int(lit[-1])) / len(shares) if lit.size else 0.5


def colourfulness(chroma: npt.NDArray[np.uint8]) -> float:
    """0 grey .. 1 vivid, from Cb and Cr [2, h, w] around 128 (Hasler and Suesstrunk 2003, doi 10.1117/12.477378).

    Their two opponent axes, red against green and yellow against blue, hold no luma, so chroma alone gives them.
    """
    blue, red = chroma.astype(np.float64) - 128
    red_green, yellow_blue = 2.116 * red + 0.344 * blue, 0.344 * red - 1.944 * blue
    spread = np.hypot(red_green.std(), yellow_blue.std())
    return float(min(1.0, (spread + 0.3 * np.hypot(red_green.mean(), yellow_blue.mean())) / VIVID))


def aesthetic(sharpness: float, contrast: float, colour: float, exposure: float) -> float:
    """A proxy of how pleasing a picture looks, 0 .. 1; all arguments 0 .. 1.

    A rule of thumb, not a model of taste: what photographers' manuals and the hand-made features of Datta et al. 2006
    (doi 10.1007/11744078_23) agree on (sharp, full contrast, colourful, neither dark nor bright) in fixed weights. It
    orders technically poor footage below good footage, and says nothing of composition or content.
    """
    balance = 1 - min(1.0, abs(exposure - 0.5) * 2)
    return 0.35 * sharpness + 0.25 * contrast + 0.2 * colour + 0.2 * balance
