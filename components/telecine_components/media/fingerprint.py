"""Fingerprint: 64 bits a frame that re-encoding, scaling, brightness, contrast and black bars leave nearly alone.

**Which frames**: those shown at the multiples of 1 / FRAMES_PER_S since the first frame of the file, not of the clip:
for each multiple the first frame that begins at or after it. A clip has those that lie in its span, at least one (its
first frame where none does). So copies whose shots were found a frame or two apart, or that have another frame rate,
were sampled at the same moments, and a walk can take the hash of a frame as it comes, before it knows the clips:
``fingerprint`` of several pictures is that of each one after the other.

The hash is the signs of the 64 lowest frequencies of the picture's cosine transform, the mean left out (pHash:
Zauner 2010, "Implementation and Benchmarking of Perceptual Image Hash Functions"). The picture's aspect is ignored.
"""

import numpy as np
import numpy.typing as npt

FRAMES_PER_S = 4.0
HASH_BYTES = 8
NUM_WORDS, WORD_BITS = 3, 21
"""Parts by which hashes can be looked up: bits of alike frequencies are spread over them, the lowest bit first."""
BLANK = bytes(HASH_BYTES)
"""Stands for a frame that shows too little to know it by, so that the others keep their distance in time."""

MIN_DETAIL = 2.0
"""Grey levels (root mean square of what the 64 frequencies hold) below which a frame is blank."""
BAR_LUMA = 24
"""Rows and columns at the border that are nowhere brighter are a black bar."""
MIN_LIT_RATIO = 0.3
"""What is less than this share of a side is a thing in the dark, and not a picture between bars."""

Pixels = npt.NDArray[np.uint8]
Flags = npt.NDArray[np.bool_]

_SIDE = 9
_FREQUENCIES = sorted(
    [(down, across) for down in range(8) for across in range(8) if (down, across) != (0, 0)] + [(0, 8)],
    key=lambda f: (f[0] ** 2 + f[1] ** 2, f),
)
# Dealt in turn to the words: each then has its share of the low frequencies, which change least.
_ORDER = [_FREQUENCIES[rank] for word in range(NUM_WORDS) for rank in range(word, 63, NUM_WORDS)] + _FREQUENCIES[63:]
_DOWN, _ACROSS = (np.array(axis) for axis in zip(*_ORDER, strict=True))
_ZERO = 1e-6
"""A coefficient that is zero by symmetry is a few rounding errors off it, and those differ between machines."""

_MIRROR = np.packbits(_ACROSS % 2 == 1, bitorder="little")


def fingerprint(lumas: Pixels) -> bytes:
    """The hash of each picture, eight bytes each, in order.

    Args:
        lumas: uint8 [F, h, w], full range, F >= 1; any size, 54 x 96 is plenty.
    """
    return b"".join(_hash(luma[inside_bars(luma)]) for luma in lumas)


def mirrored(hashes: Pixels) -> Pixels:
    """Hashes (uint8 [..., 8]) of the same pictures seen in a mirror: odd frequencies across change their sign."""
    blank = ~hashes.any(axis=-1, keepdims=True)
    flipped: Pixels = np.where(blank, hashes, hashes ^ _MIRROR)
    return flipped


def inside_bars(luma: Pixels) -> tuple[slice, slice]:
    """Rows and columns of a picture [h, w] inside its black bars; all of it where hardly anything is lit."""
    lit = luma > BAR_LUMA
    return _span(np.asarray(lit.any(axis=1))), _span(np.asarray(lit.any(axis=0)))


def _span(lit: Flags) -> slice:
    places = np.flatnonzero(lit)
    if not len(places) or places[-1] + 1 - places[0] < MIN_LIT_RATIO * len(lit):
        return slice(0, len(lit))
    return slice(int(places[0]), int(places[-1]) + 1)


def _hash(luma: Pixels) -> bytes:
    height, width = luma.shape
    transform = _waves(height) @ luma.astype(np.float64) @ _waves(width).T / (height * width)
    values = transform[_DOWN, _ACROSS]
    if np.sqrt((values**2).sum()) < MIN_DETAIL:
        return BLANK
    return np.packbits(values > _ZERO, bitorder="little").tobytes()


def _waves(length: int) -> npt.NDArray[np.float64]:
    """The first cosines [_SIDE, length] of the transform, each with mean square 1."""
    phases = np.outer(np.arange(_SIDE), np.arange(length) + 0.5) * np.pi / length
    waves: npt.NDArray[np.float64] = np.cos(phases) * np.where(np.arange(_SIDE) == 0, 1, np.sqrt(2))[:, None]
    return waves
