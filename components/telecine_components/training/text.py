"""Captions to token vectors, each caption encoded once."""

from collections.abc import Sequence

import torch

from telecine_models.text import HashTextEncoder


class CachedText:
    """A frozen encoder that remembers every caption it has met; a training set repeats few of them often.

    Called with captions it gives (embeddings [B, L, D_text] float32, mask [B, L] bool), L being the longest caption's
    length (at least one token): what the mask hides changes nothing, and padding would only cost attention.
    """

    def __init__(self, encoder: HashTextEncoder) -> None:
        self._encoder = encoder
        self._known: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}

    def __call__(self, captions: Sequence[str]) -> tuple[torch.Tensor, torch.Tensor]:
        rows = [self._encoded(caption) for caption in captions]
        embeddings, mask = torch.stack([e for e, _ in rows]), torch.stack([m for _, m in rows])
        length = max(1, int(mask.sum(dim=1).max()))
        return embeddings[:, :length], mask[:, :length]

    def _encoded(self, caption: str) -> tuple[torch.Tensor, torch.Tensor]:
        if caption not in self._known:
            embeddings, mask = self._encoder.encode([caption])
            self._known[caption] = (embeddings[0], mask[0])
        return self._known[caption]
