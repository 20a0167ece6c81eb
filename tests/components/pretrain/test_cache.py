"""Encoders run once: what a cache holds is what they would give in the loop, and no call encodes a shard again."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from telecine import settings
from telecine.errors import InputError
from telecine_components.training.determinism import deterministic
from telecine_components.training.loader import Batch, Loader, Sample, read_index
from telecine_components.training.losses import EncodeText, velocity_loss
from telecine_components.training.stored_text import StoredText
from telecine_components.training.text import CachedText
from telecine_models.text import HashTextEncoder
from telecine_models.vae import load_vae
from telecine_models.video_dit.model import VideoDiT

Run = Callable[..., Any]


@pytest.fixture(scope="module")
def vae(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An autoencoder of Wan's kind: four channels, a quarter of the frames after the first, of height and of width."""
    torch.manual_seed(0)
    blocks = {"dim_mult": [1, 1, 1], "num_res_blocks": 1, "temperal_downsample": [True, True]}
    scale = {"latents_mean": [0.1, -0.2, 0.3, 0.0], "latents_std": [0.5, 1.0, 2.0, 4.0]}
    folder = tmp_path_factory.mktemp("vae")
    model: Any = diffusers.AutoencoderKLWan(base_dim=4, z_dim=4, **blocks, **scale)
    model.save_pretrained(folder)
    return folder


@pytest.fixture
def dataset(deployment: settings.Settings, make_dataset: Callable[..., Path]) -> Path:
    return make_dataset(deployment, num_clips=3, val_clips=1, num_frames=5, height_px=8, width_px=16)


@pytest.fixture
def open_folder(deployment: settings.Settings) -> Callable[[Path], Loader]:
    return lambda folder: Loader(read_index(folder / "index.parquet"), lambda shard: _local(deployment, shard), seed=0)


def _local(deployment: settings.Settings, shard: str) -> Path:
    return deployment.home / "store" / shard


def folder_of(outputs: Any) -> Path:
    return Path(outputs.dataset_uri.removeprefix("file://"))


