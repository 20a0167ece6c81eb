"""The DiffMoE layer (arXiv 2503.14487): experts choose tokens from the whole batch, a predictor says how many.

Axes: B batch, S tokens of a sample, T tokens of the pool (B times S), E experts, D width.
"""

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Float32
from torch import Tensor, nn

from telecine_models.moe.equal_shares import Activation
from telecine_models.moe.experts import Experts
from telecine_models.moe.routing import (
    Router,
    Routing,
    check_capacity,
    check_experts,
    check_tokens,
    linear_fp32,
    share_of,
)

Route = Literal["static", "count", "mask"]
ROUTES: tuple[Route, ...] = ("static", "count", "mask")


class CapacityPredictor(nn.Module):
    """Whether each expert would take a token, from that token alone, as logits; it teaches the tokens nothing."""

    def __init__(self, num_experts: int, width: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(width, width)
        self.out = nn.Linear(width, num_experts)

    def forward(self, pool: Float[Tensor, "T D"]) -> Float32[Tensor, "T E"]:
        return linear_fp32(F.silu(self.hidden(pool.detach())), self.out.weight, self.out.bias)


class DiffMoE(nn.Module):
    """A feed-forward of ``num_experts`` experts over a batch-level pool of tokens.

    In training each expert takes its ``int(num_tokens / num_experts * capacity)`` best tokens of the batch, padding
    left out; a token may go to several experts or to none, and gates are not renormalised (their sum is the softmax's
    over the experts that took the token). The pool is the batch that the layer is given: that of this process.

    In evaluation ``routing`` decides:

    * ``static``: as in training. What a sample gets depends on its batch.
    * ``count``: as published. The predictor decides how many tokens of the batch an expert takes, those whose
      probability exceeds its threshold; the router decides which.
    * ``mask``: an expert takes the very tokens whose probability exceeds its threshold, so that a sample's result does
      not depend on its batch; for serving.

    ``thresholds`` is a buffer that no forward changes, and stays in fp32: see
    :func:`telecine_models.moe.thresholds.update_thresholds`.

    Raises:
        ValueError: sizes, a capacity, an activation or a routing that cannot work.
    """

    thresholds: Tensor

    def __init__(
        self,
        width: int,
        num_experts: int,
        *,
        capacity: float = 1.0,
        activation: Activation = "gelu",
        routing: Route = "count",
    ) -> None:
        super().__init__()
        check_experts("DiffMoE", num_experts, activation)
        check_capacity("DiffMoE", capacity, num_experts)
        self.width, self.num_experts, self.capacity, self.routing = width, num_experts, capacity, routing
        self.router = Router(num_experts, width)
        self.experts = Experts(num_experts, width, activation)
        self.predictor = CapacityPredictor(num_experts, width)
        self.register_buffer("thresholds", torch.zeros(num_experts))

    @property
    def routing(self) -> Route:
        """How tokens are routed in evaluation; may be set at any time."""
        return self._routing

    @routing.setter
    def routing(self, routing: Route) -> None:
        if routing not in ROUTES:
            raise ValueError(f"DiffMoE: routing must be one of {', '.join(ROUTES)}, got {routing!r}")
        self._routing: Route = routing

    def forward(
        self, x: Float[Tensor, "B S D"], mask: Bool[Tensor, "B S"] | None = None
    ) -> tuple[Float[Tensor, "B S D"], Routing]:
        """What the experts add to each token, and how it was routed.

        Args:
            mask: which tokens are real; the others are never processed, are not counted and get 0. None: all are.

        Raises:
            ValueError: a wrong shape, or fewer tokens than experts where each takes an equal share.
        """
        check_tokens("DiffMoE", x, mask, self.width)
        pool, real = x.flatten(0, 1), None if mask is None else mask.flatten()
        num_tokens = len(pool) if real is None else int(real.sum())
        scores = self.router(pool)
        if not self.training and self.routing != "static":
            chosen = self._chosen(scores, self.predictor(pool), real)
            out = self.experts.ragged(pool, chosen, scores)
            routing = Routing(chosen.unflatten(0, x.shape[:2]), scores.new_zeros(()), None, num_tokens)
            return out.view(x.shape), routing
        share = share_of("DiffMoE", num_tokens, self.num_experts, self.capacity)
        gate, index = _without(scores, real, -1.0).t().contiguous().topk(share, dim=1, sorted=False)
        out = self.experts(pool, index, gate)
        # After the experts, so that in backward the predictor's activations are gone before the experts' turn comes.
        logits = self.predictor(pool)
        chosen = torch.zeros_like(scores.t(), dtype=torch.bool).scatter_(1, index, True).t()
        loss = _predictor_loss(logits, chosen, real, num_tokens)
        quantiles = _quantiles(_without(logits.detach(), real, -torch.inf), share)
        return out.view(x.shape), Routing(chosen.unflatten(0, x.shape[:2]), loss, quantiles, num_tokens)

    def _chosen(
        self, scores: Float32[Tensor, "T E"], logits: Float32[Tensor, "T E"], real: Bool[Tensor, " T"] | None
    ) -> Bool[Tensor, "T E"]:
        """Who is processed by whom when the predictor has a say."""
        passing = _without(logits, real, -torch.inf).sigmoid() > self.thresholds.float()
        if self.routing == "mask":
            return passing
        order = _without(scores, real, -1.0).argsort(dim=0, descending=True, stable=True)
        first = torch.arange(len(order), device=order.device)[:, None] < passing.sum(0)
        return torch.zeros_like(passing).scatter_(0, order, first)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "DiffMoE":
        """Thresholds follow the model to another device, but not to a lower precision: their average would stick."""
        thresholds = self.thresholds
        super()._apply(fn, recurse)
        if self.thresholds.dtype != torch.float32:
            self.thresholds = thresholds.to(self.thresholds.device)
        return self


def _without(values: Float32[Tensor, "T E"], real: Bool[Tensor, " T"] | None, filler: float) -> Float32[Tensor, "T E"]:
    """``values`` with those of padding replaced."""
    return values if real is None else values.masked_fill(~real[:, None], filler)


def _predictor_loss(
    logits: Float32[Tensor, "T E"], chosen: Bool[Tensor, "T E"], real: Bool[Tensor, " T"] | None, num_tokens: int
) -> Float32[Tensor, ""]:
    """Binary cross-entropy against what the router chose, mean over real tokens and experts."""
    weight = None if real is None else real[:, None].to(logits.dtype)
    total = F.binary_cross_entropy_with_logits(logits, chosen.to(logits.dtype), weight, reduction="sum")
    return total / (num_tokens * logits.shape[1])


def _quantiles(logits: Float32[Tensor, "T E"], share: int) -> Float32[Tensor, " E"]:
    """Each expert's ``share``-th largest probability; found among the logits, whose order is the same."""
    return logits.t().contiguous().topk(share, dim=1, sorted=False).values.amin(1).sigmoid()
