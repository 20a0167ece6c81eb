"""The bank of experts: both of its fast products give what the plain formula gives, gradients included."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from telecine_models.moe.diffmoe import DiffMoE
from telecine_models.moe.equal_shares import SLICE_NUMBERS, EqualShares
from telecine_models.moe.experts import Experts
from telecine_models.video_dit.block import FeedForward


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def gradients(layer: torch.nn.Module, x: Tensor, out: Tensor, seed: Tensor) -> list[Tensor]:
    learnt = [x, *(p for name, p in layer.named_parameters() if not name.startswith("predictor"))]
    return list(torch.autograd.grad((out * seed).sum(), learnt))


@pytest.mark.parametrize("activation", ["gelu", "swiglu"])
@pytest.mark.parametrize("routing", ["static", "mask"])
def test_output_and_gradients_are_those_of_the_plain_formula(
    awake: Callable[..., Any], combine: Callable[..., Tensor], activation: str, routing: str
) -> None:
    layer = awake(DiffMoE(16, 4, activation=activation, routing=routing)).eval()
    layer.thresholds.fill_(0.4)
    x, seed = random(3, 8, 16).requires_grad_(), random(3, 8, 16, seed=1)
    out, found = layer(x)
    plain = combine(layer, x, found.mask)
    torch.testing.assert_close(out, plain, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(gradients(layer, x, out, seed), gradients(layer, x, plain, seed), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("activation", ["gelu", "swiglu"])
def test_a_capacity_that_is_worked_through_in_slices_gives_the_same(
    awake: Callable[..., Any], combine: Callable[..., Tensor], activation: str
) -> None:
    layer = awake(DiffMoE(64, 8, activation=activation)).eval()
    layer.routing = "static"
    x, seed = random(1, 9000, 64).requires_grad_(), random(1, 9000, 64, seed=1)
    out, found = layer(x)
    assert found.mask.sum() * layer.experts.weight_in.shape[2] > SLICE_NUMBERS, "or there is one slice"
    plain = combine(layer, x, found.mask)
    torch.testing.assert_close(out, plain, rtol=1e-4, atol=1e-4)
    ours, theirs = gradients(layer, x, out, seed), gradients(layer, x, plain, seed)
    for mine, other in zip(ours, theirs, strict=True):
        assert (mine - other).abs().max() < 1e-4 * other.abs().max()


@pytest.mark.parametrize("activation", ["gelu", "swiglu"])
def test_gradients_agree_with_finite_differences(activation: str) -> None:
    torch.manual_seed(0)
    bank = Experts(2, 8, activation).double()
    index, gate = torch.tensor([[0, 2, 3], [1, 2, 0]]), torch.rand(2, 3, dtype=torch.double)
    operands = [random(5, 8).double(), bank.weight_in, bank.weight_out, bank.bias_in, bank.bias_out]
    inputs = [None if each is None else each.detach().clone().requires_grad_() for each in (gate, *operands)]
    assert torch.autograd.gradcheck(lambda *values: EqualShares.apply(activation, index, *values), inputs)


def test_one_gated_expert_is_the_video_dits_feed_forward() -> None:
    dense, layer = FeedForward(16), DiffMoE(16, 1, activation="swiglu")
    with torch.no_grad():
        layer.experts.weight_in[0].copy_(dense.to_gate_and_value.weight.T)
        layer.experts.weight_out[0].copy_(dense.to_out.weight.T)
    assert sum(p.numel() for p in layer.experts.parameters()) == sum(p.numel() for p in dense.parameters())
    x = random(2, 5, 16)
    torch.testing.assert_close(layer(x)[0], dense(x))
    torch.testing.assert_close(layer.eval()(x)[0], dense(x))


def test_experts_start_like_linear_layers_of_their_own() -> None:
    torch.manual_seed(0)
    bank = Experts(4, 64, "gelu")
    bound = (6 / (64 + 256)) ** 0.5
    for weight in (bank.weight_in, bank.weight_out):
        assert weight.abs().max() <= bound and float(weight.detach().std()) == pytest.approx(bound / 3**0.5, rel=0.02)
    assert not bank.bias_in.any() and not bank.bias_out.any()


@pytest.mark.parametrize("activation", ["gelu", "swiglu"])
@pytest.mark.parametrize("training", [True, False])
def test_half_precision_by_autocast_or_by_weights_stays_close(
    awake: Callable[..., Any], activation: str, training: bool
) -> None:
    layer = awake(DiffMoE(16, 4, activation=activation, routing="static" if training else "mask")).train(training)
    x = random(2, 32, 16)
    exact, routed = layer(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed, found = layer(x)
    assert mixed.dtype == torch.bfloat16
    assert torch.equal(found.mask, routed.mask) or not training
    torch.testing.assert_close(mixed.float(), exact, rtol=0.1, atol=0.1 * float(exact.detach().std()))
    (mixed.float().square().mean() + found.loss).backward()
    assert all(p.grad.isfinite().all() for p in layer.parameters() if p.grad is not None)
    half, found = layer.bfloat16()(x.bfloat16())
    assert half.dtype == torch.bfloat16 and found.loss.dtype == torch.float32 and half.isfinite().all()


def test_a_width_that_grouped_products_cannot_take_is_refused() -> None:
    with pytest.raises(ValueError, match="Experts: width must be a positive multiple of 8, got 20"):
        DiffMoE(20, 4)
