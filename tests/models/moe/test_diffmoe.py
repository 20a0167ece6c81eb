"""DiffMoE: who processes what in training and in each way of serving, and what the predictor may not touch."""

from collections.abc import Callable
from typing import Any, cast

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from telecine_models.moe.diffmoe import ROUTES, DiffMoE

Awake = Callable[..., Any]
REAL = torch.arange(12) < torch.tensor([12, 7, 3])[:, None]


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


X = random(3, 12, 16)


def scores_of(layer: DiffMoE, x: Tensor) -> Tensor:
    return (x.flatten(0, 1) @ layer.router.weight.T).softmax(-1)


# The pool


@pytest.mark.parametrize("capacity", [0.5, 1.0, 4.0])
def test_each_expert_takes_its_share_of_the_best_tokens_of_the_batch(awake: Awake, capacity: float) -> None:
    layer = awake(DiffMoE(16, 4, capacity=capacity))
    found = layer(X)[1]
    share = int(36 / 4 * capacity)
    best = scores_of(layer, X).argsort(0, descending=True)[:share]
    brute = torch.zeros(36, 4, dtype=torch.bool).scatter_(0, best, True).view(3, 12, 4)
    assert torch.equal(found.mask, brute)
    assert found.tokens_per_expert.tolist() == [share] * 4 and found.num_tokens == 36


def test_a_share_is_rounded_down_and_not_by_rounding_errors(awake: Awake) -> None:
    layer = awake(DiffMoE(16, 7))
    assert layer(random(1, 20, 16))[1].tokens_per_expert.tolist() == [2] * 7
    assert DiffMoE(8, 49, capacity=49.0)(random(1, 1, 8))[1].tokens_per_expert.tolist() == [1] * 49


def test_the_pool_spans_samples(awake: Awake) -> None:
    layer = awake(DiffMoE(16, 4))
    alone = torch.cat([layer(sample[None])[0] for sample in X])
    assert (layer(X)[0] - alone).abs().max() > 0.1
    assert len({int(n) for n in layer(X)[1].mask.sum((1, 2))}) > 1, "some samples get more than others"


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("routing", ROUTES)
def test_the_order_of_tokens_in_the_pool_does_not_matter(awake: Awake, routing: str, training: bool) -> None:
    layer = awake(DiffMoE(16, 4, routing=routing)).train(training)
    layer.thresholds.fill_(0.5)
    order = torch.randperm(36, generator=torch.Generator().manual_seed(1))
    shuffled = X.view(36, 16)[order].view(3, 12, 16)
    torch.testing.assert_close(layer(shuffled)[0].view(36, 16), layer(X)[0].view(36, 16)[order], rtol=1e-5, atol=1e-6)


def test_one_expert_of_full_capacity_is_a_dense_feed_forward(awake: Awake, answer_of: Callable[..., Tensor]) -> None:
    layer = awake(DiffMoE(16, 1))
    torch.testing.assert_close(layer(X)[0], answer_of(layer.experts, 0, X), rtol=1e-5, atol=1e-6)


def test_equal_experts_that_take_everything_answer_as_one(awake: Awake, answer_of: Callable[..., Tensor]) -> None:
    layer = awake(DiffMoE(16, 4, capacity=4.0))
    with torch.no_grad():
        for parameter in layer.experts.parameters():
            parameter.copy_(parameter[:1].expand_as(parameter))
    torch.testing.assert_close(layer(X)[0], answer_of(layer.experts, 0, X), rtol=1e-5, atol=1e-5)


# The predictor


def test_the_predictor_learns_what_the_router_chose_and_teaches_nobody(awake: Awake) -> None:
    layer = awake(DiffMoE(16, 4))
    found = layer(X.clone().requires_grad_())[1]
    logits = layer.predictor(X.flatten(0, 1))
    chosen = found.mask.flatten(0, 1).float()
    torch.testing.assert_close(found.loss, F.binary_cross_entropy_with_logits(logits, chosen))
    found.loss.backward()
    touched = {name for name, p in layer.named_parameters() if p.grad is not None and p.grad.any()}
    assert touched == {name for name, _ in layer.named_parameters() if name.startswith("predictor.")}


