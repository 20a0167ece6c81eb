"""Between videos and sequences of patches.

Axes: B batch, C channels, F frames, H height, W width, S tokens (columns running fastest, then rows, then frames).
"""

from jaxtyping import Float
from torch import Tensor

Triple = tuple[int, int, int]
"""Sizes along frames, rows and columns."""


def patchify(video: Float[Tensor, "B C F H W"], patch_size: Triple) -> Float[Tensor, "B S patch"]:
    """Cut a video into patches, one row per token; a row is ordered channel, frame, row, column."""
    grid = grid_of(video, patch_size)
    sizes = [size for pair in zip(grid, patch_size, strict=True) for size in pair]
    cells = video.reshape(*video.shape[:2], *sizes)
    return cells.permute(0, 2, 4, 6, 1, 3, 5, 7).flatten(4).flatten(1, 3)


def unpatchify(patches: Float[Tensor, "B S patch"], grid: Triple, patch_size: Triple) -> Float[Tensor, "B C F H W"]:
    """Inverse of :func:`patchify` for a video of ``grid`` patches."""
    cells = patches.reshape(len(patches), *grid, -1, *patch_size)
    return cells.permute(0, 4, 1, 5, 2, 6, 3, 7).flatten(6, 7).flatten(4, 5).flatten(2, 3)


def grid_of(video: Float[Tensor, "B C F H W"], patch_size: Triple) -> Triple:
    """How many patches a video has along frames, rows and columns.

    Raises:
        ValueError: a side that is no positive multiple of the patch's.
    """
    for name, length, patch in zip(("F", "H", "W"), video.shape[2:], patch_size, strict=True):
        if length == 0 or length % patch:
            raise ValueError(
                f"VideoDiT: {name} of hidden_states must be a positive multiple of {patch} "
                f"(patch_size {patch_size}), got {length}"
            )
    frames, rows, columns = (length // patch for length, patch in zip(video.shape[2:], patch_size, strict=True))
    return frames, rows, columns
