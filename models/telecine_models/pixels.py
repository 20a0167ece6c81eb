"""Between pixels (uint8, channels last) and what models see (floats in [-1, 1], channels first)."""

import torch
from jaxtyping import Float, UInt8
from torch import Tensor


def to_model_range(
    frames: UInt8[Tensor, "batch frames height width 3"],
) -> Float[Tensor, "batch 3 frames height width"]:
    """Map 0..255 to -1..1 (frame / 127.5 - 1) and move the channels to the front."""
    return frames.permute(0, 4, 1, 2, 3).to(torch.float32) / 127.5 - 1


def to_frames(x: Float[Tensor, "batch 3 frames height width"]) -> UInt8[Tensor, "batch frames height width 3"]:
    """Inverse of :func:`to_model_range`; values outside [-1, 1] are clamped, the rest rounded to the nearest."""
    pixels = (x.to(torch.float32) + 1) * 127.5
    return pixels.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 4, 1)
