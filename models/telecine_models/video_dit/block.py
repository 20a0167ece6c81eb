"""One transformer block: full self-attention over all tokens and a gated feed-forward, modulated by flow time.

Axes: B batch, S tokens of the main stream (text and video), M tokens of the context (conditions), K of them that take
part in a block, T flow times (one for all tokens, or one for each), D width, N heads, P half of a head's channels.
"""

import dataclasses
import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from telecine_models.moe.routing import Routing
from telecine_models.video_dit.modulation import gated, modulated
from telecine_models.video_dit.rope import Turn, rotate
from telecine_models.video_dit.sharing import Share


@dataclasses.dataclass(frozen=True, eq=False)
class Context:
    """Tokens of the conditions on their way through the blocks.

    Attributes:
        tokens: [B, M, D].
        turn: of rotary angles [M, P], or [B, 1, M, P] where samples differ.
        real: [B, M] which of them a sample has; None where all have all.
        time: [B, 6, 1, D] modulation of clean tokens, whatever the flow time of the video is.
    """

    tokens: Float[Tensor, "B M D"]
    turn: Turn
    real: Bool[Tensor, "B M"] | None
    time: Float[Tensor, "B 6 1 D"]


@dataclasses.dataclass(frozen=True, eq=False)
class Heard:
    """What a block's context says to the video: keys and values of the tokens that take part, and which are real."""

    keys: Float[Tensor, "B N K head_dim"]
    values: Float[Tensor, "B N K head_dim"]
    real: Bool[Tensor, "B K"] | None


@dataclasses.dataclass(frozen=True, eq=False)
class _Stream:
    """Tokens that a block works on: what they ask and say, and what their flow time does to them.

    ``modulation`` is the gate of attention, then shift, scale and gate of the feed-forward.
    ``lengths`` are the tokens of each sample where several follow each other, each with a flow time of its own.
    """

    tokens: Tensor
    q: Tensor
    k: Tensor
    v: Tensor
    real: Tensor | None
    modulation: tuple[Tensor, Tensor, Tensor, Tensor]
    lengths: Sequence[int] | None


