"""Videos to patches and back."""

import pytest
import torch

from telecine_models.video_dit.patches import grid_of, patchify, unpatchify

VIDEO = torch.arange(2 * 3 * 4 * 8 * 12, dtype=torch.float32).view(2, 3, 4, 8, 12)


@pytest.mark.parametrize("patch_size", [(1, 4, 4), (2, 4, 4), (4, 8, 12), (1, 1, 1), (2, 2, 3)])
def test_unpatchify_is_the_inverse(patch_size: tuple[int, int, int]) -> None:
    assert torch.equal(unpatchify(patchify(VIDEO, patch_size), grid_of(VIDEO, patch_size), patch_size), VIDEO)


def test_a_token_is_one_block_of_neighbouring_pixels() -> None:
    patches = patchify(VIDEO, (2, 4, 4))
    assert patches.shape == (2, 2 * 2 * 3, 3 * 2 * 4 * 4)
    # Token 7 of grid (2, 2, 3) is frame block 1, row block 0, column block 1.
    assert torch.equal(patches[1, 7], VIDEO[1, :, 2:4, 0:4, 4:8].flatten())


@pytest.mark.parametrize(("axis", "patch_size"), [("F", (3, 4, 4)), ("H", (1, 5, 4)), ("W", (1, 4, 5))])
def test_a_side_that_is_no_multiple_of_the_patch_is_named(axis: str, patch_size: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match=f"VideoDiT: {axis} of hidden_states must be a positive multiple of [35]"):
        patchify(VIDEO, patch_size)
