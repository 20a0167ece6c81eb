"""A picture of some samples, for people."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

CELL_PX = 96
GAP_PX = 4


def write_contact_sheet(path: Path, samples: Sequence[npt.NDArray[np.uint8]]) -> None:
    """One sample (uint8 [F, H, W, 3]) per row, its frames from left to right, enlarged to be seen."""
    num_frames, height, width = (max(sample.shape[axis] for sample in samples) for axis in range(3))
    scale = max(1, CELL_PX // max(height, width))
    cell_width, cell_height = width * scale + GAP_PX, height * scale + GAP_PX
    sheet = Image.new("RGB", (num_frames * cell_width + GAP_PX, len(samples) * cell_height + GAP_PX), "white")
    for row, frames in enumerate(samples):
        for column, frame in enumerate(frames):
            cell = Image.fromarray(frame).resize(
                (frame.shape[1] * scale, frame.shape[0] * scale), Image.Resampling.NEAREST
            )
            sheet.paste(cell, (GAP_PX + column * cell_width, GAP_PX + row * cell_height))
    sheet.save(path, format="PNG")
