"""What flow time does to tokens: a shift and a scale behind a norm, and a gate before a sum (adaLN, arXiv 2212.09748).

Axes: B batch, S tokens, D width; T flow times: one for all tokens of a row, or one for each of them, or, where
``lengths`` says how many tokens each of several samples has that follow each other in one row, one for each sample.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


def modulated(
    norm: nn.LayerNorm,
    x: Float[Tensor, "B S D"],
    shift: Float[Tensor, "B T D"],
    scale: Float[Tensor, "B T D"],
    lengths: Sequence[int] | None = None,
) -> Float[Tensor, "B S D"]:
    """Normalised tokens, multiplied by one and a scale, and moved."""
    if lengths is None:
        moved: Tensor = norm(x) * (1 + scale) + shift
        return moved
    # To a sample's tokens its flow time is the norm's weight and bias: nothing is spread over the sequence.
    affine = zip((1 + scale).flatten(0, 1).unbind(), shift.flatten(0, 1).unbind(), strict=True)
    parts = zip(x.split(list(lengths), dim=1), affine, strict=True)
    return torch.cat([F.layer_norm(part, norm.normalized_shape, *each, norm.eps) for part, each in parts], dim=1)


def gated(
    gate: Float[Tensor, "B T D"], x: Float[Tensor, "B S D"], lengths: Sequence[int] | None = None
) -> Float[Tensor, "B S D"]:
    """Tokens, multiplied by a gate."""
    if lengths is None:
        return gate * x
    parts = zip(gate.split(1, dim=1), lengths, strict=True)
    # Expanded one by one, so that the gradient is a sum, not a scatter.
    return torch.cat([value.expand(-1, length, -1) for value, length in parts], dim=1) * x
