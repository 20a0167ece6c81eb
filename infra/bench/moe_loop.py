"""The published DiffMoE layer written plainly from its description (arXiv 2503.14487): the peer of moe_layer_vs_loop.

A loop over experts, each of which picks its tokens by a top-k of its own and writes into its part of a buffer of zeros
that holds every token once per expert; the parts are then added up. Thresholds come from one more top-k per expert.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from telecine_models.moe.diffmoe import DiffMoE


class FeedForward(nn.Module):
    """DiT's feed-forward: one expert here, and as the peer of moe_layer_vs_dense what costs as much as all of them."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.into = nn.Linear(width, 4 * width)
        self.out = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        answer: Tensor = self.out(F.gelu(self.into(x), approximate="tanh"))
        return answer


class LoopDiffMoE(nn.Module):
    """``layer(x [B, S, D]) -> (y, predictor loss, quantiles)``, at a capacity of 1.

    Where the description leaves a choice, it is the faster one: the buffer is written in place and once for all
    experts, and tokens are gathered by index_select.
    """

    def __init__(self, width: int, num_experts: int) -> None:
        super().__init__()
        self.router = nn.Linear(width, num_experts, bias=False)
        self.experts = nn.ModuleList(FeedForward(width) for _ in range(num_experts))
        self.predictor = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, num_experts))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        pool = x.flatten(0, 1)
        num_tokens, num_experts = len(pool), len(self.experts)
        share = num_tokens // num_experts
        scores = self.router(pool).softmax(-1)
        mask, rows, answers = torch.zeros_like(scores), [], []
        for number, expert in enumerate(self.experts):
            gate, index = scores[:, number].topk(share, sorted=False)
            answers.append(gate[:, None] * expert(pool.index_select(0, index)))
            rows.append(index + number * num_tokens)
            mask[index, number] = 1.0
        slots, written = torch.cat(rows)[:, None].expand(-1, pool.shape[1]), torch.cat(answers)
        del answers
        buffer = pool.new_zeros(num_experts * num_tokens, pool.shape[1]).scatter_(0, slots, written)
        y = buffer.view(num_experts, num_tokens, -1).sum(0)
        del buffer, written
        logits = self.predictor(pool.detach())
        loss = F.binary_cross_entropy_with_logits(logits, mask)
        probabilities = logits.detach().sigmoid()
        quantiles = [probabilities[:, number].topk(share).values[-1] for number in range(num_experts)]
        return y.view(x.shape), loss, torch.stack(quantiles)


def under_its_names(layer: DiffMoE, of: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
    """Something of each parameter of a layer of ours, its value or its gradient, named and shaped as in the loop."""
    bank, predictor = layer.experts, layer.predictor
    found = {"router.weight": of(layer.router.weight)}
    for place, linear in (("0", predictor.hidden), ("2", predictor.out)):
        found |= {f"predictor.{place}.weight": of(linear.weight), f"predictor.{place}.bias": of(linear.bias)}
    assert bank.bias_in is not None and bank.bias_out is not None
    for name, weight, bias in (("into", bank.weight_in, bank.bias_in), ("out", bank.weight_out, bank.bias_out)):
        for number, (matrix, vector) in enumerate(zip(of(weight), of(bias), strict=True)):
            found |= {f"experts.{number}.{name}.weight": matrix.T, f"experts.{number}.{name}.bias": vector[0]}
    return found
