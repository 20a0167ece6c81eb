"""Captions to token vectors that pretrain.cache stored, in place of a text encoder."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from telecine.errors import InputError
from telecine_components.training.loader import Sample
from telecine_components.training.shard_reader import EMPTY_TEXT, ShardReader


class StoredText:
    """Takes the place of :class:`telecine_components.training.text.CachedText`: the same answers, without an encoder.

    Called with captions it gives (embeddings [B, L, D_text] float32, mask [B, L] bool), L being the longest caption's
    length (at least one token).

    Args:
        dataset: folder that pretrain.cache wrote.
        samples: rows of its index; only their captions can be asked for, and "".
        locate: local path of a shard, given its store path.

    Raises:
        InputError: a dataset without token vectors.
    """

    def __init__(self, dataset: Path, samples: Sequence[Sample], locate: Callable[[str], Path]) -> None:
        empty = dataset / EMPTY_TEXT
        if not empty.is_file():
            raise InputError(f"{dataset}: no {EMPTY_TEXT} in it; pass the dataset folder that pretrain.cache wrote")
        self._reader = ShardReader(locate)
        self._places = {
            sample.caption: (sample.shard, sample.text_offset, sample.text_length)
            for sample in samples
            if sample.text_offset is not None and sample.text_length is not None
        }
        self._empty = _vectors(np.load(empty, allow_pickle=False))

    def __call__(self, captions: Sequence[str]) -> tuple[torch.Tensor, torch.Tensor]:
        """Raises :class:`InputError` for a caption that is not stored, or a shard that does not hold it."""
        found = {caption: self._vectors_of(caption) for caption in set(captions)}
        rows = [found[caption] for caption in captions]
        lengths = torch.tensor([len(row) for row in rows])
        length = max(1, int(lengths.max()))
        embeddings = torch.stack([torch.nn.functional.pad(row, (0, 0, 0, length - len(row))) for row in rows])
        return embeddings, torch.arange(length) < lengths[:, None]

    def _vectors_of(self, caption: str) -> torch.Tensor:
        if caption == "":
            return self._empty
        if caption not in self._places:
            raise InputError(f"caption {caption[:60]!r} is not in the cache; run pretrain.cache again")
        # Not kept: of a real text encoder a thousand captions are gigabytes, and each rank has its own.
        return _vectors(self._reader.array(*self._places[caption]))


def _vectors(stored: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(stored.astype(np.float32))
