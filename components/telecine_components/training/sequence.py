"""Ranks that share each sample's tokens, with DeepSpeed's attention over them (Ulysses, arXiv 2309.14509)."""

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from telecine_components.training.ranks import Ranks
from telecine_models.video_dit.sharing import Sharing


def share_sequences(ranks: Ranks, size: int) -> Sharing:
    """How this rank shares sequences with its neighbours, ``size`` of them; every rank has to call it."""
    # Here, because it takes seconds to import and most trainings do without.
    from deepspeed.sequence.layer import DistributedAttention

    groups = [dist.new_group(list(range(first, first + size))) for first in range(0, ranks.size, size)]
    group = groups[ranks.number // size]
    attention = DistributedAttention(_call, group, scatter_idx=2, gather_idx=1)

    def attend(locally: Callable[..., Tensor], q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        # The batch is dimension 0, and queries and keys have their rotary positions already.
        heard: Tensor = attention(q, k, v, 0, None, locally)
        return heard

    def gather(x: Tensor) -> Tensor:
        whole: Tensor = _Gather.apply(x, group, ranks.number % size, size)
        return whole

    return Sharing(ranks.number % size, size, attend, gather)


def _call(q: Tensor, k: Tensor, v: Tensor, locally: Callable[..., Tensor]) -> Tensor:
    return locally(q, k, v)


class _Gather(torch.autograd.Function):
    """All ranks' [B, R, D] as [B, R * size, D]. PyTorch's own fails on gloo where a group is not all ranks."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, group: dist.ProcessGroup, rank: int, size: int) -> Tensor:
        ctx.group, ctx.begin, ctx.length = group, rank * x.shape[1], x.shape[1]
        parts = [torch.empty_like(x, memory_format=torch.contiguous_format) for _ in range(size)]
        dist.all_gather(parts, x.contiguous(), group=group)
        return torch.cat(parts, dim=1)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        total = gradient.contiguous().clone()
        dist.all_reduce(total, group=ctx.group)
        return total.narrow(1, ctx.begin, ctx.length), None, None, None
