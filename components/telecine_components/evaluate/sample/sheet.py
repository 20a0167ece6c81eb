"""A contact sheet: one row per film, its prompt above its frames."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

_LABEL_PX, _GAP_PX = 16, 2
_PAPER, _INK = (250, 250, 250), (30, 30, 30)


def upscale(frames: np.ndarray, factor: int) -> np.ndarray:
    """Repeat every pixel of uint8 [..., H, W, 3] ``factor`` times in both directions."""
    return frames.repeat(factor, axis=-3).repeat(factor, axis=-2)


def write_contact_sheet(path: Path, films: Sequence[np.ndarray], labels: Sequence[str], *, factor: int) -> None:
    """Write films (uint8 [F, H, W, 3], equal shapes) as rows of upscaled frames into a PNG."""
    num_frames, height, width, _ = films[0].shape
    row_px = _LABEL_PX + height * factor + _GAP_PX
    sheet = Image.new("RGB", (num_frames * (width * factor + _GAP_PX), len(films) * row_px), _PAPER)
    draw = ImageDraw.Draw(sheet)
    for row, (film, label) in enumerate(zip(films, labels, strict=True)):
        draw.text((2, row * row_px + 1), label, fill=_INK)
        for column, frame in enumerate(upscale(film, factor)):
            place = (column * (width * factor + _GAP_PX), row * row_px + _LABEL_PX)
            sheet.paste(Image.fromarray(frame), place)
    sheet.save(path, optimize=True)
