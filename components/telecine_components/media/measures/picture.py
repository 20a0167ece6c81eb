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
GRID_LINES, LEAST_GRID_PX, LEAST_STEP_LEVELS = 32, 4, 2
LEAST_DIFFERENCE_LEVELS, LEAST_BORDERS = 1.5, 8
"""Blocks that differ by less show no border; with fewer borders there is nothing to say."""
SHADOWS, HIGHLIGHTS = 0.01, 0.99
BLACK, WHITE = 3, 252
BAR_LEVEL, BAR_RATIO = 6, 0.01
VIVID = 100.0
"""Colourfulness that counts as 1; Hasler and Suesstrunk call 82 highly and 109 extremely colourful."""

Pixels = npt.NDArray[np.uint8]
Luma = Pixels
Plane = npt.NDArray[np.float32]


@dataclasses.dataclass(frozen=True)
class Tone:
    """Of a picture's tonal range: its middle, its width, and the share of the picture that lies at its very ends."""

    exposure: float
    contrast: float
    clipping: float


def tone(rgb: Pixels) -> Tone:
    """Exposure, contrast and clipping of a picture, RGB [H, W, 3].

    The range goes from the 1st percentile of each pixel's darkest channel to the 99th of its brightest. Almost any
    picture has a colour that lacks red, green or blue somewhere, and one that is full of one of them, so well exposed
    pictures differ little by what they show (the dark channel prior: He, Sun and Tang 2009, doi
    10.1109/CVPR.2009.5206515); by luma a saturated blue would pass for dark. The mean of all pixels would take a night
    with lights for an underexposed day.
    """
    red, green, blue = cv2.split(rgb)
    darkest, brightest = cv2.min(cv2.min(red, green), blue), cv2.max(cv2.max(red, green), blue)
    lower, upper = (
        np.cumsum(cv2.calcHist([each], [0], None, [256], [0, 256])) / each.size for each in (darkest, brightest)
    )
    shadows, highlights = np.searchsorted(lower, SHADOWS) / 255, np.searchsorted(upper, HIGHLIGHTS) / 255
    clipped = upper[BLACK] + 1 - lower[WHITE - 1]
    return Tone(float(shadows + highlights) / 2, float(highlights - shadows), float(clipped))


def blur(luma: Luma) -> float:
    """0 sharp .. 1 flat: how much of their steepness edges keep when the picture is blurred once more.

    The mean of rows and columns. Re-blurring is that of Crete et al. (2007, doi 10.1117/12.702790). Fourth powers look
    at the steepest edges alone, as the ratio of gradients at edges of Zhuo and Sim does (2011, doi
    10.1016/j.patcog.2011.03.009): a sum over all pixels would take sky and smooth walls for blurred.
    """
    return (_kept_steepness(luma) + _kept_steepness(np.ascontiguousarray(luma.T))) / 2


def _kept_steepness(luma: Luma) -> float:
    """How much is left of the steepest changes along rows."""
    half = REBLUR_PX // 2
    if luma.shape[1] <= REBLUR_PX:
        return 1.0
    sharp = luma.astype(np.float32)
    soft = np.asarray(cv2.blur(sharp, (REBLUR_PX, 1)), np.float32)
    before, after = (_fourth_powers(each[:, half : each.shape[1] - half]) for each in (sharp, soft))
    return min(1.0, (after / before) ** 0.25) if before else 1.0


