"""pretrain.cache: encode a dataset's frames and captions once, so that training reads latents as it reads frames."""

import dataclasses

from telecine.component import Component, Resources
from telecine.config import Artifact, param


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inputs:
    dataset_uri: Artifact = param(help="Dataset folder that curate.encode wrote.")
    vae_uri: Artifact = param(
        "", help="Folder of a causal video autoencoder (safetensors); empty: pixels are the latents."
    )
    text_encoder_uri: Artifact = param(
        "",
        help="Folder of a text encoder and its tokenizer (safetensors); empty: the built-in encoder of hashed words.",
    )
    text_dim: int = param(64, ge=2, help="Width of the built-in text encoder's vectors; even.")
    dtype: str = param(
        "float16",
        choices=("float16", "float32"),
        help="What is stored; float32 is to the bit what encoders in the training loop would give.",
    )
    num_threads: int = param(2, ge=1, help="CPU threads; part of the address, because sums differ between counts.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outputs:
    dataset_uri: Artifact = param(
        help="Dataset folder: index.parquet as curate.encode wrote it, with the places of latents and token vectors."
    )
    num_samples: int = param(help="Samples in all.")
    num_shards: int = param(help="Shards, one for each of the dataset that was read.")
    size_gib: float = param(help="Bytes of all latents and token vectors, in GiB.")


COMPONENT = Component(
    name="pretrain.cache",
    inputs=Inputs,
    outputs=Outputs,
    entry="telecine_components.pretrain.cache.run:run",
    image="train",
    resources=Resources(cpus=2, memory_gib=3.0),
)
