"""What the mixture-of-experts layers share: the record of one pass, the router, the checks of what comes in.

Axes: B batch, S tokens of a sample, E experts, D width.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Float32, Int64
from torch import Tensor, nn

# arXiv 2503.14487: a router starts with all experts close to equal.
_ROUTER_STD = 0.006


class Routing(NamedTuple):
    """What one layer did with one batch. The trainer adds the losses and moves the thresholds; no layer does.

    Attributes:
        mask: which expert processed which token; padding is never processed.
        loss: to be added to the training loss: of DiffMoE the predictor's, of token choice the balance loss, else 0.
        quantiles: DiffMoE, where the router chose: the probability that the predictor gives to the last of an
            expert's tokens, were it the predictor that chose as many. None elsewhere.
        num_tokens: tokens that are not padding.
    """

    mask: Bool[Tensor, "B S E"]
    loss: Float32[Tensor, ""]
    quantiles: Float32[Tensor, " E"] | None
    num_tokens: int

    @property
    def tokens_per_expert(self) -> Int64[Tensor, " E"]:
        """How many tokens each expert processed; what :class:`telecine_models.moe.capacity.CapacityMeter` takes."""
        return self.mask.sum((0, 1))


class Router(nn.Module):
    """Softmax over experts, in fp32 whatever the model's type: ties of half precision would decide who is routed."""

    def __init__(self, num_experts: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_experts, width))
        nn.init.normal_(self.weight, std=_ROUTER_STD)

    def forward(self, x: Float[Tensor, "*tokens D"]) -> Float32[Tensor, "*tokens E"]:
        return linear_fp32(x, self.weight, None).softmax(-1)


def linear_fp32(x: Float[Tensor, "*tokens D"], weight: Tensor, bias: Tensor | None) -> Float32[Tensor, "*tokens out"]:
    """A linear layer in fp32, under autocast too."""
    with torch.autocast(x.device.type, enabled=False):
        return F.linear(x.float(), weight.float(), None if bias is None else bias.float())


def check_experts(layer: str, num_experts: int, activation: str) -> None:
    """Raise ValueError for experts that cannot be built."""
    if num_experts < 1:
        raise ValueError(f"{layer}: num_experts must be at least 1, got {num_experts}")
    if activation not in ("gelu", "swiglu"):
        raise ValueError(f"{layer}: activation must be 'gelu' or 'swiglu', got {activation!r}")


def check_capacity(layer: str, capacity: float, num_experts: int) -> None:
    """Raise ValueError unless 0 < capacity <= num_experts; 1 costs what a dense layer costs."""
    if not 0 < capacity <= num_experts:
        raise ValueError(f"{layer}: capacity must lie in (0, {num_experts}], the number of experts, got {capacity}")


def check_tokens(layer: str, x: Tensor, mask: Tensor | None, width: int) -> None:
    """Raise ValueError for tokens or a padding mask of a wrong shape or type."""
    if x.ndim != 3 or x.shape[2] != width:
        raise ValueError(f"{layer}: x must be shaped [B, S, {width}], got {list(x.shape)}")
    if mask is not None and mask.shape != x.shape[:2]:
        raise ValueError(f"{layer}: mask must be shaped {list(x.shape[:2])}, as x is, got {list(mask.shape)}")
    if mask is not None and mask.dtype != torch.bool:
        raise ValueError(f"{layer}: mask must be of type bool, True for real tokens, got {mask.dtype}")


def share_of(layer: str, num_tokens: int, num_experts: int, capacity: float) -> int:
    """Tokens that each expert takes out of ``num_tokens``: int(num_tokens / E * capacity).

    Raises:
        ValueError: there is not one for each.
    """
    # Multiplied first: (1 / 49) * 49 is less than 1 in floating point.
    share = int(num_tokens * capacity / num_experts)
    if share < 1:
        raise ValueError(
            f"{layer}: num_tokens * capacity must be at least num_experts = {num_experts}, so that every expert gets a "
            f"token, got {num_tokens} * {capacity}; use a larger batch or fewer experts"
        )
    return share
