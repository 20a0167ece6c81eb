"""Captions to token vectors, by a frozen encoder: one of transformers by path, or one that needs no download."""

import hashlib
import os
import re
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.embeddings import get_timestep_embedding
from diffusers.models.modeling_utils import ModelMixin
from jaxtyping import Bool, Float
from torch import Tensor

from telecine_models.local import FromFolder

_WORD = re.compile(r"\w+")
# Tokenizers that know no limit say 1e30.
_LONGEST = 100_000


@runtime_checkable
class TextEncoder(Protocol):
    """What a text-conditioned model needs: captions as token vectors, and which of the tokens are real."""

    @property
    def text_dim(self) -> int:
        """Width of a token vector."""

    def encode(
        self, captions: list[str]
    ) -> tuple[Float[Tensor, "batch tokens text_dim"], Bool[Tensor, "batch tokens"]]:
        """Token vectors, zero where there is no token, and the mask of real tokens; one length for all captions."""


class HashTextEncoder(FromFolder, ModelMixin, ConfigMixin):  # type: ignore[misc]
    """Hashed words with fixed pseudo-random vectors: frozen, deterministic, and saved with a pipeline like any encoder.

    Each word is the sum of two rows of one table, chosen by two independent hashes (hash embeddings,
    arXiv 1709.03933), so that two words share a vector only if both hashes collide. Sinusoids carry the word order.

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

    @property
    def text_dim(self) -> int:
        return int(self.config["text_dim"])

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


class TransformersTextEncoder(ModelMixin):
    """An encoder of transformers (T5, CLIP, BERT, ...) and its tokenizer, frozen: it learns nothing and drops nothing.

    A pipeline saves both in one folder, as transformers does.

    Args:
        model: a PreTrainedModel that gives ``last_hidden_state``.
        tokenizer: its tokenizer; its ``model_max_length`` is the length of every encoded caption.

    Raises:
        ValueError: a tokenizer that knows no such length.
    """

    def __init__(self, model: Any, tokenizer: Any) -> None:
        super().__init__()
        if not 1 <= tokenizer.model_max_length <= _LONGEST:
            raise ValueError(
                f"TransformersTextEncoder: model_max_length of the tokenizer must lie in [1, {_LONGEST}], "
                f"got {tokenizer.model_max_length}; give load_text_encoder max_tokens"
            )
        self.model, self.tokenizer = model.requires_grad_(False), tokenizer
        self.eval()

    @property
    def text_dim(self) -> int:
        return int(self.model.config.hidden_size)

    def train(self, mode: bool = True) -> "TransformersTextEncoder":
        """Stay as it is: dropout would give a caption other vectors each time."""
        super().train(False)
        return self

    @torch.no_grad()
    def encode(
        self, captions: list[str]
    ) -> tuple[Float[Tensor, "batch tokens text_dim"], Bool[Tensor, "batch tokens"]]:
        """The last hidden states and the mask of real tokens; what is too long for the tokenizer is cut off.

        The empty caption has what the tokenizer adds to every caption, and nothing else.
        """
        encoded = self.tokenizer(captions, padding="max_length", truncation=True, return_tensors="pt")
        ids, mask = (encoded[name].to(self.model.device) for name in ("input_ids", "attention_mask"))
        tokens: Tensor = self.model(input_ids=ids, attention_mask=mask).last_hidden_state
        mask = mask.bool()
        return tokens * mask[..., None], mask

    def save_pretrained(self, save_directory: str | os.PathLike[Any], **kwargs: Any) -> None:  # type: ignore[override]
        """Write the model, as safetensors, and the tokenizer into one folder."""
        self.model.save_pretrained(save_directory)
        self.tokenizer.save_pretrained(save_directory)

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls, pretrained_model_name_or_path: str | os.PathLike[Any], **kwargs: Any
    ) -> "TransformersTextEncoder":
        """What a pipeline calls; of its arguments only ``torch_dtype`` makes a difference to one folder."""
        encoder = load_text_encoder(pretrained_model_name_or_path)
        encoder.model.to(kwargs.get("torch_dtype"))
        return encoder


def load_text_encoder(
    folder: str | os.PathLike[str],
    tokenizer_folder: str | os.PathLike[str] | None = None,
    max_tokens: int | None = None,
) -> TransformersTextEncoder:
    """Any text encoder of transformers by path: safetensors only, no network, none of the folder's code.

    Args:
        folder: with the model; of an encoder-decoder only the encoder is read.
        tokenizer_folder: with the tokenizer, if that lies elsewhere, as in the pipelines of diffusers.
        max_tokens: length of every encoded caption; by default what the tokenizer says.

    Raises:
        ValueError: a folder without a configuration, weights in safetensors or a tokenizer, a model that is no text
            encoder, or a length below 1.
    """
    home, words = Path(folder), Path(folder if tokenizer_folder is None else tokenizer_folder)
    for where, pattern in ((home, "config.json"), (home, "*.safetensors"), (words, "tokenizer_config.json")):
        if not list(where.glob(pattern)):
            raise ValueError(f"load_text_encoder: folder must hold {pattern}, and {where} does not")
    if max_tokens is not None and max_tokens < 1:
        raise ValueError(f"load_text_encoder: max_tokens must be at least 1, got {max_tokens}")
    # Importing it takes seconds, and most pipelines have the built-in encoder.
    from transformers import AutoModelForTextEncoding, AutoTokenizer

    length = {} if max_tokens is None else {"model_max_length": max_tokens}
    tokenizer = AutoTokenizer.from_pretrained(words, local_files_only=True, trust_remote_code=False, **length)
    model = AutoModelForTextEncoding.from_pretrained(
        home, local_files_only=True, trust_remote_code=False, use_safetensors=True
    )
    for parameter in model.parameters():
        # Mapped from a file they are not aligned as allocated ones are, and unaligned products round differently.
        parameter.data = parameter.data.clone()
    return TransformersTextEncoder(model, tokenizer)


def _buckets(word: str, num_buckets: int) -> tuple[int, int]:
    digest = hashlib.blake2b(word.encode(), digest_size=8).digest()
    return int.from_bytes(digest[:4], "little") % num_buckets, int.from_bytes(digest[4:], "little") % num_buckets
