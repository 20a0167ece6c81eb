"""A glance: a frame shrunk to what shots are found on and motion, stability and the like are measured on."""

import dataclasses

import cv2
import numpy as np
import numpy.typing as npt
from av.video.plane import VideoPlane

from telecine_components.media.planes import CHROMA_TO_FULL, LUMA_TO_FULL, Planes

WIDTH_PX, HEIGHT_PX = 96, 54
CHROMA_WIDTH_PX, CHROMA_HEIGHT_PX = WIDTH_PX // 2, HEIGHT_PX // 2
_LUMA_SAMPLES, _CHROMA_SAMPLES = 4, 2
"""A pixel of a glance is the mean of this many bilinear samples squared, a power of two. Means over every pixel of a
720p plane would cost a third of its decoding; these cost a fifteenth. With fewer of luma, grain looks like motion."""

Pixels = npt.NDArray[np.uint8]

cv2.setNumThreads(1)


@dataclasses.dataclass(frozen=True, eq=False)
class Glance:
    """A frame as stored: not rotated, squeezed or stretched to one shape.

    Attributes:
        index: number of the frame in the order shown; not every frame need be looked at.
        time_s: seconds since the first frame.
        luma: uint8 [54, 96], 0 black .. 255 white.
        chroma: uint8 [2, 27, 48], Cb and Cr, 128 grey.
    """

    index: int
    time_s: float
    luma: Pixels
    chroma: Pixels


def glance_of(planes: Planes, index: int, time_s: float) -> Glance:
    """Look at a frame."""
    luma = _shrunk(planes.y, WIDTH_PX, HEIGHT_PX, _LUMA_SAMPLES)
    cb, cr = (_shrunk(plane, CHROMA_WIDTH_PX, CHROMA_HEIGHT_PX, _CHROMA_SAMPLES) for plane in (planes.cb, planes.cr))
    if not planes.full_range:
        luma, cb, cr = full_range(luma, cb, cr)
    return Glance(index, time_s, luma, np.stack([cb, cr]))


def array_of(plane: VideoPlane) -> Pixels:
    """A plane as uint8 [H, W] that shares its memory."""
    return np.asarray(plane).reshape(-1, plane.line_size)[: plane.height, : plane.width]


def full_range(luma: Pixels, cb: Pixels, cr: Pixels) -> tuple[Pixels, Pixels, Pixels]:
    """Levels 16..235 and 16..240 spread over 0..255."""
    tables = (luma, _LUMA), (cb, _CHROMA), (cr, _CHROMA)
    luma, cb, cr = (np.asarray(cv2.LUT(plane, table), np.uint8) for plane, table in tables)
    return luma, cb, cr


_LUMA, _CHROMA = (np.array(table, np.uint8) for table in (LUMA_TO_FULL, CHROMA_TO_FULL))


def _shrunk(plane: VideoPlane, width_px: int, height_px: int, samples: int) -> Pixels:
    size = width_px * samples, height_px * samples
    shrunk = cv2.resize(array_of(plane), size, interpolation=cv2.INTER_LINEAR)
    # Means of two by two are five times as fast as those of four by four at once.
    while size[0] > width_px:
        size = size[0] // 2, size[1] // 2
        shrunk = cv2.resize(shrunk, size, interpolation=cv2.INTER_AREA)
    return np.asarray(shrunk, np.uint8)