def _fourth_powers(values: Plane) -> float:
    """Their sum, over the differences of neighbours in a row."""
    differences = values[:, 1:] - values[:, :-1]
    # Not by a product of BLAS, whose sums depend on its threads.
    return cv2.norm(cv2.multiply(differences, differences), cv2.NORM_L2SQR)


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
    """How much of what coding blocks differ by is steps at their borders: 0 none .. 1 blocks of one level each.

    A block's mean differs from its neighbour's as much in a smooth picture as in a blocky one; a step at their border,
    above the slopes on both sides of it, is there in the blocky one alone. Their ratio grows with the fault and hardly
    depends on what is shown. (Steps set against their surroundings: Muijs and Kirenko 2005, "A no-reference blocking
    artifact measure for adaptive video processing".) The grid is the one, of any period from 4 pixels on and any
    offset, on which steps most often stand alone: larger than those on both sides together. Blocks are square, and the
    lower of both directions counts, because a fence is no grid.
    """
    if min(luma.shape) <= 4 * LEAST_GRID_PX:  # the profile of no grid would repeat itself
        return 0.0
    across = luma[:: max(1, luma.shape[0] // GRID_LINES)]
    down = np.ascontiguousarray(luma[:, :: max(1, luma.shape[1] // GRID_LINES)].T)
    ways = [_Lines.of(across), _Lines.of(down)]
    periods = _periods(ways)
    if not periods:
        return 0.0
    likeliest = max(periods, key=lambda period: sum(way.grid(period)[1] for way in ways))
    return min(way.steps(likeliest) for way in ways)


@dataclasses.dataclass(frozen=True, eq=False)
class _Lines:
    """Lines of a picture to look for a grid on.

    Attributes:
        levels: uint8 [n, length].
        alone: on which share of the lines a step stands alone [length - 3], first that between pixels 1 and 2.
    """

    levels: Luma
    alone: npt.NDArray[np.float64]

    @classmethod
    def of(cls, lines: Luma) -> "_Lines":
        steps = cv2.absdiff(lines[:, 1:], lines[:, :-1])
        # Sums beyond 255 are cut off at 255, which no step exceeds either.
        beside = np.maximum(cv2.add(steps[:, :-2], steps[:, 2:]), np.uint8(LEAST_STEP_LEVELS - 1))
        alone = cv2.compare(steps[:, 1:-1], beside, cv2.CMP_GT)
        return cls(lines, cv2.reduce(alone, 0, cv2.REDUCE_SUM, dtype=cv2.CV_32S)[0] / (255 * len(lines)))

    def alike(self) -> npt.NDArray[np.float64]:
        """How alike the profile of steps is to itself after each distance, up to a quarter of its length."""
        size = 1 << (2 * len(self.alone)).bit_length()
        spectrum = np.fft.rfft(self.alone - np.median(self.alone), size)
        products = np.fft.irfft(spectrum * spectrum.conj(), size)[: len(self.alone) // 4 + 1]
        return np.asarray(products / (len(self.alone) - np.arange(len(products))))

    def grid(self, period: int) -> tuple[int, float]:
        """After which pixel the likeliest grid's first border is, and how sure it is: the more borders the surer."""
        num_borders = len(self.alone) // period
        folded = self.alone[: num_borders * period].reshape(num_borders, period).mean(axis=0)
        first = int(folded.argmax())
        return 1 + first, float(folded[first] - folded.mean()) * math.sqrt(num_borders)

    def steps(self, period: int) -> float:
        """Mean over neighbouring blocks of the step between them over the difference of their means."""
        begin = (self.grid(period)[0] + 1) % period
        edges = np.arange(begin, self.levels.shape[1] - period + 1, period)
        sums = np.add.reduceat(self.levels[:, : edges[-1] + period], edges, axis=1, dtype=np.int32)
        differences = np.diff(sums, axis=1) / period
        places = (slice(begin + period + shift, None, period) for shift in (-2, -1, 0, 1))
        before, left, right, after = (
            self.levels[:, place][:, : differences.shape[1]].astype(np.int16) for place in places
        )
        stepped = (right - left) - (left - before + after - right) / 2
        visible = np.abs(differences) >= LEAST_DIFFERENCE_LEVELS
        if np.count_nonzero(visible) < LEAST_BORDERS:
            return 0.0
        return max(0.0, float(np.clip(stepped[visible] / differences[visible], -1, 1).mean()))


def _periods(ways: list[_Lines]) -> list[int]:
    """The three distances after which the profiles of both directions together are most like themselves."""
    found = [way.alike() for way in ways]
    longest = min(map(len, found))
    alike = found[0][:longest] + found[1][:longest]
    ranked = np.argsort(alike[LEAST_GRID_PX:], kind="stable")[::-1][:3] + LEAST_GRID_PX
    return [int(period) for period in ranked]


@dataclasses.dataclass(frozen=True)
class Bars:
    """Black borders of one side, as shares of the picture's height (above and below) and width (left and right)."""

    down: float
    across: float

    @property
    def share(self) -> float:
        """Share of the picture that they cover."""
        return 1.0 - (1 - 2 * self.down) * (1 - 2 * self.across)

    def inside(self, picture: Pixels) -> Pixels:
        """The picture [H, W] or [H, W, 3] without them; as it is where hardly anything would be left."""
        height, width = picture.shape[:2]
        top, left = math.ceil(self.down * height), math.ceil(self.across * width)
        inner = picture[top : height - top, left : width - left]
        return inner if min(inner.shape[:2]) >= 2 * REBLUR_PX else picture


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
