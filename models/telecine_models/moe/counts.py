"""Parameters of the class-conditional DiffMoE of arXiv 2503.14487, counted on modules that are built without memory.

The mixtures are :class:`telecine_models.moe.diffmoe.DiffMoE`; attention, adaLN, dense feed-forwards, embeddings and the
output layer are those of diffusers' DiT, which has the shapes of the published one.
"""

import dataclasses

import torch
from diffusers.models.transformers.dit_transformer_2d import DiTTransformer2DModel
from torch import nn

from telecine_models.moe.capacity import activated_parameters
from telecine_models.moe.diffmoe import DiffMoE

_PARTS = ("ff", "ff.predictor", "attn1", "norm1.linear", "norm1.emb")


@dataclasses.dataclass(frozen=True, kw_only=True)
class DiTSize:
    """Blocks, width and attention heads."""

    num_layers: int
    width: int
    num_heads: int


# Table 1 of the paper; the heads of XL are those of DiT (arXiv 2212.09748).
PAPER_SIZES = {
    "S": DiTSize(num_layers=12, width=384, num_heads=6),
    "B": DiTSize(num_layers=12, width=768, num_heads=12),
    "L": DiTSize(num_layers=24, width=1024, num_heads=16),
    "XL": DiTSize(num_layers=28, width=1152, num_heads=16),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class ParameterCounts:
    """Where a model's parameters are.

    Attributes:
        num_experts: of every second feed-forward; 1 for a dense model.
        ffn: feed-forwards, routers and capacity predictors.
        predictor: of these, the capacity predictors.
        attention: projections in and out.
        adaln: each block's modulation.
        other: patches, positions, flow time, classes, output.
    """

    num_experts: int
    ffn: int
    predictor: int
    attention: int
    adaln: int
    other: int

    @property
    def total(self) -> int:
        """All of them."""
        return self.ffn + self.attention + self.adaln + self.other

    def activated(self, average_capacity: float) -> float:
        """Those at work on a token at this capacity; see :func:`activated_parameters`."""
        return activated_parameters(average_capacity, self.num_experts, self.ffn, self.total - self.ffn)


def count_parameters(size: DiTSize, num_experts: int) -> ParameterCounts:
    """Count a DiT/2 on 32x32x4 latents with 1,000 classes, of which blocks 1, 3, 5, … have ``num_experts`` experts.

    One expert means that all blocks are dense.
    """
    with torch.device("meta"):
        dit = _dit(size)
        if num_experts > 1:
            for layer in range(1, size.num_layers, 2):
                dit.set_submodule(f"transformer_blocks.{layer}.ff", DiffMoE(size.width, num_experts))
    numbers = {name: parameter.numel() for name, parameter in dit.named_parameters()}
    within = {part: sum(n for name, n in numbers.items() if f".{part}." in name) for part in _PARTS}
    # Every block of diffusers embeds flow time and class anew; the published model does so once.
    repeated = within["norm1.emb"] * (size.num_layers - 1) // size.num_layers
    positions = dict(dit.named_buffers())["pos_embed.pos_embed"].numel()
    parts = within["ff"] + within["attn1"] + within["norm1.linear"]
    return ParameterCounts(
        num_experts=num_experts,
        ffn=within["ff"],
        predictor=within["ff.predictor"],
        attention=within["attn1"],
        adaln=within["norm1.linear"],
        other=sum(numbers.values()) - repeated - parts + positions,
    )


def _dit(size: DiTSize) -> nn.Module:
    dit: nn.Module = DiTTransformer2DModel(
        num_attention_heads=size.num_heads,
        attention_head_dim=size.width // size.num_heads,
        in_channels=4,
        out_channels=8,
        num_layers=size.num_layers,
        sample_size=32,
        patch_size=2,
        num_embeds_ada_norm=1000,
    )
    return dit
