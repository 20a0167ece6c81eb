"""Small pictures of a film, kept until its clips are known: as JPEGs, and beyond MEMORY_BYTES in a temporary file."""

import bisect
import tempfile
from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

from telecine_components.media import colour
from telecine_components.media.glance import array_of
from telecine_components.media.planes import Planes

cv2.setNumThreads(1)

SMALL_PX = 160
"""Height of the pictures; smaller ones are kept as they are."""
JPEG_QUALITY = 90
MEMORY_BYTES = 32 << 20

Pixels = npt.NDArray[np.uint8]


def small_picture(planes: Planes) -> Pixels:
    """A whole frame to look at: RGB, uint8 [h, w, 3], upright, at most SMALL_PX high.

    Twenty times as fast as a thumbnail for training, and a level or two less exact.
    """
    turned = planes.orientation.is_sideways
    height, width = (planes.y.width, planes.y.height) if turned else (planes.y.height, planes.y.width)
    shrink = min(1.0, SMALL_PX / height)
    high, wide = max(1, round(height * shrink)), max(1, round(width * shrink))
    size = (high, wide) if turned else (wide, high)
    parts = [_shrunk(array_of(part), size) for part in (planes.y, planes.cb, planes.cr)]
    rgb = cv2.transform(np.stack(parts, axis=-1), colour.to_rgb(planes.matrix, full_range=planes.full_range))
    return np.ascontiguousarray(planes.orientation.upright(rgb))


def _shrunk(plane: Pixels, size: tuple[int, int]) -> Pixels:
    """Means of four bilinear samples each; means over every pixel would take eight times as long."""
    between = min(plane.shape[1], 2 * size[0]), min(plane.shape[0], 2 * size[1])
    samples = cv2.resize(plane, between, interpolation=cv2.INTER_LINEAR)
    return np.asarray(cv2.resize(samples, size, interpolation=cv2.INTER_AREA), np.uint8)


class Gallery:
    """Pictures by the index of their frame."""

    def __init__(self) -> None:
        self.indices: list[int] = []
        self._places: list[tuple[int, int]] = []
        # Lives as long as the gallery, and has no name that could be left behind.
        self._file = tempfile.SpooledTemporaryFile(MEMORY_BYTES)  # noqa: SIM115

    def hang(self, index: int, rgb: Pixels) -> None:
        """Keep a picture (uint8 [h, w, 3]); indices rise."""
        jpeg = jpeg_of(rgb)
        self.indices.append(index)
        self._places.append((self._file.seek(0, 2), len(jpeg)))
        self._file.write(jpeg)

    def picture(self, place: int) -> Pixels:
        """RGB, uint8 [h, w, 3]."""
        return np.ascontiguousarray(self._decoded(place, cv2.IMREAD_COLOR)[..., ::-1])

    def luma(self, place: int) -> Pixels:
        """Grey, uint8 [h, w]."""
        return self._decoded(place, cv2.IMREAD_GRAYSCALE)

    def _decoded(self, place: int, mode: int) -> Pixels:
        offset, size = self._places[place]
        self._file.seek(offset)
        return np.asarray(cv2.imdecode(np.frombuffer(self._file.read(size), np.uint8), mode), np.uint8)


def within(indices: Sequence[int], start: int, end: int) -> range:
    """Places among rising frame indices of those from ``start`` to ``end`` (exclusive); if none, of the nearest."""
    first, last = bisect.bisect_left(indices, start), bisect.bisect_left(indices, end)
    if first < last:
        return range(first, last)
    nearest = min(range(len(indices)), key=lambda place: abs(2 * indices[place] - start - end + 1))
    return range(nearest, nearest + 1)


def spread(places: range, count: int) -> list[int]:
    """``count`` of them or all that there are, each from the middle of its part of the whole."""
    count = min(count, len(places))
    return [places[(2 * part + 1) * len(places) // (2 * count)] for part in range(count)]


def jpeg_of(rgb: Pixels) -> bytes:
    """A picture (uint8 [h, w, 3]) as JPEG; equal pictures give equal bytes."""
    _, coded = cv2.imencode(".jpg", np.ascontiguousarray(rgb[..., ::-1]), [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    return coded.tobytes()
