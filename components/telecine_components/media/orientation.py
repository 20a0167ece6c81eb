"""How a stored picture is turned, and perhaps mirrored, before it is shown: what a file's display matrix asks for."""

import dataclasses
import math
from typing import Any

import av
import numpy as np
import numpy.typing as npt

Picture = npt.NDArray[Any]


@dataclasses.dataclass(frozen=True)
class Orientation:
    """Quarter turns counterclockwise, 0 to 3, and behind them whether left and right change places."""

    quarter_turns: int = 0
    is_mirrored: bool = False

    @property
    def is_sideways(self) -> bool:
        """Whether width and height change places."""
        return self.quarter_turns % 2 == 1

    def upright(self, picture: Picture) -> Picture:
        """A stored picture [H, W, ...] as it is shown; a view."""
        turned = np.rot90(picture, k=self.quarter_turns)
        return turned[:, ::-1] if self.is_mirrored else turned

    def as_stored(self, picture: Picture) -> Picture:
        """The other way round."""
        turned = picture[:, ::-1] if self.is_mirrored else picture
        return np.rot90(turned, k=-self.quarter_turns)


def matrix_of(frame: av.VideoFrame) -> list[int] | None:
    """The nine numbers of a frame's display matrix (libavutil/display.h); None where it has none."""
    found = frame.side_data.get("DISPLAYMATRIX")
    return None if found is None else np.frombuffer(found, np.int32).tolist()  # type: ignore[call-overload]


def orientation_of(frame: av.VideoFrame) -> Orientation:
    """To the nearest quarter turn; a matrix that flattens the picture asks for nothing."""
    matrix = matrix_of(frame)
    if matrix is None:
        return Orientation()
    # A point (x, y), y downwards, is shown at (ax + cy, bx + dy).
    (a, b, _, c, d, *_) = matrix
    area = a * d - b * c
    if not area:
        return Orientation()
    is_mirrored = area < 0
    angle = math.atan2(-b, -a if is_mirrored else a)
    return Orientation(round(angle / (math.pi / 2)) % 4, is_mirrored)