def test_its_loss_leaves_the_other_gradients_alone_to_the_bit(awake: Awake) -> None:
    def gradients(weight: float) -> dict[str, Tensor]:
        layer, x = awake(DiffMoE(16, 4)), X.clone().requires_grad_()
        out, found = layer(x)
        (out.square().mean() + weight * found.loss).backward()
        others = {n: p.grad for n, p in layer.named_parameters() if not n.startswith("predictor.")}
        return others | {"x": x.grad}

    without, with_it = gradients(0.0), gradients(1.0)
    assert all(torch.equal(without[name], with_it[name]) for name in without)


def test_a_quantile_is_the_probability_of_the_last_token_of_a_share(awake: Awake) -> None:
    layer = awake(DiffMoE(16, 4))
    found = layer(X)[1]
    probabilities = layer.predictor(X.flatten(0, 1)).sigmoid()
    torch.testing.assert_close(found.quantiles, probabilities.sort(0, descending=True).values[8])
    layer.thresholds.copy_(found.quantiles)
    assert layer.eval()(X)[1].tokens_per_expert.tolist() == [8] * 4, "one less: a threshold has to be exceeded"


def test_no_forward_moves_the_thresholds(awake: Awake) -> None:
    layer = awake(DiffMoE(16, 4))
    for training in (True, False):
        layer.train(training)(X)
    assert layer.thresholds.tolist() == [0, 0, 0, 0]


# Serving


def test_the_mask_does_not_depend_on_the_batch_and_the_count_does(awake: Awake) -> None:
    layer, x = awake(DiffMoE(16, 4)).eval(), random(8, 12, 16)
    layer.thresholds.fill_(0.6)

    def alone_and_together(routing: str) -> tuple[Tensor, Tensor]:
        layer.routing = routing
        return torch.cat([layer(sample[None])[0] for sample in x]), layer(x)[0]

    torch.testing.assert_close(*alone_and_together("mask"), rtol=1e-6, atol=1e-6)
    alone, together = alone_and_together("count")
    assert (alone - together).abs().max() > 0.1


def test_the_predictor_says_how_many_and_the_router_which(awake: Awake, combine: Callable[..., Tensor]) -> None:
    layer = awake(DiffMoE(16, 4, routing="count")).eval()
    layer.thresholds.copy_(torch.tensor([0.3, 0.5, 0.7, 1.0]))
    out, found = layer(X)
    counts = (layer.predictor(X.flatten(0, 1)).sigmoid() > layer.thresholds).sum(0)
    assert torch.equal(found.tokens_per_expert, counts) and counts[3] == 0 and counts[0] > counts[2] > 0
    scores = scores_of(layer, X)
    for expert, count in enumerate(counts.tolist()):
        taken = found.mask.flatten(0, 1)[:, expert]
        assert count == 0 or scores[taken, expert].min() >= scores[~taken, expert].max()
    torch.testing.assert_close(out, combine(layer, X, found.mask), rtol=1e-5, atol=1e-5)


def test_count_and_mask_agree_where_router_and_predictor_order_tokens_alike() -> None:
    layer = DiffMoE(8, 2).eval()
    sign = torch.tensor([[1.0], [-1.0]])
    with torch.no_grad():
        layer.router.weight.copy_(sign * torch.eye(1, 8))
        layer.predictor.hidden.weight.copy_(torch.eye(8))
        layer.predictor.hidden.bias.zero_()
        layer.predictor.out.weight.copy_(sign * torch.eye(1, 8))
    layer.thresholds.copy_(torch.tensor([0.75, 0.3]))
    x = 2 * torch.rand(2, 10, 1, generator=torch.Generator().manual_seed(0)) * torch.eye(1, 8)
    layer.routing = "count"
    counted = layer(x)
    layer.routing = "mask"
    masked = layer(x)
    assert torch.equal(counted[1].mask, masked[1].mask) and 0 < counted[1].mask.sum() < 40
    assert torch.equal(counted[0], masked[0])


