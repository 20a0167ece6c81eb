"""Analytic FLOPs of a video transformer, and its model FLOPs utilisation (MFU); needs no torch.

Per token, forward and backward, it is the convention of arXiv 2001.08361 with attention counted:

    6 P_token + 12 L d s

P_token is the number of weights that a token is multiplied with, L the number of layers, d the width, s the number of
tokens that it attends to. A product of [m, k] and [k, n] has 2 m k n FLOPs; backward has two such products for every
one of forward. Attention is not causal: its scores and its sums take 4 s d a token and layer forward. Products that
read data, or something detached, have no gradient of their input and count 4, not 6.

Counted: what the definition of the model asks for. Not counted: activations that are computed again in backward (by
activation checkpointing or inside flash attention), norms, activation functions, softmax, rotary positions, the
optimizer, the average of the weights; and, because they are done once a sample and not once a token, the embedding of
flow time and the modulation that follows from it (7 d^2 + 256 d of P). All parameters are taken to be trained, or, in
:attr:`Flops.frozen_training_flops`, none of those that are counted.
"""

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from telecine_models.video_dit.config import VideoDiTConfig

WAN_TEXT_TOKENS = 512
"""Wan pads every prompt to as many (arXiv 2503.20314)."""

# Dense bf16 FLOP/s with fp32 accumulation, by the name that the driver gives a device. From NVIDIA's data sheets of
# each product, which print twice as much for most: with 2:4 sparsity. A slice of a GPU (MIG) matches nothing here.
_PEAKS = (
    (r"GB200", 2500e12),
    (r"B200", 2250e12),
    (r"H200 NVL", 835.5e12),
    (r"(GH200 .*|H200)", 989.4e12),
    (r"H100 PCIe", 756e12),
    (r"H100 NVL", 835.5e12),
    (r"H100 80GB HBM3", 989.4e12),
    (r"A[18]00[- ](SXM4-\d+GB|PCIE-\d+GB|80GB PCIe)", 312e12),
    (r"L40S", 362e12),
    (r"L40", 181e12),
    (r"L4", 121e12),
    (r"A40", 149.7e12),
    (r"A10", 125e12),
)


@dataclasses.dataclass(frozen=True)
class Flops:
    """Forward FLOPs of one sample, by what its backward pass costs; sums and multiples of them are such, too.

    Attributes:
        linear_flops: products with weights.
        attention_flops: products of tokens with tokens.
        leaf_flops: products with weights whose input takes no gradient.
    """

    linear_flops: float
    attention_flops: float
    leaf_flops: float = 0.0

    @property
    def forward_flops(self) -> float:
        """What sampling costs, for each call of the model."""
        return self.linear_flops + self.attention_flops + self.leaf_flops

    @property
    def training_flops(self) -> float:
        """Forward and backward."""
        return 3 * (self.linear_flops + self.attention_flops) + 2 * self.leaf_flops

    @property
    def frozen_training_flops(self) -> float:
        """Forward and backward beside a LoRA, whose own products are not counted: 4 P, as weights have no gradients."""
        return 2 * self.linear_flops + 3 * self.attention_flops + self.leaf_flops

    def __add__(self, other: "Flops") -> "Flops":
        return Flops(
            self.linear_flops + other.linear_flops,
            self.attention_flops + other.attention_flops,
            self.leaf_flops + other.leaf_flops,
        )

    def __mul__(self, times: int | float) -> "Flops":
        return Flops(self.linear_flops * times, self.attention_flops * times, self.leaf_flops * times)


