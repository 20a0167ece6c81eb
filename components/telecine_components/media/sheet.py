"""A sheet to look at: films in rows, several side by side, a line of text above each row."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

Pixels = npt.NDArray[np.uint8]
Font = ImageFont.ImageFont | ImageFont.FreeTypeFont

_LABEL_PX, _GAP_PX, _BETWEEN_PX = 16, 2, 14
PAPER, _INK = (250, 250, 250), (30, 30, 30)


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
    write_grid(path, [(label, Image.fromarray(strip)) for label, strip in strips])


def write_grid(
    path: Path, cells: Sequence[tuple[str, Image.Image]], *, columns: int = 1, font: Font | None = None
) -> None:
    """Write (label, picture) into a PNG, row by row; every column is as wide as the widest picture."""
    rows = [cells[first : first + columns] for first in range(0, len(cells), columns)]
    heights = [_LABEL_PX + max(picture.height for _, picture in row) + _GAP_PX for row in rows]
    width = max(picture.width for _, picture in cells)
    sheet = Image.new("RGB", (width * columns + _BETWEEN_PX * (columns - 1), sum(heights)), PAPER)
    for place, (label, picture) in enumerate(cells):
        row, column = divmod(place, columns)
        left, top = column * (width + _BETWEEN_PX), sum(heights[:row])
        sheet.paste(_label(label, width, font), (left, top))
        sheet.paste(picture, (left, top + _LABEL_PX))
    sheet.save(path, optimize=True)


def _label(text: str, width_px: int, font: Font | None) -> Image.Image:
    """A line of text, cut off where the next column begins."""
    line = Image.new("RGB", (width_px, _LABEL_PX), PAPER)
    ImageDraw.Draw(line).text((2, 1), text, fill=_INK, font=font)
    return line


def _strip(film: Pixels) -> Pixels:
    """The frames of a film beside each other, as a film of one frame [1, H, F * W, 3]."""
    return np.concatenate(list(film), axis=1)[None]
