"""The video DiT on samples padded to the longest of them, under a mask: the peer of mixed_shapes_vs_padding."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from telecine_models.video_dit.model import VideoDiT
from telecine_models.video_dit.patches import grid_of, patchify, unpatchify
from telecine_models.video_dit.rope import grid_angles

Given = tuple[Tensor, Tensor, Tensor, Tensor]
"""Noisy videos [B, C, F, H, W], flow times [B], text [B, L, D_text] and its mask [B, L]."""


def forward_padded(model: VideoDiT, batches: Sequence[Given]) -> list[Tensor]:
    """Velocities of each batch, all samples in one pass; a sample is its text, its video and padding."""
    patch_size, head_dim = model.size.patch_size, model.size.head_dim
    rows, places, real = [], [], []
    for noisy, _, text, mask in batches:
        video, angles = patchify(noisy, patch_size), grid_angles(grid_of(noisy, patch_size), head_dim, noisy.device)
        for patches, words, is_word in zip(video, text, mask, strict=True):
            words = words[is_word]
            rows.append(torch.cat((model.text_in(words), model.patch_in(patches))))
            places.append(torch.cat((angles.new_zeros(len(words), angles.shape[1]), angles)))
            real.append(torch.ones(len(rows[-1]), dtype=torch.bool))
    x, angles, mask = (pad_sequence(part, batch_first=True) for part in (rows, places, real))
    time = model._embed_time(torch.cat([t for _, t, _, _ in batches])[:, None], x.dtype, {})
    active_time = nn.functional.silu(time)
    modulation = model.time_modulation(active_time).unflatten(2, (6, -1)).transpose(1, 2)
    x, _ = model._blocks(x, modulation, angles[:, None], mask, None, None)
    shift, scale = (time[:, None] + model.modulation_out[:, None]).unbind(1)
    patches = model.patch_out(model.norm_out(x) * (1 + scale) + shift)
    around = model._skip(active_time, patch_size[0])
    return _parted(batches, patches, around, [len(row) for row in rows], patch_size)


def _parted(
    batches: Sequence[Given], patches: Tensor, around: Tensor, lengths: Sequence[int], patch_size: tuple[int, int, int]
) -> list[Tensor]:
    """The videos' parts of the padded rows, by batch."""
    found, row = [], 0
    for noisy, *_ in batches:
        grid = grid_of(noisy, patch_size)
        size, ours = grid[0] * grid[1] * grid[2], range(row, row + len(noisy))
        video = torch.stack([patches[i, lengths[i] - size : lengths[i]] for i in ours])
        found.append(unpatchify(video, grid, patch_size) + around[row : row + len(noisy)] * noisy)
        row += len(noisy)
    return found
