"""One sequence shared out over ranks: each has a slice of the tokens, and in attention all tokens of some heads.

DeepSpeed-Ulysses (arXiv 2309.14509). What talks to the other ranks is passed in; this is the layout.
Axes: B batch, S tokens of the sequence, R of them on a rank, N heads, D width.
"""

import dataclasses
from collections.abc import Callable, Sequence

from torch import Tensor, nn

Locally = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Attention of queries, keys and values [B, heads, tokens, head_dim]."""


@dataclasses.dataclass(frozen=True, eq=False)
class Sharing:
    """How a rank shares sequences with the others of its group.

    Attributes:
        rank, size: of the group.
        attend: ``(locally, q, k, v)``: exchange [B, R, N, head_dim] for all ranks' tokens of N / size heads, call
            ``locally`` with [B, S, N / size, head_dim], and exchange what it returns back.
        gather: [B, R, D] of all ranks one after the other, [B, R * size, D]; gradients of all ranks add up.
    """

    rank: int
    size: int
    attend: Callable[[Callable[..., Tensor], Tensor, Tensor, Tensor], Tensor]
    gather: Callable[[Tensor], Tensor]


@dataclasses.dataclass(frozen=True, eq=False)
class Share:
    """A rank's slice of a sequence of ``num_tokens``; zeros behind the last make all slices equally long."""

    sharing: Sharing
    num_tokens: int

    @property
    def length(self) -> int:
        """Tokens of a slice."""
        return -(-self.num_tokens // self.sharing.size)

    @property
    def num_missing(self) -> int:
        """Zeros behind the last token."""
        return self.length * self.sharing.size - self.num_tokens

    def mine(self, values: Tensor, dim: int) -> Tensor:
        """This rank's part of values that have one for each token along a dimension."""
        behind = [0, 0] * (values.ndim - 1 - dim) + [0, self.num_missing]
        return nn.functional.pad(values, behind).narrow(dim, self.sharing.rank * self.length, self.length)

    def lengths(self, lengths: Sequence[int]) -> list[int]:
        """How many tokens of the slice each of several samples has, one after the other; zeros count for the last."""
        begin, end = self.sharing.rank * self.length, (self.sharing.rank + 1) * self.length
        found, place = [], 0
        for length in [*lengths[:-1], lengths[-1] + self.num_missing]:
            found.append(max(0, min(place + length, end) - max(place, begin)))
            place += length
        return found

    def attend(self, locally: Locally, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """What the slice's tokens [B, N, R, head_dim] hear; ``locally`` sees the whole sequence, and no zeros."""

        def without_zeros(*parts: Tensor) -> Tensor:
            whole = (part[:, : self.num_tokens].transpose(1, 2) for part in parts)
            return nn.functional.pad(locally(*whole).transpose(1, 2), (0, 0, 0, 0, 0, self.num_missing))

        return self.sharing.attend(without_zeros, *(part.transpose(1, 2) for part in (q, k, v))).transpose(1, 2)

    def whole(self, x: Tensor) -> Tensor:
        """The sequence [B, S, D] of which each rank has a slice [B, R, D]."""
        return self.sharing.gather(x)[:, : self.num_tokens]