def num_tokens(shape: Sequence[int], patch_size: Sequence[int]) -> int:
    """Tokens of a video or latent of ``shape`` frames, rows and columns.

    Raises:
        ValueError: a side that is no positive multiple of the patch's.
    """
    if len(shape) != 3 or any(side < 1 or side % patch for side, patch in zip(shape, patch_size, strict=True)):
        raise ValueError(f"num_tokens: shape must be positive multiples of patch_size {patch_size}, got {shape}")
    return math.prod(side // patch for side, patch in zip(shape, patch_size, strict=True))


def num_condition_tokens(kinds: Sequence[str], shape: Sequence[int], patch_size: Sequence[int]) -> int:
    """Tokens of conditions beside a video or latent of ``shape``, by :mod:`telecine_models.video_dit.conditions`.

    Elements count as one picture, and it and a style as pictures of the video's size: a shape does not tell more.

    Raises:
        ValueError: as :func:`num_tokens`.
    """
    video, frames = num_tokens(shape, patch_size), shape[0] // patch_size[0]
    of_kind = {"source": video, "depth": video, "sketch": video, "camera": frames}
    return sum(of_kind.get(kind, video // frames) for kind in kinds)


def video_dit(
    config: VideoDiTConfig,
    *,
    num_video_tokens: int,
    num_text_tokens: int,
    num_condition_tokens: int = 0,
    capacity: float = 1.0,
) -> Flops:
    """FLOPs of one sample of a :class:`telecine_models.video_dit.model.VideoDiT`.

    A dense block has 16 d^2 weights a token: attention 4 d^2, gated feed-forward 12 d^2. A mixture has 12 d^2 times
    its capacity, a router of d E, and DiffMoE a predictor of d^2 + d E, whose first layer reads detached tokens. Then
    come the projections of patches (in and out) and of text (in). Those of conditions are left out.

    Args:
        num_condition_tokens: of all conditions together, where the configuration has any.
        capacity: tokens that the experts process, as a share of all; 1 is what a dense layer processes.
    """
    width, tokens = config.width, num_video_tokens + num_text_tokens
    patch = config.in_channels * math.prod(config.patch_size)
    total = Flops(2.0 * num_video_tokens * width * patch, 0.0)
    total += Flops(0.0, 0.0, 2.0 * width * (num_video_tokens * patch + num_text_tokens * config.text_dim))
    for block in range(config.num_layers):
        beside = _context_tokens(config, block, num_condition_tokens)
        total += _feed_forward(config, block, capacity) * (tokens + beside)
        pairs = tokens * (tokens + beside) + beside * (beside if config.decoupled_context else tokens + beside)
        total += Flops(2.0 * 4 * width**2 * (tokens + beside), 4.0 * width * pairs)
    return total


def wan(config: Mapping[str, Any], *, num_video_tokens: int, num_text_tokens: int = WAN_TEXT_TOKENS) -> Flops:
    """FLOPs of one sample of diffusers' ``WanTransformer3DModel``, text to video.

    Of a block, a video token meets 4 d^2 in self-attention, 2 d^2 in cross-attention and 2 d times ``ffn_dim``; a text
    token 2 d^2, the keys and values of cross-attention. The text's two projections, the patches' in and out are there.

    Args:
        config: the model's ``config``: num_attention_heads, attention_head_dim, ffn_dim, num_layers, in_channels,
            out_channels, patch_size, text_dim.

    Raises:
        ValueError: the model also attends to images (``added_kv_proj_dim``), which is not counted here.
    """
    if config.get("added_kv_proj_dim") is not None:
        raise ValueError(f"wan: added_kv_proj_dim must be None, got {config['added_kv_proj_dim']}; count text to video")
    width = int(config["num_attention_heads"]) * int(config["attention_head_dim"])
    layers, pixels = int(config["num_layers"]), math.prod(config["patch_size"])
    patch_in, patch_out = config["in_channels"] * pixels, (config["out_channels"] or config["in_channels"]) * pixels
    each_video = layers * (6 * width**2 + 2 * width * int(config["ffn_dim"])) + width * patch_out
    each_text = layers * 2 * width**2 + width**2
    pairs = num_video_tokens * (num_video_tokens + num_text_tokens)
    return Flops(
        linear_flops=2.0 * (num_video_tokens * each_video + num_text_tokens * each_text),
        attention_flops=4.0 * layers * width * pairs,
        leaf_flops=2.0 * width * (num_video_tokens * patch_in + num_text_tokens * int(config["text_dim"])),
    )


def peak_flops(device_name: str) -> float | None:
    """Dense bf16 FLOP/s of a device by its driver's name; None for one that is not known, and never a guess."""
    plain = device_name.removeprefix("NVIDIA ").strip()
    return next((peak for pattern, peak in _PEAKS if re.fullmatch(pattern, plain)), None)


def mfu(flops_per_s: float, peak: float | None) -> float | None:
    """Model FLOPs utilisation: FLOP/s of one device over its peak, in [0, 1]; None where the peak is not known.

    Raises:
        ValueError: a rate below 0 or a peak that is not above it.
    """
    if flops_per_s < 0 or (peak is not None and peak <= 0):
        raise ValueError(f"mfu: flops_per_s must be at least 0 and peak above 0, got {flops_per_s} and {peak}")
    return None if peak is None else flops_per_s / peak


def _context_tokens(config: VideoDiTConfig, block: int, num_condition_tokens: int) -> int:
    """Condition tokens that take part in a block."""
    if not num_condition_tokens or not config.has_context(block):
        return 0
    return math.ceil(config.context_keep_ratio * num_condition_tokens)


def _feed_forward(config: VideoDiTConfig, block: int, capacity: float) -> Flops:
    """Forward FLOPs of one token in a block's feed-forward."""
    width, experts = config.width, config.num_experts
    if not config.has_experts(block):
        return Flops(2.0 * 12 * width**2, 0.0)
    is_diffmoe = config.mixture == "diffmoe"
    routers = width * experts * (2 if is_diffmoe else 1)
    return Flops(2.0 * (12 * width**2 * capacity + routers), 0.0, 2.0 * width**2 if is_diffmoe else 0.0)