@pytest.mark.parametrize("routing", ["count", "mask"])
def test_experts_without_a_token_are_no_trouble(awake: Awake, routing: str) -> None:
    layer = awake(DiffMoE(16, 4, routing=routing)).eval()
    layer.thresholds.fill_(1.0)
    out, found = layer(X)
    assert not out.any() and not found.mask.any() and not found.loss and found.quantiles is None
    layer.thresholds.fill_(0.0)
    assert layer(X)[1].mask.all()


# Padding


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("routing", ROUTES)
def test_padding_is_not_processed_not_counted_and_changes_nothing(
    awake: Awake, combine: Callable[..., Tensor], routing: str, training: bool
) -> None:
    layer = awake(DiffMoE(16, 4, routing=routing)).train(training)
    layer.thresholds.fill_(0.5)
    out, found = layer(X, REAL)
    other, same = layer(torch.where(REAL[..., None], X, 100 * random(3, 12, 16, seed=1)), REAL)
    assert found.num_tokens == 22 and not found.mask[~REAL].any() and not out[~REAL].any()
    if training or routing == "static":
        assert found.tokens_per_expert.tolist() == [22 // 4] * 4
    assert torch.equal(found.mask, same.mask) and torch.equal(out[REAL], other[REAL])
    torch.testing.assert_close((found.loss, found.quantiles), (same.loss, same.quantiles))
    torch.testing.assert_close(out, combine(layer, X, found.mask), rtol=1e-5, atol=1e-5)


def test_a_padded_batch_is_the_pool_of_its_real_tokens(awake: Awake) -> None:
    layer = awake(DiffMoE(16, 4))
    out, found = layer(X, REAL)
    packed, same = layer(X[REAL][None])
    torch.testing.assert_close(out[REAL], packed[0], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close((found.loss, found.quantiles), (same.loss, same.quantiles))
    assert torch.equal(layer(X, torch.ones(3, 12, dtype=torch.bool))[0], layer(X)[0])


# What cannot work


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_experts": 0}, r"DiffMoE: num_experts must be at least 1, got 0"),
        ({"capacity": 0.0}, r"DiffMoE: capacity must lie in \(0, 4\], the number of experts, got 0.0"),
        ({"capacity": 4.5}, r"DiffMoE: capacity must lie in \(0, 4\], the number of experts, got 4.5"),
        ({"capacity": float("nan")}, r"DiffMoE: capacity must lie in \(0, 4\], the number of experts, got nan"),
        ({"activation": "relu"}, r"DiffMoE: activation must be 'gelu' or 'swiglu', got 'relu'"),
        ({"routing": "best"}, r"DiffMoE: routing must be one of static, count, mask, got 'best'"),
    ],
)
def test_a_layer_that_cannot_work_is_not_built(unchecked: None, change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DiffMoE(**({"width": 16, "num_experts": 4} | change))


def test_an_unknown_routing_cannot_be_set_later(unchecked: None) -> None:
    with pytest.raises(ValueError, match="routing must be one of static, count, mask, got 'best'"):
        DiffMoE(16, 4).routing = cast(Any, "best")


@pytest.mark.parametrize(
    ("x", "mask", "message"),
    [
        (X[..., :8], None, r"DiffMoE: x must be shaped \[B, S, 16\], got \[3, 12, 8\]"),
        (X[0], None, r"DiffMoE: x must be shaped \[B, S, 16\], got \[12, 16\]"),
        (X, REAL[:, :5], r"DiffMoE: mask must be shaped \[3, 12\], as x is, got \[3, 5\]"),
        (X, REAL.float(), r"DiffMoE: mask must be of type bool, True for real tokens, got torch.float32"),
        (X[:1, :3], None, r"DiffMoE: num_tokens \* capacity must be at least num_experts = 4, .* got 3 \* 1.0"),
        (X, REAL & (REAL.cumsum(1) < 2), r"DiffMoE: num_tokens \* capacity must be at least .* got 3 \* 1.0"),
    ],
)
def test_tokens_that_do_not_fit_are_named(unchecked: None, x: Tensor, mask: Tensor | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DiffMoE(16, 4)(x, mask)
