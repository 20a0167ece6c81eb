"""What a video DiT is, without torch, so that sweeps and DAGs can count parameters."""

import dataclasses
from typing import Any


@dataclasses.dataclass(frozen=True, kw_only=True)
class VideoDiTConfig:
    """Sizes of a :class:`telecine_models.video_dit.model.VideoDiT`.

    Attributes:
        in_channels: channels of the video or latent, the same going in and coming out.
        patch_size: frames, rows and columns that make one token.
        num_layers: blocks.
        num_heads, head_dim: attention; their product is the width. ``head_dim`` must be a multiple of 16, so that
            rotary positions split it into a quarter for time and three eighths for each of height and width.
        text_dim: width of the text encoder's token vectors.

    Raises:
        ValueError: a size that cannot work.
    """

    in_channels: int = 3
    patch_size: tuple[int, int, int] = (1, 4, 4)
    num_layers: int = 4
    num_heads: int = 2
    head_dim: int = 32
    text_dim: int = 64

    def __post_init__(self) -> None:
        for name in ("in_channels", "num_layers", "num_heads", "text_dim"):
            if getattr(self, name) < 1:
                raise ValueError(f"VideoDiTConfig: {name} must be at least 1, got {getattr(self, name)}")
        if len(self.patch_size) != 3 or min(self.patch_size) < 1:
            raise ValueError(f"VideoDiTConfig: patch_size must be three sizes of at least 1, got {self.patch_size}")
        if self.head_dim < 16 or self.head_dim % 16:
            raise ValueError(f"VideoDiTConfig: head_dim must be a multiple of 16, got {self.head_dim}")

    @classmethod
    def from_depth(cls, num_layers: int, **overrides: Any) -> "VideoDiTConfig":
        """One dial for size: width 16 L, hence N = 16 L d^2 = d^3 (the family of arXiv 2411.17470).

        Heads are the widest of 64, 32 and 16 that divide the width and leave at least two of them.
        """
        width = 16 * num_layers
        head_dim = next((dim for dim in (64, 32) if width % dim == 0 and width >= 2 * dim), 16)
        sizes = {"num_layers": num_layers, "head_dim": head_dim, "num_heads": width // head_dim}
        return cls(**(sizes | overrides))

    @property
    def width(self) -> int:
        """Channels of a token inside the model."""
        return self.num_heads * self.head_dim

    @property
    def num_block_parameters(self) -> int:
        """N of the scaling laws: attention (4 d^2) and gated feed-forward (12 d^2) of every block.

        As there, it leaves out embeddings, modulation, norms and the output layer.
        """
        return 16 * self.num_layers * self.width**2