class Attention(nn.Module):
    """Self-attention with RMS-normalised queries and keys (arXiv 2302.05442) and rotary positions."""

    def __init__(self, num_heads: int, head_dim: int) -> None:
        super().__init__()
        width = num_heads * head_dim
        self.num_heads = num_heads
        self.to_qkv = nn.Linear(width, 3 * width, bias=False)
        self.norm_q = nn.RMSNorm(head_dim, eps=1e-6)
        self.norm_k = nn.RMSNorm(head_dim, eps=1e-6)
        self.to_out = nn.Linear(width, width, bias=False)

    def project(
        self, x: Float[Tensor, "B S D"], turn: Turn
    ) -> tuple[Float[Tensor, "B N S head_dim"], Float[Tensor, "B N S head_dim"], Float[Tensor, "B N S head_dim"]]:
        """Queries, keys and values."""
        q, k, v = self.to_qkv(x).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        return rotate(self.norm_q(q), turn), rotate(self.norm_k(k), turn), v

    def mix(
        self,
        q: Float[Tensor, "B N Q head_dim"],
        k: Float[Tensor, "B N K head_dim"],
        v: Float[Tensor, "B N K head_dim"],
        key_mask: Bool[Tensor, "B 1 1 whole"] | None,
        lengths: Sequence[int] | None = None,
        share: Share | None = None,
    ) -> Float[Tensor, "B Q D"]:
        """What the queries' tokens hear from the keys' tokens.

        Args:
            key_mask: of all tokens, also where they are shared out.
            lengths: of the sequences that follow each other and hear themselves alone; None for one.
            share: whose slice of the tokens Q and K are; None for all of them.
        """

        def locally(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            if lengths is None:
                return F.scaled_dot_product_attention(q, k, v, attn_mask=key_mask)
            parts = zip(*(each.split(list(lengths), dim=2) for each in (q, k, v)), strict=True)
            heard = [F.scaled_dot_product_attention(*part).transpose(1, 2) for part in parts]
            return torch.cat(heard, dim=1).transpose(1, 2)

        mixed = locally(q, k, v) if share is None else share.attend(locally, q, k, v)
        out: Tensor = self.to_out(mixed.transpose(1, 2).flatten(2))
        return out


class FeedForward(nn.Module):
    """SwiGLU (arXiv 2002.05202) with four times the width inside: 12 D^2 weights."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.to_gate_and_value = nn.Linear(width, 8 * width, bias=False)
        self.to_out = nn.Linear(4 * width, width, bias=False)

    def forward(self, x: Float[Tensor, "B S D"]) -> Float[Tensor, "B S D"]:
        gate, value = self.to_gate_and_value(x).chunk(2, dim=-1)
        out: Tensor = self.to_out(F.silu(gate) * value)
        return out


class Block(nn.Module):
    """Attention and feed-forward, each scaled, shifted and gated by flow time (adaLN-zero, arXiv 2212.09748).

    The projection of flow time is shared by all blocks and each adds a table of its own (arXiv 2310.00426). Both start
    at zero, so a fresh block is the identity.

    Conditions run through the same weights beside the main stream, as clean tokens (FullDiT, arXiv 2503.19907).
    Jointly, all tokens look at all. Decoupled (FullDiT2, arXiv 2506.04213), the context looks at itself alone and the
    main stream at both, so that what is :class:`Heard` can be kept for all steps of a sampler.

    Args:
        mixture: takes the place of the dense feed-forward: ``(tokens, real) -> (tokens, routing)``.
        keep_ratio: share of the context's tokens that take part; a learned score says which.
    """

    def __init__(
        self,
        num_heads: int,
        head_dim: int,
        *,
        mixture: nn.Module | None = None,
        decoupled: bool = False,
        keep_ratio: float = 1.0,
    ) -> None:
        super().__init__()
        width = num_heads * head_dim
        self.decoupled, self.keep_ratio, self.is_mixture = decoupled, keep_ratio, mixture is not None
        self.norm_attention = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.attention = Attention(num_heads, head_dim)
        self.norm_feed_forward = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.feed_forward = FeedForward(width) if mixture is None else mixture
        self.modulation = nn.Parameter(torch.zeros(6, width))
        self.score = nn.Linear(width, 1) if keep_ratio < 1 else None

    def forward(
        self,
        x: Float[Tensor, "B S D"],
        time: Float[Tensor, "B 6 T D"],
        turn: Turn,
        real: Bool[Tensor, "B whole"] | None,
        context: Context | Heard | None = None,
        lengths: Sequence[int] | None = None,
        share: Share | None = None,
    ) -> tuple[Float[Tensor, "B S D"], Context | Heard | None, list[Routing]]:
        """The main stream one block further, and the context, if it is not :class:`Heard` already.

        Args:
            real: which tokens of the main stream may be looked at; None for all.
            lengths: of the samples that are packed into the main stream one after the other, with one flow time each;
                None where each has a row of its own.
            share: the slice of the main stream that this rank has; ``real`` and ``lengths`` are of all of it.

        Returns:
            the main stream, the context, and the routings of the feed-forwards that are mixtures.
        """
        main = self._stream(x, time, turn, real, lengths=lengths, share=share)
        if context is None or isinstance(context, Heard):
            after = self._attend(main, [main] if context is None else [main, context], lengths, share)
            (x,), routing = self._think([(main, after)])
            return x, context, routing
        kept, chosen = self._keep(context)
        beside = self._stream(kept.tokens, kept.time, kept.turn, kept.real, chosen)
        after = self._attend(main, [main, beside])
        told = self._attend(beside, [beside] if self.decoupled else [main, beside])
        (x, tokens), routing = self._think([(main, after), (beside, told)])
        return x, _put_back(context, tokens, chosen), routing

    def listen(self, context: Context) -> tuple[Context, Heard]:
        """The context one block further without a video, and what a video hears of it in this block."""
        kept, chosen = self._keep(context)
        beside = self._stream(kept.tokens, kept.time, kept.turn, kept.real, chosen)
        (tokens,), _ = self._think([(beside, self._attend(beside, [beside]))])
        return _put_back(context, tokens, chosen), Heard(beside.k, beside.v, beside.real)

    def _stream(
        self,
        tokens: Tensor,
        time: Tensor,
        turn: Turn,
        real: Tensor | None,
        chosen: "_Chosen | None" = None,
        lengths: Sequence[int] | None = None,
        share: Share | None = None,
    ) -> _Stream:
        shift, scale, gate, shift_after, scale_after, gate_after = (time + self.modulation[:, None]).unbind(1)
        here = lengths if lengths is None or share is None else share.lengths(lengths)
        q, k, v = self.attention.project(modulated(self.norm_attention, tokens, shift, scale, here), turn)
        if chosen is not None:
            v = v * chosen.weight[:, None, :, None]
        return _Stream(tokens, q, k, v, real, (gate, shift_after, scale_after, gate_after), here)

    def _attend(
        self,
        stream: _Stream,
        heard: list["_Stream | Heard"],
        lengths: Sequence[int] | None = None,
        share: Share | None = None,
    ) -> Tensor:
        """A stream's tokens after they have listened."""
        keys, values = (_joined(parts) for parts in zip(*map(_said, heard), strict=True))
        mixed = self.attention.mix(stream.q, keys, values, _key_mask(heard), lengths, share)
        return stream.tokens + gated(stream.modulation[0], mixed, stream.lengths)

    def _think(self, streams: list[tuple[_Stream, Tensor]]) -> tuple[tuple[Tensor, ...], list[Routing]]:
        """The tokens of all streams after the feed-forward, for which they are one pool."""
        tokens = [x for _, x in streams]
        inner = [modulated(self.norm_feed_forward, x, *stream.modulation[1:3], stream.lengths) for stream, x in streams]
        pool = _joined(inner, dim=1)
        if self.is_mixture:
            y, routing = self.feed_forward(pool, _real([stream for stream, _ in streams]))
        else:
            y, routing = self.feed_forward(pool), None
        parts = y.split([x.shape[1] for x in tokens], dim=1)
        after = tuple(
            x + gated(stream.modulation[3], part, stream.lengths)
            for (stream, x), part in zip(streams, parts, strict=True)
        )
        return after, [] if routing is None else [routing]

    def _keep(self, context: Context) -> tuple[Context, "_Chosen | None"]:
        """The tokens that take part in this block, best first."""
        if self.score is None:
            return context, None
        scores = self.score(self.norm_attention(context.tokens))[..., 0]
        if context.real is not None:
            scores = scores.masked_fill(~context.real, -torch.inf)
        top, index = scores.topk(math.ceil(self.keep_ratio * scores.shape[1]), dim=1)
        tokens = context.tokens.gather(1, index[..., None].expand(-1, -1, context.tokens.shape[2]))
        real = context.real
        if real is not None:
            # Each sample keeps a share of what it has, whatever the others have.
            allowed = (self.keep_ratio * real.sum(1, keepdim=True)).ceil()
            real = real.gather(1, index) & (torch.arange(index.shape[1], device=index.device) < allowed)
        # The choice has no gradient; what is chosen is weighed by one, through which the score learns.
        likely = top.sigmoid()
        chosen = _Chosen(index, 1 + (likely - likely.detach()))
        cos, sin = (each[index][:, None] for each in context.turn)
        return dataclasses.replace(context, tokens=tokens, turn=(cos, sin), real=real), chosen


@dataclasses.dataclass(frozen=True, eq=False)
class _Chosen:
    index: Tensor
    weight: Tensor


def _joined(parts: Sequence[Tensor], dim: int = 2) -> Tensor:
    """As ``torch.cat``, which copies even a single tensor."""
    return parts[0] if len(parts) == 1 else torch.cat(list(parts), dim=dim)


def _said(speaker: _Stream | Heard) -> tuple[Tensor, Tensor]:
    return (speaker.keys, speaker.values) if isinstance(speaker, Heard) else (speaker.k, speaker.v)


def _real(heard: Sequence[_Stream | Heard]) -> Bool[Tensor, "B K"] | None:
    """Which tokens of several streams are real; None for all."""
    if all(speaker.real is None for speaker in heard):
        return None
    keys = [_said(speaker)[0] for speaker in heard]
    parts = [
        k.new_ones((k.shape[0], k.shape[2]), dtype=torch.bool) if speaker.real is None else speaker.real
        for k, speaker in zip(keys, heard, strict=True)
    ]
    return torch.cat(parts, dim=1)


def _key_mask(heard: list[_Stream | Heard]) -> Bool[Tensor, "B 1 1 K"] | None:
    """Which keys are real; a sample that has none at all looks at all of them, since a softmax needs one."""
    real = _real(heard)
    return None if real is None else (real | ~real.any(1, keepdim=True))[:, None, None]


def _put_back(context: Context, tokens: Tensor, chosen: _Chosen | None) -> Context:
    """The context with the tokens that took part in their new state."""
    if chosen is None:
        return dataclasses.replace(context, tokens=tokens)
    index = chosen.index[..., None].expand_as(tokens)
    return dataclasses.replace(context, tokens=context.tokens.scatter(1, index, tokens.to(context.tokens.dtype)))
