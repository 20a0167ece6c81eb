"""Samples from shards: what is read, and in which order."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from telecine import settings
from telecine.errors import InputError
from telecine_components.training.loader import Loader, read_index


@pytest.fixture
def loader(deployment: settings.Settings, make_dataset: Callable[..., Path]) -> Loader:
    samples = read_index(make_dataset(deployment) / "index.parquet")
    return Loader(samples, lambda shard: deployment.home / "store" / shard, seed=3)


def test_a_batch_is_in_model_range_with_channels_first(loader: Loader) -> None:
    batch = loader.gather([0, 1])
    assert batch.x0.shape == (2, 3, 2, 8, 8)
    assert batch.x0.dtype == torch.float32
    assert batch.x0[0, 0, 0, 0, 0].item() == pytest.approx(40 / 127.5 - 1)
    assert batch.captions == ["a red square moves right", "a green square moves right"]


def test_every_epoch_meets_every_sample_once_in_another_order(loader: Loader) -> None:
    size = len(loader)
    first, second = ([loader.index_at(epoch * size + place) for place in range(size)] for epoch in (0, 1))
    assert sorted(first) == sorted(second) == list(range(size))
    assert first != second


def test_the_batch_at_a_position_does_not_depend_on_what_was_read_before(
    loader: Loader, deployment: settings.Settings
) -> None:
    positions = range(0, 3 * len(loader), 5)
    walked = [loader.batch(position, 5).x0 for position in positions]
    fresh = Loader(loader.samples, lambda shard: deployment.home / "store" / shard, seed=3)
    jumped = [fresh.batch(position, 5).x0 for position in reversed(positions)]
    assert all(torch.equal(one, other) for one, other in zip(walked, reversed(jumped), strict=True))


def test_another_seed_gives_another_order(loader: Loader) -> None:
    other = Loader(loader.samples, lambda shard: Path(shard), seed=4)
    assert [loader.index_at(i) for i in range(16)] != [other.index_at(i) for i in range(16)]


def test_a_folder_without_an_index_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no index\.parquet"):
        read_index(tmp_path / "index.parquet")


def test_a_shard_that_does_not_hold_the_sample_is_named(deployment: settings.Settings, loader: Loader) -> None:
    shard = deployment.home / "store" / loader.samples[0].shard
    shard.write_bytes(b"\0" * shard.stat().st_size)
    with pytest.raises(InputError, match=r"train-0000\.tar"):
        loader.frames(0)
    shard.unlink()
    with pytest.raises(InputError, match=r"train-0000\.tar"):
        loader.frames(0)
