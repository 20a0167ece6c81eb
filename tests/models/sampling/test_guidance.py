"""Classifier-free guidance: its mix, its two special scales, its gradients."""

import torch
from torch import Tensor

from telecine_models.sampling import guide

NOISE = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
TIME = torch.ones(4)


def constant(x: Tensor, t: Tensor) -> Tensor:
    return torch.full_like(x, 3.0)


def linear(x: Tensor, t: Tensor) -> Tensor:
    return 2 * x


def test_guidance_mixes_the_branches_and_scale_one_is_the_conditional_branch() -> None:
    assert guide(linear, constant, 1.0) is linear
    torch.testing.assert_close(guide(linear, constant, 0.0)(NOISE, TIME), constant(NOISE, TIME))
    torch.testing.assert_close(guide(linear, constant, 4.0)(NOISE, TIME), 3 + 4 * (2 * NOISE - 3))


def test_a_gradient_reaches_both_branches() -> None:
    with_prompt, without = (torch.tensor(value, requires_grad=True) for value in (2.0, 5.0))
    guided = guide(lambda x, t: with_prompt * x, lambda x, t: without * x, 4.0)
    guided(torch.ones(1, 1), torch.ones(1)).sum().backward()
    assert (float(with_prompt.grad), float(without.grad)) == (4.0, -3.0)
