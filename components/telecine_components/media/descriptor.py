"""Descriptor: a unit vector of what a clip looks like, from signals alone: where which colours and edges are.

A frame, without its black bars, is laid over a grid of 4 x 4 cells. Each cell gives its mean Y, Cb and Cr (BT.601, 0
in the middle of the range; colour layout as in MPEG-7) and how strong its gradients are in each of 8 orientations (as
in MPEG-7's edge histogram and in HOG, Dalal and Triggs 2005). Both halves weigh the same. The last number completes
the length to 1: it is large for a frame that shows little, and keeps the noise on a flat frame from looking like
something. A clip is the mean of its frames, so it knows nothing of motion; a frame a second is enough.
"""

import numpy as np
import numpy.typing as npt

from telecine_components.media.fingerprint import inside_bars

NUM_CELLS = 4
NUM_ORIENTATIONS = 8
SIZE = NUM_CELLS**2 * (3 + NUM_ORIENTATIONS) + 1

COLOUR_FLOOR, EDGE_FLOOR = 8.0, 0.5
"""Grey levels (root mean square) at which colour and edges count for 0.7 of their full weight."""
FLAT_LENGTH = 0.05
"""Length of a half at which it begins to say something: two grey films resemble each other in colour."""
MIN_GRADIENT = 2.0
"""Grey levels a pixel: gradients count by what they exceed this, because in flat cells all of them are noise."""

Pixels = npt.NDArray[np.uint8]
Vector = npt.NDArray[np.float32]
Values = npt.NDArray[np.float64]

_YCBCR = np.array([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]])


def descriptor(pictures: Pixels) -> Vector:
    """Describe a clip by a few of its frames.

    Args:
        pictures: uint8 [F, h, w, 3], RGB, F >= 1, h and w >= 14; 54 x 96 is plenty.

    Returns:
        float32 [SIZE] of length 1: the unit mean over the frames, each of length 1.
    """
    return unit_mean(np.stack([_of_frame(picture) for picture in pictures]))


def unit_mean(vectors: npt.NDArray[np.floating]) -> Vector:
    """The mean of unit vectors [F, D], of length 1 again: a clip's descriptor from those of its frames."""
    mean = vectors.astype(np.float64).mean(axis=0)
    # Six digits are more than it says, and hide the last bits, which differ between machines.
    return np.asarray((mean / np.linalg.norm(mean)).round(6), np.float32)


def resemblance(vectors: Vector, vector: Vector) -> Vector:
    """The cosine [N] of the colours or of the edges of descriptors [N, SIZE] with those of one, whichever is less.

    The plain cosine of descriptors lets colours make up for edges: stripes resemble stripes of any colour.
    """
    num_colours = NUM_CELLS**2 * 3
    cosines = []
    for part in (slice(0, num_colours), slice(num_colours, SIZE - 1)):
        one, many = vector[part], vectors[:, part]
        lengths = np.sqrt(((many**2).sum(axis=1) + FLAT_LENGTH**2) * ((one**2).sum() + FLAT_LENGTH**2))
        cosines.append((many @ one + FLAT_LENGTH**2) / lengths)
    return np.asarray(np.minimum(*cosines), np.float32)


def mirrored(vectors: Vector) -> Vector:
    """Descriptors [..., SIZE] of the same pictures seen in a mirror, but for the rounding of the cells' borders."""
    grid = (*vectors.shape[:-1], NUM_CELLS, NUM_CELLS)
    colours, edges, rest = np.split(vectors, [NUM_CELLS**2 * 3, SIZE - 1], axis=-1)
    seen = (
        colours.reshape(*grid, 3)[..., ::-1, :],
        edges.reshape(*grid, NUM_ORIENTATIONS)[..., ::-1, -np.arange(NUM_ORIENTATIONS)],
        rest,
    )
    return np.concatenate([part.reshape(*vectors.shape[:-1], -1) for part in seen], axis=-1)


def _of_frame(picture: Pixels) -> Values:
    ycbcr = picture.astype(np.float64) @ _YCBCR.T - np.array([128, 0, 0])
    ycbcr = ycbcr[inside_bars((ycbcr[..., 0] + 128).round().astype(np.uint8))]
    colours = _per_cell(ycbcr)
    edges = np.sqrt(_edges(ycbcr[..., 0]))
    parts = _limited(colours, COLOUR_FLOOR), _limited(edges - edges.mean(), EDGE_FLOOR)
    vector = np.concatenate(parts) * np.sqrt(0.5)
    return np.append(vector, np.sqrt(max(0.0, 1 - (vector**2).sum())))


def _edges(luma: Values) -> Values:
    """Mean gradient of a picture [h, w] per cell and orientation; each is shared by the two nearest orientations."""
    across = (luma[1:-1, 2:] - luma[1:-1, :-2]) / 2
    down = (luma[2:, 1:-1] - luma[:-2, 1:-1]) / 2
    strength = np.maximum(0, np.hypot(across, down) - MIN_GRADIENT)
    place = np.arctan2(down, across) % np.pi / np.pi * NUM_ORIENTATIONS
    first = place.astype(np.int64)
    rows, columns = (np.arange(length) * NUM_CELLS // length for length in strength.shape)
    cells = (rows[:, None] * NUM_CELLS + columns) * NUM_ORIENTATIONS
    sums = np.zeros(NUM_CELLS**2 * NUM_ORIENTATIONS)
    for orientation, share in ((first, 1 - (place - first)), (first + 1, place - first)):
        bins = cells + orientation % NUM_ORIENTATIONS
        sums += np.bincount(bins.ravel(), (strength * share).ravel(), minlength=len(sums))
    return sums / (strength.size / NUM_CELLS**2)


def _per_cell(values: Values) -> Values:
    """Means of [h, w, C] over the grid's cells: [NUM_CELLS, NUM_CELLS, C]."""
    for axis in (0, 1):
        borders = np.arange(NUM_CELLS + 1) * values.shape[axis] // NUM_CELLS
        sums = np.add.reduceat(values, borders[:-1], axis=axis)
        values = sums / np.expand_dims(np.diff(borders), (1, 2) if axis == 0 else (0, 2))
    return values


def _limited(values: Values, floor: float) -> Values:
    """Flat, and of a length that goes to 1 where the root mean square is far above ``floor``."""
    limited: Values = values.ravel() / np.hypot(np.linalg.norm(values), floor * np.sqrt(values.size))
    return limited
