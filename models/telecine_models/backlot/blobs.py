"""Connected parts of labelled pictures, and the objects that they are: places, areas, and what touches taken apart."""

import dataclasses

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

_LEAST_AREA_PX = 2.0
_LEAST_OF_LARGEST = 0.22
"""Smaller parts of a colour, beside its largest in the frame, are crumbs; three objects that touch are not so large."""
_JOINED = 3.0
"""Every shape alone spreads as far in all directions; what spreads so many times as far in one are several objects."""
_AREA_OF_SPREAD = 12.0
"""Area of a shape over its variance along an axis: 10.4 for triangles, 12 for squares, 12.6 for circles."""
_MOST_JOINED = 4


@dataclasses.dataclass(frozen=True, eq=False)
class Blobs:
    """Objects in single frames: ``colour``, ``frame`` and ``area`` [N], and centres ``x``, ``y`` [N] in pixels."""

    colour: Ints
    frame: Ints
    x: Floats
    y: Floats
    area: Floats


def find_parts(labels: npt.NDArray[np.int8]) -> tuple[Ints, Ints, int]:
    """Connected parts, four neighbours each, of equal labels other than 0 in each frame of [F, H, W].

    Returns:
        flat indices of all labelled pixels, the part of each, and the number of parts.
    """
    num_frames, height, width = labels.shape
    # A border on the right and below keeps runs of pixels from going on in the next row or frame.
    padded = np.zeros((num_frames, height + 1, width + 1), labels.dtype)
    padded[:, :height, :width] = labels
    start, stop = _runs(padded.ravel())
    part = _join(start, stop, padded.ravel()[start], width + 1)
    length = stop - start
    pixel = np.arange(length.sum()) - np.repeat(np.cumsum(length) - length - start, length)
    row, column = np.divmod(pixel, width + 1)
    frame, row = np.divmod(row, height + 1)
    names, part = np.unique(part, return_inverse=True)
    return (frame * height + row) * width + column, np.repeat(part, length), len(names)


def find_blobs(labels: npt.NDArray[np.int8], covers: dict[int, npt.NDArray[np.float32]]) -> Blobs:
    """Objects in labels [F, H, W] of 1 + colour; ``covers`` [F, H, W] say how much of a pixel they are."""
    height, width = labels.shape[1:]
    places, part, num = find_parts(labels)
    colours = labels.ravel()[places].astype(np.int64) - 1
    weight = np.zeros(len(places))
    for colour, cover in covers.items():
        mine = colours == colour
        # Light and patterns make the inside uneven, which must not move the centre.
        weight[mine] = np.minimum(cover.ravel()[places[mine]] / 0.8, 1)
    row, x = np.divmod(places, width)
    cloud = _Cloud(part, num, x + 0.5, row % height + 0.5, weight)
    part_colour, part_frame = np.zeros(num, np.int64), np.zeros(num, np.int64)
    part_colour[part], part_frame[part] = colours, row // height
    largest = np.zeros((8, len(labels)))
    np.maximum.at(largest, (part_colour, part_frame), cloud.area)
    kept = (cloud.area >= _LEAST_OF_LARGEST * largest[part_colour, part_frame]) & (cloud.area >= _LEAST_AREA_PX)
    joined = np.flatnonzero(kept & (cloud.long > _JOINED * cloud.short))
    alone = np.flatnonzero(kept & (cloud.long <= _JOINED * cloud.short))
    split = [cloud.split(int(index)) for index in joined]
    owner = np.concatenate([alone, *(np.full(len(each), index) for index, each in zip(joined, split, strict=True))])
    owner = owner.astype(np.int64)
    found = np.concatenate([np.stack((cloud.x, cloud.y, cloud.area), axis=1)[alone], *split])
    return Blobs(colour=part_colour[owner], frame=part_frame[owner], x=found[:, 0], y=found[:, 1], area=found[:, 2])


class _Cloud:
    """Weighted pixels of all parts, and their moments [N]: area, centre, variance along the long and the short axis."""

    def __init__(self, part: Ints, num: int, x: Floats, y: Floats, weight: Floats) -> None:
        self.part, self.num, self.weight = part, num, weight
        self.area = self._sums(1.0)
        self.x, self.y = self._sums(x) / self.area, self._sums(y) / self.area
        self.dx, self.dy = x - self.x[part], y - self.y[part]
        # A pixel by itself has a variance of a twelfth.
        across, down = (self._sums(side**2) / self.area + 1 / 12 for side in (self.dx, self.dy))
        mixed = self._sums(self.dx * self.dy) / self.area
        apart = np.hypot((across - down) / 2, mixed)
        self.long, self.short = (across + down) / 2 + apart, (across + down) / 2 - apart
        self.angle = 0.5 * np.arctan2(2 * mixed, across - down)

    def split(self, index: int) -> Floats:
        """Equal objects in a row that make up one part: x, y and area of each [n, 3]."""
        ratio = self.area[index] / (_AREA_OF_SPREAD * self.short[index])
        count = int(np.clip(round(float(ratio)), 2, _MOST_JOINED))
        gap = np.sqrt(12 * (self.long[index] - self.short[index]) / (count**2 - 1))
        mine = np.flatnonzero(self.part == index)
        along = self.dx[mine] * np.cos(self.angle[index]) + self.dy[mine] * np.sin(self.angle[index])
        piece = np.clip(np.floor(along / gap + count / 2), 0, count - 1).astype(np.int64)
        weight = self.weight[mine]
        area = np.bincount(piece, weight, minlength=count)
        dx, dy = (np.bincount(piece, weight * side[mine], minlength=count) for side in (self.dx, self.dy))
        columns = (self.x[index] + dx / np.maximum(area, 1e-9), self.y[index] + dy / np.maximum(area, 1e-9), area)
        pieces: Floats = np.stack(columns, axis=1)[area > 0]
        return pieces

    def _sums(self, values: Floats | float) -> Floats:
        # The counts of nothing are integers.
        return np.bincount(self.part, self.weight * values, minlength=self.num).astype(np.float64)


def _runs(flat: npt.NDArray[np.int8]) -> tuple[Ints, Ints]:
    """First and past-the-last index of every run of equal labels other than 0."""
    edges = np.concatenate((np.zeros(1, np.int64), np.flatnonzero(np.diff(flat)) + 1))
    ends = np.append(edges[1:], len(flat))
    labelled = flat[edges] != 0
    return edges[labelled], ends[labelled]


def _join(start: Ints, stop: Ints, label: npt.NDArray[np.int8], stride: int) -> Ints:
    """For every run a number that it shares with all runs of its part."""
    # Runs in order: those that touch a run from below lie between two places of the sorted starts and stops.
    first = np.searchsorted(stop, start + stride, side="right")
    num = np.maximum(np.searchsorted(start, stop + stride, side="left") - first, 0)
    above = np.repeat(np.arange(len(start)), num)
    below = np.arange(num.sum()) - np.repeat(np.cumsum(num) - num - first, num)
    same = label[above] == label[below]
    above, below = above[same], below[same]
    root = np.arange(len(start))
    while True:
        lower = np.minimum(root[above], root[below])
        joined = root.copy()
        for side in (above, below):
            np.minimum.at(joined, side, lower)
            np.minimum.at(joined, root[side], lower)
        joined = joined[joined]
        if np.array_equal(joined, root):
            return root
        root = joined