def losses_of(batches: list[Batch], encode_text: EncodeText, in_channels: int, num_steps: int = 6) -> list[float]:
    """Losses of a training on the batches in turns."""
    torch.manual_seed(0)
    model = VideoDiT(in_channels=in_channels, patch_size=(1, 2, 2), num_layers=2, num_heads=2, head_dim=16)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    found = []
    for step in range(num_steps):
        batch, draw = batches[step % len(batches)], torch.Generator().manual_seed(step)
        noise = torch.randn(batch.x0.shape, generator=draw)
        t = torch.rand(len(noise), generator=draw)
        captions = ["", *batch.captions[1:]]
        loss = velocity_loss(model, batch.x0, noise, t, encode_text(captions)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        found.append(loss.item())
    return found


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_training_on_the_cache_has_the_losses_of_training_with_encoders_in_the_loop(
    run_component: Run,
    deployment: settings.Settings,
    dataset: Path,
    open_folder: Callable[[Path], Loader],
    vae: Path,
    dtype: str,
) -> None:
    outputs = run_component("pretrain.cache", dataset_uri=dataset, vae_uri=vae, dtype=dtype, num_threads=1)
    frames, cached = open_folder(dataset), open_folder(folder_of(outputs))
    assert [sample.shape for sample in cached.samples] == [(2, 2, 4)] * 6
    assert [sample.sample_id for sample in cached.samples] == [sample.sample_id for sample in frames.samples]
    encode, in_loop = load_vae(vae).encode, [frames.batch(start, 2) for start in (0, 2, 4)]
    text = StoredText(folder_of(outputs), cached.samples, lambda shard: _local(deployment, shard))
    with deterministic(1):  # as the cache was made: sums differ between numbers of threads
        encoded = [dataclasses.replace(batch, x0=encode(batch.x0)) for batch in in_loop]
        expected = losses_of(encoded, CachedText(HashTextEncoder()), 4)
        found = losses_of([cached.batch(start, 2) for start in (0, 2, 4)], text, 4)
    assert found == (expected if dtype == "float32" else pytest.approx(expected, rel=2e-3))
    assert expected[-1] != expected[0]


def test_without_an_autoencoder_pixels_are_the_latents(
    run_component: Run, dataset: Path, open_folder: Callable[[Path], Loader]
) -> None:
    outputs = run_component("pretrain.cache", dataset_uri=dataset, dtype="float32")
    frames, cached = open_folder(dataset), open_folder(folder_of(outputs))
    for index in range(6):
        assert torch.equal(frames.gather([index]).x0, cached.gather([index]).x0)
    described = json.loads((folder_of(outputs) / "cached_with.json").read_text())
    assert described["latent_channels"] == 3 and described["text_dim"] == 64 and described["vae"] == "built-in"
    assert (outputs.num_samples, outputs.num_shards) == (6, 1)
    columns = pq.read_schema(dataset / "index.parquet").names
    assert pq.read_schema(folder_of(outputs) / "index.parquet").names[: len(columns)] == columns


def test_stored_text_answers_as_the_encoder_does(
    run_component: Run, deployment: settings.Settings, dataset: Path, open_folder: Callable[[Path], Loader]
) -> None:
    folder = folder_of(run_component("pretrain.cache", dataset_uri=dataset, dtype="float32"))
    samples = open_folder(folder).samples
    stored = StoredText(folder, samples, lambda shard: _local(deployment, shard))
    encoder = CachedText(HashTextEncoder())
    for captions in ([samples[0].caption, "", samples[1].caption], ["", ""]):
        for found, expected in zip(stored(captions), encoder(captions), strict=True):
            assert torch.equal(found, expected)
    with pytest.raises(InputError, match="caption 'a cat' is not in the cache"):
        stored(["a cat"])
    with pytest.raises(InputError, match="no empty_text.npy in it"):
        StoredText(dataset, samples, Path)


def test_a_shard_is_encoded_once_whatever_else_changes(
    run_component: Run, deployment: settings.Settings, dataset: Path
) -> None:
    def shards() -> set[str]:
        return {str(path) for path in (deployment.home / "store/work/pretrain.cache/items").rglob("shard.tar")}

    run_component("pretrain.cache", dataset_uri=dataset)
    first = shards()
    table = pq.read_table(dataset / "index.parquet")
    rows = [row | {"split": "train"} for row in table.to_pylist()]
    pq.write_table(type(table).from_pylist(rows, schema=table.schema), dataset / "index.parquet")
    outputs = run_component("pretrain.cache", dataset_uri=dataset)
    assert shards() == first and len(first) == 1
    assert {sample.split for sample in read_index(folder_of(outputs) / "index.parquet")} == {"train"}
    run_component("pretrain.cache", dataset_uri=dataset, dtype="float32")
    assert len(shards()) == 2


def test_equal_inputs_give_equal_bytes(run_component: Run, dataset: Path, vae: Path) -> None:
    def everything() -> dict[str, bytes]:
        folder = folder_of(run_component("pretrain.cache", dataset_uri=dataset, vae_uri=vae, force=True))
        shards = folder.parents[2].parent.glob("items/**/shard.tar")
        return {path.name: path.read_bytes() for path in [*folder.iterdir(), *shards]}

    first = everything()
    assert set(first) == {"index.parquet", "cached_with.json", "empty_text.npy", "shard.tar"}
    assert everything() == first


def test_what_cannot_be_cached_is_refused(
    run_component: Run, deployment: settings.Settings, make_dataset: Callable[..., Path], dataset: Path, vae: Path
) -> None:
    latents = folder_of(run_component("pretrain.cache", dataset_uri=dataset))
    with pytest.raises(InputError, match="dataset_uri must hold frames, got latents"):
        run_component("pretrain.cache", dataset_uri=latents)
    with pytest.raises(InputError, match=r"dataset_uri must hold index\.parquet, got none"):
        run_component("pretrain.cache", dataset_uri=vae)
    with pytest.raises(InputError, match="load_vae: folder must hold a config.json"):
        run_component("pretrain.cache", dataset_uri=dataset, vae_uri=latents)
    with pytest.raises(InputError, match="text_dim must be even"):
        run_component("pretrain.cache", dataset_uri=dataset, text_dim=3)
    even = make_dataset(deployment, num_frames=4)
    with pytest.raises(InputError, match=r"num_frames must be 1 \+ 4 n .* got 4; encode the dataset in a size"):
        run_component("pretrain.cache", dataset_uri=even, vae_uri=vae)
    shard = next((deployment.home / "store/items").rglob("*.tar"))
    shard.write_bytes(shard.read_bytes() + b"x")
    with pytest.raises(InputError, match="shard .* is not the one of the index"):
        run_component("pretrain.cache", dataset_uri=even)


def test_a_value_that_the_type_cannot_hold_is_refused() -> None:
    from telecine_components.pretrain.cache.encoders import Encoders
    from telecine_models.vae import IdentityVAE

    class Loud(IdentityVAE):
        """Latents a million times as large as pixels."""

        def encode(self, video: torch.Tensor) -> torch.Tensor:
            return 1e6 * video

    frames = np.full((1, 4, 4, 3), 255, dtype=np.uint8)
    with pytest.raises(InputError, match="latents must be finite in float16, got others; use dtype=float32"):
        Encoders(Loud(), HashTextEncoder(), np.float16).latents(frames)
    assert Encoders(Loud(), HashTextEncoder(), np.float32).latents(frames).max() == 1e6


def test_samples_of_frames_know_no_latents(open_folder: Callable[[Path], Loader], dataset: Path) -> None:
    sample: Sample = open_folder(dataset).samples[0]
    assert (sample.latent_shape, sample.text_offset, sample.x0_shape) == (None, None, (3, 5, 8, 16))
