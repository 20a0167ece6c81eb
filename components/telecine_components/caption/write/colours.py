"""Names of colours, as people use them, and what a picture is made of in these names."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]
Codes = npt.NDArray[np.intp]
Floats = npt.NDArray[np.float64]

NAMES = (
    "black",
    "dark grey",
    "grey",
    "light grey",
    "white",
    "red",
    "orange",
    "yellow",
    "green",
    "cyan",
    "blue",
    "purple",
    "pink",
    "brown",
    "beige",
)
_HUES = ("red", "orange", "yellow", "green", "cyan", "blue", "purple", "pink", "red")
_HUE_ENDS_DEG = (14, 42, 62, 160, 195, 258, 292, 338)
"""Where one name of a full colour ends and the next begins on the circle of hues."""
_RARE = 0.02
"""Share below which a colour is not the more conspicuous for being rarer."""
_BLACK, _GREYS = 40, (90, 150, 205)
_GREY_CHROMA, _GREY_SATURATION = 16, 0.16
_BROWN_VALUE, _BEIGE_SATURATION = 165, 0.45


def names_of(rgb: Pixels) -> Codes:
    """The index into :data:`NAMES` of every pixel of uint8 [..., 3]."""
    levels = rgb.astype(np.float64)
    value, chroma = levels.max(axis=-1), np.ptp(levels, axis=-1)
    saturation = chroma / np.maximum(value, 1)
    red, green, blue = np.moveaxis(levels, -1, 0)
    span = np.maximum(chroma, 1)
    hue = np.where(
        value == red, (green - blue) / span, np.where(value == green, 2 + (blue - red) / span, 4 + (red - green) / span)
    )
    hue_deg = (60 * hue) % 360
    found = np.array([NAMES.index(name) for name in _HUES])[np.digitize(hue_deg, _HUE_ENDS_DEG)]
    warm = (hue_deg >= 14) & (hue_deg < 52)
    pale = warm & (saturation < _BEIGE_SATURATION)
    found = np.where(warm & (value < _BROWN_VALUE), NAMES.index("brown"), found)
    found = np.where(pale & (value >= _BROWN_VALUE), NAMES.index("beige"), found)
    greys = 1 + np.digitize(levels.mean(axis=-1), _GREYS)
    found = np.where((chroma < _GREY_CHROMA) | (saturation < _GREY_SATURATION), greys, found)
    return np.where(value < _BLACK, 0, found)


def shares(codes: Codes) -> Floats:
    """How much of the pixels each of :data:`NAMES` has, 0..1."""
    counted: Floats = np.bincount(codes.reshape(-1), minlength=len(NAMES)) / max(1, codes.size)
    return counted


def commonest(codes: Codes, *, min_share: float) -> str | None:
    """The one name that at least ``min_share`` of the pixels have, if there is one."""
    counted = shares(codes)
    best = int(counted.argmax())
    return NAMES[best] if counted[best] >= min_share else None


def conspicuous(patch: Codes, everywhere: Codes, *, min_share: float) -> str | None:
    """The name that a patch has more of than a random part of the picture, if at least ``min_share`` of it has it."""
    here, usual = shares(patch), shares(everywhere)
    best = int(((here - usual) / np.sqrt(usual + _RARE)).argmax())
    return NAMES[best] if here[best] >= min_share else None


def listed(words: Sequence[str]) -> str:
    """Words with commas and an "and"."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
