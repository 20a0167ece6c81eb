"""A sheet to look at: films in rows, several side by side, a line of text above each row."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

Pixels = npt.NDArray[np.uint8]

_LABEL_PX, _GAP_PX, _BETWEEN_PX = 16, 2, 14
_PAPER, _INK = (250, 250, 250), (30, 30, 30)


def enlarged(frames: Pixels, factor: int) -> Pixels:
    """Repeat every pixel of uint8 [..., H, W, 3] ``factor`` times in both directions."""
    return frames.repeat(factor, axis=-3).repeat(factor, axis=-2)


def side_by_side(films: Sequence[Pixels], factor: int) -> Pixels:
    """Films (uint8 [F, H, W, 3], equal shapes) as one enlarged film with a gap between them."""
    large = [enlarged(film, factor) for film in films]
    gap = np.full((*large[0].shape[:2], _BETWEEN_PX, 3), 250, np.uint8)
    return np.concatenate([part for film in large for part in (gap, film)][1:], axis=2)


def write_side_by_side(path: Path, rows: Sequence[tuple[str, Sequence[Pixels]]], *, factor: int) -> None:
    """Write rows of (label, films of equal shape) into a PNG: the frames of each film from left to right."""
    strips = [(label, side_by_side([_strip(film) for film in films], factor)[0]) for label, films in rows]
    width = max(strip.shape[1] for _, strip in strips)
    sheet = Image.new("RGB", (width, sum(_LABEL_PX + strip.shape[0] + _GAP_PX for _, strip in strips)), _PAPER)
    draw, top = ImageDraw.Draw(sheet), 0
    for label, strip in strips:
        draw.text((2, top + 1), label, fill=_INK)
        sheet.paste(Image.fromarray(strip), (0, top + _LABEL_PX))
        top += _LABEL_PX + strip.shape[0] + _GAP_PX
    sheet.save(path, optimize=True)


def _strip(film: Pixels) -> Pixels:
    """The frames of a film beside each other, as a film of one frame [1, H, F * W, 3]."""
    return np.concatenate(list(film), axis=1)[None]
