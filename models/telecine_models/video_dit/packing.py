"""Where the tokens of samples of several shapes lie in one sequence: text, then video, sample after sample.

Axes: B batch, C channels, F frames, H height, W width, L text tokens, S tokens of all samples, V of them of videos,
D width, P half of a head's channels.
"""

import dataclasses
import math
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from telecine_models.video_dit.patches import Triple, grid_of
from telecine_models.video_dit.rope import grid_angles


@dataclasses.dataclass(frozen=True, eq=False)
class Pack:
    """The layout of one sequence.

    Attributes:
        texts, videos: tokens of each sample's text and of its video.
        grids, counts: patches of each batch's videos along frames, rows and columns, and samples of each batch.
    """

    texts: list[int]
    videos: list[int]
    grids: list[Triple]
    counts: list[int]

    @property
    def lengths(self) -> list[int]:
        """Tokens of each sample."""
        return [text + video for text, video in zip(self.texts, self.videos, strict=True)]

    def joined(self, text: Float[Tensor, "T D"], video: Float[Tensor, "V D"]) -> Float[Tensor, "S D"]:
        """The sequence of all text and all video tokens, each in the order of samples."""
        parts = zip(text.split(self.texts), video.split(self.videos), strict=True)
        return torch.cat([part for pair in parts for part in pair])

    def films(self, x: Float[Tensor, "S D"]) -> Float[Tensor, "V D"]:
        """The video tokens of a sequence."""
        sizes = [size for pair in zip(self.texts, self.videos, strict=True) for size in pair]
        return torch.cat(x.split(sizes)[1::2])

    def angles(self, head_dim: int, device: torch.device) -> Float[Tensor, "S P"]:
        """Rotary angles; text has no place in a video and is not rotated."""
        grids = [grid_angles(grid, head_dim, device) for grid in self.grids]
        samples = [grid for grid, count in zip(grids, self.counts, strict=True) for _ in range(count)]
        texts = grids[0].new_zeros(sum(self.texts), grids[0].shape[1])
        return self.joined(texts, torch.cat(samples))

    def parted(self, video: Float[Tensor, "V D"]) -> list[Tensor]:
        """Video tokens by batch, [B, S of a sample, D] each."""
        sizes = [math.prod(grid) for grid in self.grids]
        parts = video.split([size * count for size, count in zip(sizes, self.counts, strict=True)])
        return [part.unflatten(0, (count, size)) for part, count, size in zip(parts, self.counts, sizes, strict=True)]


def pack_of(batches: Sequence[tuple[Float[Tensor, "_ C _ _ _"], Bool[Tensor, "_ _"]]], patch_size: Triple) -> Pack:
    """The layout of batches, each of videos [B, C, F, H, W] of one shape and the mask [B, L] of their real text.

    Raises:
        ValueError: no batch, or a side that is no positive multiple of the patch's.
    """
    if not batches:
        raise ValueError("VideoDiT.forward_packed: hidden_states must hold at least one batch, got none")
    grids = [grid_of(video, patch_size) for video, _ in batches]
    counts = [len(video) for video, _ in batches]
    texts = torch.cat([mask.sum(1) for _, mask in batches]).tolist()
    videos = [math.prod(grid) for grid, count in zip(grids, counts, strict=True) for _ in range(count)]
    return Pack(texts, videos, grids, counts)
