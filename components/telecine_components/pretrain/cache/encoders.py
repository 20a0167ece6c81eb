"""The frozen models that a cache stands for, and what a shard of theirs holds."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from telecine.errors import InputError
from telecine_components.media.shards import ShardWriter, array_bytes
from telecine_components.pretrain.cache.spec import Inputs
from telecine_components.training.annotations import ACTIONS, from_frames
from telecine_components.training.shard_reader import ShardReader
from telecine_models.pixels import to_model_range
from telecine_models.text import HashTextEncoder, TextEncoder, load_text_encoder
from telecine_models.vae import IdentityVAE, VideoVAE, load_vae
from telecine_models.video_dit.config import KINDS

Row = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Encoders:
    """An autoencoder, a text encoder, and the type that their results are stored in."""

    vae: VideoVAE
    text: TextEncoder
    dtype: type[np.floating[Any]]

    @classmethod
    def load(cls, vae: Path | None, text: Path | None, inputs: Inputs) -> "Encoders":
        """From local folders; None for the built-in ones.

        Raises:
            InputError: a folder that holds something else, or an odd width.
        """
        try:
            loaded = IdentityVAE() if vae is None else load_vae(vae)
            return cls(loaded, _text_encoder(text, inputs.text_dim), getattr(np, inputs.dtype))
        except ValueError as error:
            raise InputError(f"pretrain.cache: {error}") from error

    def latents(self, frames: np.ndarray) -> np.ndarray:
        """Latents [C, F, H, W] of frames uint8 [F, H, W, 3]."""
        with torch.no_grad():
            found = self.vae.encode(to_model_range(torch.from_numpy(frames)[None]))[0]
        return self._stored("latents", found)

    def tokens(self, caption: str) -> np.ndarray:
        """Vectors [L, text_dim] of a caption's real tokens, of which there may be none."""
        with torch.no_grad():
            vectors, mask = self.text.encode([caption])
        return self._stored("token vectors", vectors[0][mask[0]])

    def write_shard(self, rows: Sequence[Row], reader: ShardReader, path: Path) -> list[dict[str, Any]]:
        """Encode the samples of one shard into another.

        Returns:
            what the index needs of each sample and only the pass knows.

        Raises:
            InputError: the shard does not hold what the index says, or a value that the stored type cannot.
        """
        found, words = [], {}
        with ShardWriter(path) as shard:
            for row in rows:
                caption = row["caption"] or ""
                if caption not in words:
                    words[caption] = array_bytes(self.tokens(caption))
                frames = _frames(row, reader)
                latents, beside = self.latents(frames), self.beside(row, frames, reader)
                files = {"latents.npy": array_bytes(latents), "text.npy": words[caption], "txt": caption.encode()}
                files |= {f"{name}.npy": array_bytes(array) for name, array in beside.items()}
                places = shard.add(row["sample_id"], files)
                sample = {"sample_id": row["sample_id"], "latent_shape": list(latents.shape)}
                sample |= places["latents.npy"]._asdict()
                sample |= {f"text_{name}": value for name, value in places["text.npy"]._asdict().items()}
                if row.get("members") is not None:
                    sample["members"] = [{"name": name, **places[f"{name}.npy"]._asdict()} for name in beside]
                found.append(sample)
        return found

    def beside(self, row: Row, frames: np.ndarray, reader: ShardReader) -> dict[str, np.ndarray]:
        """What a sample carries beside its frames, as a model takes it; none of a dataset that carries nothing.

        Pictures and videos are latents of the stored type; poses and masks stay in float32, and actions as they are.
        """
        if row.get("members") is None:
            return {}
        members = {each["name"]: (each["offset"], each["length"]) for each in row["members"]}
        made = from_frames(reader, row["shard"], members, frames, KINDS, self.vae)
        found = {kind: value[0] for kind, value in made.given()}
        mask = made.source_mask
        exact = {"camera": found.pop("camera", None), "source_mask": None if mask is None else mask[0]}
        arrays = {kind: self._stored(kind, value) for kind, value in found.items()}
        arrays |= {name: value.numpy() for name, value in exact.items() if value is not None}
        return arrays | {name: reader.array(row["shard"], *members[name]) for name in ACTIONS if name in members}

    def described(self) -> dict[str, Any]:
        """What a model that is trained on the cache has to fit."""
        return {
            "latent_channels": self.vae.latent_channels,
            "compression": dataclasses.asdict(self.vae.compression),
            "text_dim": self.text.text_dim,
            "dtype": np.dtype(self.dtype).name,
        }

    def _stored(self, what: str, value: torch.Tensor) -> np.ndarray:
        # An overflow is an answer here, not a warning of numpy's.
        with np.errstate(over="ignore"):
            array = value.to(torch.float32).numpy().astype(self.dtype)
        if not np.isfinite(array).all():
            raise InputError(f"pretrain.cache: {what} must be finite in {array.dtype}, got others; use dtype=float32")
        return array


def _text_encoder(folder: Path | None, text_dim: int) -> TextEncoder:
    if folder is None:
        built_in: TextEncoder = HashTextEncoder(text_dim=text_dim)
        return built_in
    config = folder / "config.json"
    if config.is_file() and json.loads(config.read_text()).get("_class_name") == HashTextEncoder.__name__:
        saved: TextEncoder = HashTextEncoder.from_pretrained(folder)
        return saved
    return load_text_encoder(folder)


def _frames(row: Row, reader: ShardReader) -> np.ndarray:
    frames = reader.array(row["shard"], row["offset"], row["length"])
    expected = (row["num_frames"], row["height_px"], row["width_px"], 3)
    if frames.dtype != np.uint8 or frames.shape != expected:
        raise InputError(
            f"{row['shard']}: sample {row['sample_id']} must be uint8 {list(expected)}, "
            f"got {frames.dtype} {list(frames.shape)}; encode the dataset again"
        )
    return frames
