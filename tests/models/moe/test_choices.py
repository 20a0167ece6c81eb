"""The baselines: token choice with its balance loss, expert choice within each sample."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from telecine_models.moe.choices import ExpertChoice, TokenChoice

Awake = Callable[..., Any]
REAL = torch.arange(12) < torch.tensor([12, 7, 5])[:, None]


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


X = random(3, 12, 16)


@pytest.mark.parametrize("activation", ["gelu", "swiglu"])
@pytest.mark.parametrize("choice", [TokenChoice, ExpertChoice])
@pytest.mark.parametrize("mask", [None, REAL])
def test_output_and_gradients_are_those_of_the_plain_formula(
    awake: Awake, combine: Callable[..., Tensor], choice: type, mask: Tensor | None, activation: str
) -> None:
    layer, x = awake(choice(16, 4, activation=activation)), X.clone().requires_grad_()
    out, found = layer(x, mask)
    plain = combine(layer, x, found.mask)
    torch.testing.assert_close(out, plain, rtol=1e-5, atol=1e-5)
    learnt = [x, *layer.parameters()]
    ours, theirs = (torch.autograd.grad(y.square().sum(), learnt) for y in (out, plain))
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)
    assert found.quantiles is None and found.num_tokens == (36 if mask is None else 24)


def test_a_token_goes_to_its_best_expert_and_padding_to_none(awake: Awake) -> None:
    layer = awake(TokenChoice(16, 4))
    best = torch.nn.functional.one_hot((X @ layer.router.weight.T).argmax(-1), 4).bool()
    assert torch.equal(layer(X)[1].mask, best)
    assert torch.equal(layer(X, REAL)[1].mask, best & REAL[..., None])


def test_the_balance_loss_is_its_weight_if_even_and_times_the_experts_if_collapsed() -> None:
    layer, x = TokenChoice(8, 4, balance=0.01), torch.eye(4, 8)[None].repeat(2, 3, 1)
    with torch.no_grad():
        layer.router.weight.copy_(1e-4 * torch.eye(4, 8))
        assert layer(x)[1].loss == pytest.approx(0.01, rel=1e-4)
        layer.router.weight.copy_(100 * torch.ones(4, 1) * torch.eye(4, 8).roll(0) * torch.eye(4, 1))
        layer.router.weight[0] = 100.0
        assert layer(x)[1].loss == pytest.approx(0.04, rel=1e-4)


def test_descending_the_balance_loss_spreads_the_tokens(awake: Awake) -> None:
    layer = awake(TokenChoice(16, 4, balance=1.0))
    with torch.no_grad():
        layer.router.weight[0] += 0.5 * X.mean((0, 1))
    before = layer(X)[1].loss
    optimizer = torch.optim.SGD([layer.router.weight], lr=0.1)
    for _ in range(20):
        optimizer.zero_grad()
        layer(X)[1].loss.backward()
        optimizer.step()
    assert layer(X)[1].loss < before


def test_experts_choose_their_share_of_every_sample(awake: Awake) -> None:
    layer = awake(ExpertChoice(16, 4))
    found = layer(X)[1]
    best = (X @ layer.router.weight.T).softmax(-1).argsort(1, descending=True)[:, :3]
    assert torch.equal(found.mask, torch.zeros(3, 12, 4, dtype=torch.bool).scatter_(1, best, True))
    padded = layer(X, REAL)[1].mask
    assert padded.sum(1).tolist() == [[3] * 4, [1] * 4, [1] * 4] and not padded[~REAL].any()
    assert awake(ExpertChoice(16, 4, capacity=2.0))(X)[1].mask.sum(1).tolist() == [[6] * 4] * 3


@pytest.mark.parametrize("choice", [TokenChoice, ExpertChoice])
def test_a_sample_does_not_depend_on_its_batch_and_padding_changes_nothing(awake: Awake, choice: type) -> None:
    layer = awake(choice(16, 4))
    alone = torch.cat([layer(sample[None])[0] for sample in X])
    torch.testing.assert_close(layer(X)[0], alone, rtol=1e-5, atol=1e-6)
    other = torch.where(REAL[..., None], X, 100 * random(3, 12, 16, seed=1))
    assert torch.equal(layer(X, REAL)[0][REAL], layer(other, REAL)[0][REAL])


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: TokenChoice(16, 0), "TokenChoice: num_experts must be at least 1, got 0"),
        (lambda: TokenChoice(16, 4, balance=-1.0), "TokenChoice: balance must be at least 0, got -1.0"),
        (lambda: TokenChoice(16, 4)(X[0]), r"TokenChoice: x must be shaped \[B, S, 16\], got \[12, 16\]"),
        (lambda: TokenChoice(16, 4)(X, REAL & False), "TokenChoice: mask must leave at least one real token, got none"),
        (lambda: ExpertChoice(16, 4, capacity=5.0), r"ExpertChoice: capacity must lie in \(0, 4\]"),
        (lambda: ExpertChoice(16, 4)(X[:, :3]), r"ExpertChoice: num_tokens \* capacity .* got 3 \* 1.0"),
        (lambda: ExpertChoice(16, 4)(X, REAL[:, :2]), r"ExpertChoice: mask must be shaped \[3, 12\]"),
        (lambda: ExpertChoice(16, 6)(X, REAL), r"at least num_experts = 6, .* got 5 \* 1.0"),
    ],
)
def test_what_cannot_work_is_named(unchecked: None, build: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()
