"""A text encoder that needs no download: hashed words with fixed pseudo-random vectors.

Each word is the sum of two rows of one table, chosen by two independent hashes (hash embeddings,
arXiv 1709.03933), so that two words share a vector only if both hashes collide. Sinusoids carry the word order.
"""

import hashlib
import re

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.embeddings import get_timestep_embedding
from diffusers.models.modeling_utils import ModelMixin
from jaxtyping import Bool, Float
from torch import Tensor

_WORD = re.compile(r"\w+")


class HashTextEncoder(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """Captions to token vectors; frozen, deterministic, and saved with a pipeline like any encoder.

    Args:
        text_dim: width of a token vector; must be even.
        max_tokens: length of every encoded caption; words beyond it are dropped.
        num_buckets: rows of the table.
        seed: of the table's generator.
    """

    table: Tensor

    @register_to_config
    def __init__(self, text_dim: int = 64, max_tokens: int = 32, num_buckets: int = 1024, seed: int = 0) -> None:
        super().__init__()
        if text_dim < 2 or text_dim % 2:
            raise ValueError(f"HashTextEncoder: text_dim must be even and positive, got {text_dim}")
        for name, value in (("max_tokens", max_tokens), ("num_buckets", num_buckets)):
            if value < 1:
                raise ValueError(f"HashTextEncoder: {name} must be at least 1, got {value}")
        generator = torch.Generator().manual_seed(seed)
        self.register_buffer("table", torch.randn(num_buckets, text_dim, generator=generator) / 2**0.5)

    def encode(
        self, captions: list[str]
    ) -> tuple[Float[Tensor, "batch tokens text_dim"], Bool[Tensor, "batch tokens"]]:
        """Token vectors and the mask of real tokens.

        The empty caption has no real token: it is the unconditional branch of classifier-free guidance.
        """
        max_tokens, num_buckets = self.config["max_tokens"], self.config["num_buckets"]
        rows = torch.zeros(len(captions), max_tokens, 2, dtype=torch.long)
        mask = torch.zeros(len(captions), max_tokens, dtype=torch.bool)
        for index, caption in enumerate(captions):
            buckets = [_buckets(word, num_buckets) for word in _WORD.findall(caption.lower())[:max_tokens]]
            rows[index, : len(buckets)] = torch.tensor(buckets, dtype=torch.long).view(-1, 2)
            mask[index, : len(buckets)] = True
        rows, mask = rows.to(self.table.device), mask.to(self.table.device)
        order = get_timestep_embedding(torch.arange(max_tokens), self.config["text_dim"]).to(self.table)
        tokens: Tensor = self.table[rows].sum(2) + order
        return tokens * mask[..., None], mask


def _buckets(word: str, num_buckets: int) -> tuple[int, int]:
    digest = hashlib.blake2b(word.encode(), digest_size=8).digest()
    return int.from_bytes(digest[:4], "little") % num_buckets, int.from_bytes(digest[4:], "little") % num_buckets
