"""Y'CbCr and R'G'B', 8 bit: the matrices that footage uses, in numpy, so that bytes depend on nothing else."""

import dataclasses

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]


@dataclasses.dataclass(frozen=True)
class Matrix:
    """Weights of red and blue in luma (ITU-R BT.601, BT.709 and BT.2020)."""

    red: float
    blue: float

    @property
    def green(self) -> float:
        """Weight of green: the three sum to one."""
        return 1.0 - self.red - self.blue


BT601 = Matrix(0.299, 0.114)
BT709 = Matrix(0.2126, 0.0722)
BT2020 = Matrix(0.2627, 0.0593)
_BY_CODE = {1: BT709, 5: BT601, 6: BT601, 9: BT2020}
"""Codes of ISO/IEC 23091-2 (matrix coefficients), as AVFrame.colorspace has them."""


def matrix_of(code: int, height_px: int) -> Matrix:
    """The matrix of a frame; where the file does not say, by height, as players guess it."""
    return _BY_CODE.get(code, BT709 if height_px >= 720 else BT601)


def yuv_to_rgb(yuv: Pixels, matrix: Matrix, *, full_range: bool) -> Pixels:
    """Y'CbCr uint8 [..., 3] to R'G'B' uint8 [..., 3]."""
    low, luma_span, chroma_span = (0.0, 255.0, 255.0) if full_range else (16.0, 219.0, 224.0)
    y = (yuv[..., 0].astype(np.float64) - low) / luma_span
    cb = (yuv[..., 1].astype(np.float64) - 128.0) / chroma_span
    cr = (yuv[..., 2].astype(np.float64) - 128.0) / chroma_span
    red = y + 2 * (1 - matrix.red) * cr
    blue = y + 2 * (1 - matrix.blue) * cb
    green = (y - matrix.red * red - matrix.blue * blue) / matrix.green
    rgb = np.stack([red, green, blue], axis=-1)
    return np.clip(np.rint(rgb * 255.0), 0, 255).astype(np.uint8)


def to_rgb(matrix: Matrix, *, full_range: bool) -> npt.NDArray[np.float64]:
    """What :func:`yuv_to_rgb` does but for rounding, as the affine map [3, 4] from (Y', Cb, Cr, 1) to (R', G', B')."""
    low, luma_span, chroma_span = (0.0, 255.0, 255.0) if full_range else (16.0, 219.0, 224.0)
    red, blue = np.array([1, 0, 2 * (1 - matrix.red)]), np.array([1, 2 * (1 - matrix.blue), 0])
    green = (np.array([1, 0, 0]) - matrix.red * red - matrix.blue * blue) / matrix.green
    scaled = np.stack([red, green, blue]) * 255 / np.array([luma_span, chroma_span, chroma_span])
    return np.column_stack([scaled, scaled @ -np.array([low, 128, 128])])


def rgb_to_yuv420(rgb: Pixels, matrix: Matrix) -> tuple[Pixels, Pixels, Pixels]:
    """R'G'B' uint8 [H, W, 3] with even H and W to limited-range Y' [H, W], Cb and Cr [H/2, W/2] (means of 2x2)."""
    parts = rgb.astype(np.float64) / 255.0
    red, green, blue = parts[..., 0], parts[..., 1], parts[..., 2]
    y = matrix.red * red + matrix.green * green + matrix.blue * blue
    cb = (blue - y) / (2 * (1 - matrix.blue))
    cr = (red - y) / (2 * (1 - matrix.red))
    height, width = y.shape
    halves = [part.reshape(height // 2, 2, width // 2, 2).mean(axis=(1, 3)) for part in (cb, cr)]
    levels = [np.rint(16.0 + 219.0 * y), *(np.rint(128.0 + 224.0 * half) for half in halves)]
    y8, cb8, cr8 = (np.clip(level, 0, 255).astype(np.uint8) for level in levels)
    return y8, cb8, cr8
