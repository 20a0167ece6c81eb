"""Inner products of frames with those that follow, from which distances, correlations and mixtures come for free.

Everything that the detector asks of two or three frames is a formula of their inner products. These are sums of
products of integers, so they are exact and depend neither on threads nor on how a film was divided into blocks.
"""

import dataclasses
import functools
import math
from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

from telecine_components.media.glance import CHROMA_WIDTH_PX, HEIGHT_PX, WIDTH_PX, Glance
from telecine_components.media.shots.flow import change_powers

REACH_PAIRS = 33
"""How far apart two frames may be."""
NOISE_POWER = 4.0
"""Added to powers before they divide: two grey levels of noise are no picture."""
FLASH_FRAMES = 3
"""A change that is over after so many frames is a flash."""
_SHRINK = 3
_LUMA_CELLS = (WIDTH_PX // _SHRINK) * (HEIGHT_PX // _SHRINK)
_CHROMA_WEIGHT = 2
"""A cell of chroma covers four of luma, so its square counts four times."""
_ROWS = 64

Sketch = npt.NDArray[np.int16]
Floats = npt.NDArray[np.float64]


def sketches_of(glances: Sequence[Glance]) -> Sketch:
    """Frames as vectors, int16 [F, 864]: luma [18, 32], then Cb and Cr [9, 16] as distances from grey."""
    lumas = _cells([glance.luma for glance in glances])
    chromas = _cells([glance.chroma.reshape(-1, CHROMA_WIDTH_PX) for glance in glances])
    sketches = np.concatenate([lumas, chromas], axis=1).astype(np.int16)
    sketches[:, _LUMA_CELLS:] = _CHROMA_WEIGHT * (sketches[:, _LUMA_CELLS:] - 128)
    return sketches


def _cells(pictures: Sequence[npt.NDArray[np.uint8]]) -> npt.NDArray[np.uint8]:
    """Means over cells of pictures [F, h, w], which are shrunk at once below each other: [F, cells]."""
    tall = np.concatenate(pictures)
    size = tall.shape[1] // _SHRINK, tall.shape[0] // _SHRINK
    return np.asarray(cv2.resize(tall, size, interpolation=cv2.INTER_AREA), np.uint8).reshape(len(pictures), -1)


def contrasts_of(sketches: Sketch) -> Floats:
    """How much there is to see, in grey levels [F]: the deviation of luma from its mean and of chroma from grey."""
    values = sketches.astype(np.float64)
    power = np.einsum("fn,fn->f", values, values) - values[:, :_LUMA_CELLS].sum(axis=1) ** 2 / _LUMA_CELLS
    contrasts: Floats = np.sqrt(power / _LUMA_CELLS)
    return contrasts


def likeness_of(left: Sketch, right: Sketch) -> float:
    """Correlation of two frames, 1 for equal ones however bright they are."""
    x, y = _centred(left), _centred(right)
    return float(x @ y) / max(1.0, math.sqrt(float(x @ x) * float(y @ y)))


def _centred(sketch: Sketch) -> Floats:
    values = sketch.astype(np.float64)
    values[:_LUMA_CELLS] -= values[:_LUMA_CELLS].mean()
    return values


@dataclasses.dataclass(frozen=True, eq=False)
class Products:
    """Of F frames, each with itself and the REACH_PAIRS after it; beyond the last frame they are 0.

    Attributes:
        whole: [REACH_PAIRS + 1, F], per cell, of luma and chroma; whole[k, i] is of frames i and i + k.
        varied: the same without the mean of luma: what is seen, whatever the brightness.
        brightness: mean luma [F].
        change, unmoved: of each pair [F - 1], see :func:`.flow.change_powers`.
    """

    whole: Floats
    varied: Floats
    brightness: Floats
    change: Floats
    unmoved: Floats

    def __len__(self) -> int:
        return len(self.brightness)

    def distance(self, lag: int) -> Floats:
        """Root mean square difference per cell of each frame and the one ``lag`` after it [F - lag]."""
        num, power = max(0, len(self) - lag), self.whole[0]
        distances: Floats = np.sqrt(np.maximum(power[:num] + power[lag:] - 2 * self.whole[lag, :num], 0))
        return distances

    def unlikeness(self, lag: int) -> Floats:
        """One minus the correlation of each frame and the one ``lag`` after it [F - lag]."""
        num, power = max(0, len(self) - lag), self.varied[0] + NOISE_POWER
        unlike: Floats = 1 - self.varied[lag, :num] / np.sqrt(power[:num] * power[lag:])
        return unlike

    @functools.cached_property
    def lasting_change(self) -> tuple[Floats, Floats]:
        """For each pair [F - 1] the least distance, and unlikeness, of the last frames before it and the first after.

        A flash of a few frames changes much, but what was there before comes again.
        """
        least = np.full((2, len(self) - 1), np.inf)
        for lag in range(1, 2 * FLASH_FRAMES + 2):
            for values, kept in zip((self.distance(lag), self.unlikeness(lag)), least, strict=True):
                for before in range(max(0, lag - 1 - FLASH_FRAMES), min(FLASH_FRAMES, lag - 1) + 1):
                    # Frames i - before and i - before + lag.
                    reached = kept[before : before + len(values)]
                    np.minimum(reached, values[: len(reached)], out=reached)
        return least[0], least[1]


def products_of(sketches: Sketch) -> Products:
    """Products of the frames of sketches [F, 864]."""
    vectors = sketches.astype(np.float64)
    num = len(vectors)
    padded = np.concatenate([vectors, np.zeros((REACH_PAIRS + _ROWS, vectors.shape[1]))])
    band = np.empty((REACH_PAIRS + 1, num))
    for start in range(0, num, _ROWS):
        square = padded[start : start + _ROWS] @ padded[start : start + _ROWS + REACH_PAIRS].T
        down, right = square.strides
        shape = REACH_PAIRS + 1, min(_ROWS, num - start)
        band[:, start : start + _ROWS] = np.lib.stride_tricks.as_strided(square, shape, (right, down + right))
    sums = np.concatenate([vectors[:, :_LUMA_CELLS].sum(axis=1), np.zeros(REACH_PAIRS)])
    later = np.lib.stride_tricks.sliding_window_view(sums, num)
    varied = (band - sums[:num] * later / _LUMA_CELLS) / _LUMA_CELLS
    lumas = sketches[:, :_LUMA_CELLS].reshape(num, HEIGHT_PX // _SHRINK, WIDTH_PX // _SHRINK)
    change, unmoved = change_powers(lumas)
    return Products(band / _LUMA_CELLS, varied, sums[:num] / _LUMA_CELLS, change, unmoved)
