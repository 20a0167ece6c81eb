"""Where the tokens of samples of several shapes lie in one sequence: text, then video, sample after sample.

Axes: B batch, C channels, F frames, H height, W width, L text tokens, S tokens of all samples, V of them of videos,
D width, P half of a head's channels.
"""

import dataclasses
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from telecine_models.video_dit.patches import Triple, grid_of
from telecine_models.video_dit.rope import grid_angles


@dataclasses.dataclass(frozen=True, eq=False)
class Pack:
    """The layout of one sequence.

    Attributes:
        lengths: tokens of each sample, text and video.
        sample: which sample a token is of.
        is_video: which tokens are of a video.
        grids, counts: patches of each batch's videos along frames, rows and columns, and samples of each batch.
    """

    lengths: list[int]
    sample: Int[Tensor, " S"]
    is_video: Bool[Tensor, " S"]
    grids: list[Triple]
    counts: list[int]

    def joined(self, text: Float[Tensor, "T D"], video: Float[Tensor, "V D"]) -> Float[Tensor, "S D"]:
        """The sequence of all text and all video tokens, each in the order of samples."""
        place = torch.empty_like(self.sample)
        place[~self.is_video] = torch.arange(len(text), device=text.device)
        place[self.is_video] = torch.arange(len(text), len(text) + len(video), device=text.device)
        return torch.cat((text, video))[place]

    def angles(self, head_dim: int) -> Float[Tensor, "S P"]:
        """Rotary angles; text has no place in a video and is not rotated."""
        device = self.sample.device
        grids = [
            grid_angles(grid, head_dim, device).repeat(count, 1)
            for grid, count in zip(self.grids, self.counts, strict=True)
        ]
        angles = grids[0].new_zeros(len(self.sample), grids[0].shape[1])
        angles[self.is_video] = torch.cat(grids)
        return angles

    def parted(self, video: Float[Tensor, "V D"]) -> list[Tensor]:
        """Video tokens by batch, [B, S of a sample, D] each."""
        sizes = [frames * rows * columns for frames, rows, columns in self.grids]
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
    num_text = torch.cat([mask.sum(1) for _, mask in batches]).tolist()
    num_video = [
        frames * rows * columns
        for (frames, rows, columns), (video, _) in zip(grids, batches, strict=True)
        for _ in range(len(video))
    ]
    counts = torch.tensor([each for pair in zip(num_text, num_video, strict=True) for each in pair])
    kinds = torch.repeat_interleave(torch.arange(len(counts)), counts).to(batches[0][0].device)
    return Pack(
        [text + video for text, video in zip(num_text, num_video, strict=True)],
        kinds // 2,
        kinds % 2 == 1,
        grids,
        [len(video) for video, _ in batches],
    )
