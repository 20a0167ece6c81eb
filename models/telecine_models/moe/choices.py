"""The baselines of DiffMoE behind its interface: every token chooses an expert, or experts choose within each sample.

Axes: B batch, S tokens of a sample, E experts, D width.
"""

import math

import torch
from jaxtyping import Bool, Float, Float32
from torch import Tensor, nn

from telecine_models.moe.equal_shares import Activation
from telecine_models.moe.experts import Experts
from telecine_models.moe.routing import Router, Routing, check_capacity, check_experts, check_tokens, share_of


class TokenChoice(nn.Module):
    """TC-DiT: each token goes to its best expert; a loss keeps the experts evenly used.

    The loss is ``balance`` times E sum_i f_i P_i (arXiv 2101.03961), with f_i the fraction of the batch's tokens that
    went to expert i and P_i its mean score: ``balance`` if both are even, ``balance`` times E if one expert has all.

    Raises:
        ValueError: sizes, an activation or a balance that cannot work.
    """

    def __init__(self, width: int, num_experts: int, *, activation: Activation = "gelu", balance: float = 0.01) -> None:
        super().__init__()
        check_experts("TokenChoice", num_experts, activation)
        if balance < 0:
            raise ValueError(f"TokenChoice: balance must be at least 0, got {balance}")
        self.width, self.num_experts, self.balance = width, num_experts, balance
        self.router = Router(num_experts, width)
        nn.init.kaiming_uniform_(self.router.weight, a=math.sqrt(5))
        self.experts = Experts(num_experts, width, activation)

    def forward(
        self, x: Float[Tensor, "B S D"], mask: Bool[Tensor, "B S"] | None = None
    ) -> tuple[Float[Tensor, "B S D"], Routing]:
        """What each token's expert adds to it, and how it was routed; see :meth:`DiffMoE.forward`.

        Raises:
            ValueError: a wrong shape, or not one real token.
        """
        check_tokens("TokenChoice", x, mask, self.width)
        scores = self.router(x)
        real = torch.ones_like(scores[..., 0], dtype=torch.bool) if mask is None else mask
        num_tokens = x.shape[0] * x.shape[1] if mask is None else int(mask.sum())
        if num_tokens == 0:
            raise ValueError("TokenChoice: mask must leave at least one real token, got none")
        chosen = torch.zeros_like(scores, dtype=torch.bool).scatter_(
            2, scores.argmax(-1, keepdim=True), real[..., None]
        )
        out = self.experts.ragged(x.flatten(0, 1), chosen.flatten(0, 1), scores.flatten(0, 1))
        loss = self.balance * self.num_experts * _evenness(scores, chosen, real, num_tokens)
        return out.view(x.shape), Routing(chosen, loss, None, num_tokens)


def _evenness(
    scores: Float32[Tensor, "B S E"], chosen: Bool[Tensor, "B S E"], real: Bool[Tensor, "B S"], num_tokens: int
) -> Float32[Tensor, ""]:
    """sum_i f_i P_i: 1 / E if experts are evenly used, 1 if one of them has everything."""
    fractions = chosen.sum((0, 1)) / num_tokens
    means = (scores * real[..., None]).sum((0, 1)) / num_tokens
    return (fractions * means).sum()


class ExpertChoice(nn.Module):
    """EC-DiT (arXiv 2410.02098): each expert takes its ``int(S / E * capacity)`` best tokens of every sample.

    Of a sample with padding S is the number of its real tokens. Training and evaluation are the same, and a sample's
    result does not depend on its batch.

    Raises:
        ValueError: sizes, a capacity or an activation that cannot work.
    """

    def __init__(self, width: int, num_experts: int, *, capacity: float = 1.0, activation: Activation = "gelu") -> None:
        super().__init__()
        check_experts("ExpertChoice", num_experts, activation)
        check_capacity("ExpertChoice", capacity, num_experts)
        self.width, self.num_experts, self.capacity = width, num_experts, capacity
        self.router = Router(num_experts, width)
        self.experts = Experts(num_experts, width, activation)

    def forward(
        self, x: Float[Tensor, "B S D"], mask: Bool[Tensor, "B S"] | None = None
    ) -> tuple[Float[Tensor, "B S D"], Routing]:
        """What the experts add to each token, and how it was routed; see :meth:`DiffMoE.forward`.

        Raises:
            ValueError: a wrong shape, or a sample with fewer real tokens than experts.
        """
        check_tokens("ExpertChoice", x, mask, self.width)
        scores = self.router(x)
        num_real = [x.shape[1]] * len(x) if mask is None else mask.sum(1).tolist()
        shares = [share_of("ExpertChoice", number, self.num_experts, self.capacity) for number in num_real]
        ranked = scores if mask is None else scores.masked_fill(~mask[..., None], -1.0)
        best = ranked.transpose(1, 2).topk(max(shares), dim=2).indices
        taken = torch.arange(max(shares), device=x.device) < torch.tensor(shares, device=x.device)[:, None, None]
        chosen = torch.zeros_like(scores.mT, dtype=torch.bool).scatter_(2, best, taken.expand_as(best)).mT
        out = self.experts.ragged(x.flatten(0, 1), chosen.flatten(0, 1), scores.flatten(0, 1))
        return out.view(x.shape), Routing(chosen, scores.new_zeros(()), None, sum(num_real))
