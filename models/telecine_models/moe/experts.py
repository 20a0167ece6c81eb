"""A bank of experts: feed-forwards of one shape whose weights are stacked, so that all of them run as one product.

Axes: T tokens of the pool, E experts, K tokens that each expert takes, D width.
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Float32, Int64
from torch import Tensor, nn

from telecine_models.moe.equal_shares import Activation, EqualShares, activate

# Grouped products want rows that start at multiples of 16 bytes, in half precision too.
_ALIGNMENT_CHANNELS = 8


class Experts(nn.Module):
    """``num_experts`` feed-forwards with four times the width inside.

    Two shapes, each the twin of a dense feed-forward: ``gelu`` is DiT's (arXiv 2212.09748), tanh GELU between two
    linear layers with biases, 8 D^2 weights an expert; ``swiglu`` is the video DiT's, gated and without biases,
    12 D^2.

    Raises:
        ValueError: a number of experts, a width or an activation that cannot work.
    """

    def __init__(self, num_experts: int, width: int, activation: Activation) -> None:
        super().__init__()
        if width < 1 or width % _ALIGNMENT_CHANNELS:
            raise ValueError(f"Experts: width must be a positive multiple of {_ALIGNMENT_CHANNELS}, got {width}")
        hidden = 4 * width if activation == "gelu" else 8 * width
        self.activation: Activation = activation
        self.weight_in = nn.Parameter(torch.empty(num_experts, width, hidden))
        self.weight_out = nn.Parameter(torch.empty(num_experts, 4 * width, width))
        self.bias_in = nn.Parameter(torch.empty(num_experts, 1, hidden)) if activation == "gelu" else None
        self.bias_out = nn.Parameter(torch.empty(num_experts, 1, width)) if activation == "gelu" else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Xavier for each expert by itself, as DiT initialises its linear layers; biases are zero."""
        for weight in (self.weight_in, self.weight_out):
            bound = math.sqrt(6 / sum(weight.shape[1:]))
            nn.init.uniform_(weight, -bound, bound)
        for bias in (self.bias_in, self.bias_out):
            if bias is not None:
                nn.init.zeros_(bias)

    def forward(
        self, pool: Float[Tensor, "T D"], index: Int64[Tensor, "E K"], gate: Float32[Tensor, "E K"]
    ) -> Float[Tensor, "T D"]:
        """What each token gets from the experts that took it, weighted; zero where none did.

        Args:
            index: the tokens that each expert takes, none of them twice.
            gate: their weights.
        """
        out: Tensor = EqualShares.apply(self.activation, index, gate, *self._operands(pool))
        return out

    def ragged(
        self, pool: Float[Tensor, "T D"], selected: Bool[Tensor, "T E"], scores: Float32[Tensor, "T E"]
    ) -> Float[Tensor, "T D"]:
        """As :meth:`forward`, for experts that take different numbers of tokens: those that ``selected`` says."""
        pool, weight_in, weight_out, bias_in, bias_out = self._operands(pool)
        expert, token = selected.t().nonzero(as_tuple=True)
        if len(token) == 0:
            return torch.zeros_like(pool)
        ends = selected.sum(0).cumsum(0).to(torch.int32)
        hidden = F.grouped_mm(pool.index_select(0, token), weight_in, offs=ends)
        active = activate(self.activation, hidden if bias_in is None else hidden + bias_in[expert, 0])
        answers = F.grouped_mm(active, weight_out, offs=ends)
        answers = answers if bias_out is None else answers + bias_out[expert, 0]
        gated = (answers * scores[token, expert, None]).to(pool.dtype)
        return torch.zeros_like(pool).index_add(0, token, gated)

    def _operands(self, pool: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor | None]:
        """Pool, weights and biases; in autocast's type where it is on, of which the products know nothing."""
        tensors = (pool, self.weight_in, self.weight_out, self.bias_in, self.bias_out)
        if torch.is_autocast_enabled(pool.device.type):
            dtype = torch.get_autocast_dtype(pool.device.type)
            tensors = tuple(None if each is None else each.to(dtype) for each in tensors)  # type: ignore[assignment]
        return tensors
