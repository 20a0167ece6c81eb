"""What flow time does to samples that follow each other is what it does to each alone, forward and backward."""

import torch
from torch import Tensor

from telecine_models.video_dit.modulation import gated, modulated

LENGTHS = [3, 0, 5, 1]
"""One sample has no token here, as on a rank that has a slice of a sequence."""


def random(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape))).requires_grad_()


def test_each_sample_is_modulated_by_its_own_flow_time() -> None:
    norm = torch.nn.LayerNorm(8, eps=1e-6, elementwise_affine=False)
    x, values, weights = random(1, sum(LENGTHS), 8), random(3, 1, len(LENGTHS), 8), random(1, sum(LENGTHS), 8)
    shift, scale, gate = (value.repeat_interleave(torch.tensor(LENGTHS), dim=1) for value in values)
    expected = gated(gate, modulated(norm, x, shift, scale))
    shift, scale, gate = values
    found = gated(gate, modulated(norm, x, shift, scale, LENGTHS), LENGTHS)
    torch.testing.assert_close(found, expected)
    for one, other in zip(*(torch.autograd.grad(y, (x, values), weights) for y in (found, expected)), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)
