"""One transformer block: full self-attention over all tokens and a gated feed-forward, modulated by flow time.

Axes: B batch, S tokens (text and video), D width, N heads.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from telecine_models.video_dit.rope import rotate


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

    def forward(
        self, x: Float[Tensor, "B S D"], angles: Float[Tensor, "S half_dim"], key_mask: Bool[Tensor, "B 1 1 S"] | None
    ) -> Float[Tensor, "B S D"]:
        q, k, v = self.to_qkv(x).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        q, k = rotate(self.norm_q(q), angles), rotate(self.norm_k(k), angles)
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=key_mask)
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
    """

    def __init__(self, num_heads: int, head_dim: int) -> None:
        super().__init__()
        width = num_heads * head_dim
        self.norm_attention = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.attention = Attention(num_heads, head_dim)
        self.norm_feed_forward = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.feed_forward = FeedForward(width)
        self.modulation = nn.Parameter(torch.zeros(6, width))

    def forward(
        self,
        x: Float[Tensor, "B S D"],
        time: Float[Tensor, "B 6 D"],
        angles: Float[Tensor, "S half_dim"],
        key_mask: Bool[Tensor, "B 1 1 S"] | None,
    ) -> Float[Tensor, "B S D"]:
        shift_a, scale_a, gate_a, shift_f, scale_f, gate_f = (time + self.modulation).unsqueeze(2).unbind(1)
        x = x + gate_a * self.attention(self.norm_attention(x) * (1 + scale_a) + shift_a, angles, key_mask)
        x = x + gate_f * self.feed_forward(self.norm_feed_forward(x) * (1 + scale_f) + shift_f)
        return x
