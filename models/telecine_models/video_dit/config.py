"""What a video DiT is, without torch, so that sweeps and DAGs can count parameters."""

import dataclasses
from typing import Any

KINDS = ("first_frame", "last_frame", "source", "depth", "sketch", "camera", "elements", "style")
"""What a video may be conditioned on beside its text; see :class:`telecine_models.video_dit.conditions.Conditions`."""
METRICS = ("motion", "aesthetic", "clarity")
"""Scores of a clip that a model may be told (Koala-36M, arXiv 2410.08260)."""
MIXTURES = ("diffmoe", "token_choice", "expert_choice")
"""How tokens and experts find each other; see :mod:`telecine_models.moe`."""
CAMERA_CHANNELS = 12
"""A pose [R|t], flattened."""
MAX_ELEMENTS = 4
STYLE_SLOT = MAX_ELEMENTS
"""Images without a place in time take slots behind the last frame: an element each, then the style."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class VideoDiTConfig:
    """Sizes and abilities of a :class:`telecine_models.video_dit.model.VideoDiT`.

    Attributes:
        in_channels: channels of the video or latent, the same going in and coming out.
        patch_size: frames, rows and columns that make one token.
        num_layers: blocks.
        num_heads, head_dim: attention; their product is the width. ``head_dim`` must be a multiple of 16, so that
            rotary positions split it into a quarter for time and three eighths for each of height and width.
        text_dim: width of the text encoder's token vectors.
        conditions: which of :data:`KINDS` the model understands.
        metrics: which of :data:`METRICS` it is told.
        num_experts: experts of every second feed-forward; 0 makes all of them dense.
        mixture: which mixture of experts, one of :data:`MIXTURES`.
        decoupled_context: condition tokens look at each other alone, so that what they say to the video is computed
            once for all steps of a sampler (FullDiT2, arXiv 2506.04213).
        context_keep_ratio: share of each sample's condition tokens that take part in a block, chosen by the block.
        context_blocks: blocks in which conditions take part at all; empty for all of them.

    Raises:
        ValueError: a size or name that cannot work.
    """

    in_channels: int = 3
    patch_size: tuple[int, int, int] = (1, 4, 4)
    num_layers: int = 4
    num_heads: int = 2
    head_dim: int = 32
    text_dim: int = 64
    conditions: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ()
    num_experts: int = 0
    mixture: str = "diffmoe"
    decoupled_context: bool = False
    context_keep_ratio: float = 1.0
    context_blocks: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        counts = {"in_channels": 1, "num_layers": 1, "num_heads": 1, "text_dim": 1, "num_experts": 0}
        for name, least in counts.items():
            if getattr(self, name) < least:
                raise ValueError(f"VideoDiTConfig: {name} must be at least {least}, got {getattr(self, name)}")
        if len(self.patch_size) != 3 or min(self.patch_size) < 1:
            raise ValueError(f"VideoDiTConfig: patch_size must be three sizes of at least 1, got {self.patch_size}")
        if self.head_dim < 16 or self.head_dim % 16:
            raise ValueError(f"VideoDiTConfig: head_dim must be a multiple of 16, got {self.head_dim}")
        self._check_abilities()

    def _check_abilities(self) -> None:
        for name, known in (("conditions", KINDS), ("metrics", METRICS)):
            values = getattr(self, name)
            if not set(values) <= set(known) or len(set(values)) < len(values):
                raise ValueError(f"VideoDiTConfig: {name} must be different names of {list(known)}, got {values}")
        if self.mixture not in MIXTURES:
            raise ValueError(f"VideoDiTConfig: mixture must be one of {list(MIXTURES)}, got {self.mixture!r}")
        if self.decoupled_context and self.num_experts and self.mixture != "token_choice":
            raise ValueError(
                "VideoDiTConfig: decoupled_context needs feed-forwards in which no token depends on another, "
                f"dense ones or mixture 'token_choice', got {self.mixture!r}"
            )
        if not 0 < self.context_keep_ratio <= 1:
            raise ValueError(f"VideoDiTConfig: context_keep_ratio must lie in (0, 1], got {self.context_keep_ratio}")
        if not set(self.context_blocks) <= set(range(self.num_layers)):
            blocks = f"blocks of 0..{self.num_layers - 1}"
            raise ValueError(f"VideoDiTConfig: context_blocks must be {blocks}, got {self.context_blocks}")

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
        """N of the scaling laws: attention (4 d^2) and gated feed-forward (12 d^2) of every dense block.

        As there, it leaves out embeddings, modulation, norms and the output layer. With experts it is what a token
        activates at capacity 1.
        """
        return 16 * self.num_layers * self.width**2

    def has_experts(self, block: int) -> bool:
        """Whether a block's feed-forward is a mixture: every second one, from the second on (arXiv 2503.14487)."""
        return self.num_experts > 0 and block % 2 == 1

    def has_context(self, block: int) -> bool:
        """Whether conditions take part in a block."""
        return not self.context_blocks or block in self.context_blocks
