"""Samples from shards: what is read, and in which order."""

import contextlib
import dataclasses
import os
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from telecine import settings
from telecine.errors import InputError
from telecine_components.media.shards import Member, ShardWriter, array_bytes
from telecine_components.training.loader import Batch, Loader, Sample, Steps, read_index
from telecine_components.training.plan import Cost
from telecine_components.training.shard_reader import EMPTY_TEXT, MAX_OPEN
from telecine_components.training.stored_text import StoredText
from telecine_models.video_dit.config import VideoDiTConfig


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


def test_a_file_that_is_no_parquet_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "index.parquet"
    path.write_bytes(b"half of an index")
    with pytest.raises(InputError, match=r"index\.parquet: it must be a Parquet file: .*; encode the dataset again"):
        read_index(path)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("num_frames", None, "num_frames must be of type int, got None"),
        ("num_frames", "8", "num_frames must be of type int, got '8'"),
        ("shard", None, "shard must be of type str, got None"),
        ("fps", 0.0, r"fps must be above 0, got 0\.0"),
        ("fps", None, "fps must be of type float, got None"),
        ("offset", -5, "offset must be above -1, got -5"),
        ("length", 0, "length must be above 0, got 0"),
    ],
)
def test_a_value_of_the_index_that_cannot_be_is_named(tmp_path: Path, name: str, value: Any, words: str) -> None:
    row = vars(sample("a", "a.tar", Member(offset=0, length=9), (2, 8, 8), caption=None)) | {"members": None}
    path = tmp_path / "index.parquet"
    pq.write_table(pa.Table.from_pylist([row]), path)
    assert [each.caption for each in read_index(path)] == [""]
    pq.write_table(pa.Table.from_pylist([row | {name: value}]), path)
    with pytest.raises(InputError, match=f"row 0: {words}; encode the dataset again"):
        read_index(path)


def test_a_shard_that_does_not_hold_the_sample_is_named(deployment: settings.Settings, loader: Loader) -> None:
    shard = deployment.home / "store" / loader.samples[0].shard
    shard.write_bytes(b"\0" * shard.stat().st_size)
    with pytest.raises(InputError, match=r"train-0000\.tar"):
        loader.frames(0)
    shard.unlink()
    with pytest.raises(InputError, match=r"train-0000\.tar"):
        loader.frames(0)


# Mixed shapes


@pytest.fixture
def mixed(tmp_path: Path) -> Loader:
    """Sixty samples of three shapes in two shards; the first pixel of each is its number."""
    shapes = [(2, 8, 8), (4, 8, 16), (1, 16, 16)]
    samples = []
    for shard in ("a.tar", "b.tar"):
        with ShardWriter(tmp_path / shard) as writer:
            for number in range(30):
                shape = shapes[number % 3]
                key = f"{shard[0]}{number:02d}"
                frames = np.full((*shape, 3), len(samples), dtype=np.uint8)
                place = writer.add(key, {"frames.npy": array_bytes(frames)})["frames.npy"]
                samples.append(sample(key, shard, place, shape))
    return Loader(samples, lambda name: tmp_path / name, seed=3)


def sample(key: str, shard: str, place: Member, shape: tuple[int, int, int], **columns: Any) -> Sample:
    sizes = dict(zip(("num_frames", "height_px", "width_px"), shape, strict=True))
    place_of = {"shard": shard, "shard_digest": "0" * 64, "offset": place.offset, "length": place.length}
    names = {"sample_id": key, "clip_id": key, "caption": f"caption {key}", "split": "train", "fps": 8.0}
    return Sample(**(names | place_of | sizes | columns))


COST = Cost.of(VideoDiTConfig.from_depth(2, patch_size=(1, 4, 4)), num_text_tokens=4)


def numbers_of(batch: Batch) -> list[int]:
    """Which samples a batch of the fixture holds, by their pixels."""
    return [round((each + 1) * 127.5) for each in batch.x0[:, 0, 0, 0, 0].tolist()]


def test_a_planned_step_is_read_as_batches_of_one_shape_that_know_their_places(mixed: Loader) -> None:
    plan = mixed.plan(COST, batch_size=8)
    with Steps(mixed, plan) as steps:
        for number in (0, 1, 2, 7, 6, 1):
            step, planned = steps(number), plan.step(number)
            assert step.num_samples == planned.num_samples and step.flops == planned.flops
            places = [place for batch in step.batches for place in batch.positions]
            met = [index for batch in step.batches for index in numbers_of(batch)]
            assert sorted(zip(places, met, strict=True)) == list(
                zip(planned.positions.tolist(), planned.indices.tolist(), strict=True)
            )
            for batch in step.batches:
                assert batch.captions == [mixed.samples[index].caption for index in numbers_of(batch)]


def test_two_ranks_read_what_one_reads_alone(mixed: Loader) -> None:
    plan = mixed.plan(COST, batch_size=8)
    with (
        Steps(mixed, plan) as alone,
        Steps(mixed, plan, world_size=2) as one,
        Steps(mixed, plan, rank=1, world_size=2) as two,
    ):
        for number in range(10):
            whole = sorted(place for batch in alone(number).batches for place in batch.positions)
            parts = [batch for steps in (one, two) for batch in steps(number).batches]
            assert sorted(place for batch in parts for place in batch.positions) == whole


def test_a_rank_with_fewer_batches_than_another_has_empty_ones_of_the_cheapest_shape_beside(mixed: Loader) -> None:
    plan = mixed.plan(COST, batch_size=3)
    with contextlib.ExitStack() as block:
        ranks = [block.enter_context(Steps(mixed, plan, rank=rank, world_size=4, max_tokens=1)) for rank in range(4)]
        alone = block.enter_context(Steps(mixed, plan, max_tokens=1))
        idle = 0
        for number in range(10):
            shares = [steps(number) for steps in ranks]
            assert len({len(share.batches) + len(share.spares) for share in shares}) == 1
            assert any(not share.spares for share in shares) and not alone(number).spares
            idle += sum(not share.batches for share in shares)
        assert idle
    spare = next(share.spares[0] for share in shares if share.spares)
    cheapest = min(mixed.samples, key=lambda each: COST.flops(each.shape))
    assert spare.x0.shape == (1, *cheapest.x0_shape) and not spare.x0.any()
    assert spare.captions == [""] and len(spare.positions) == 1


def test_a_run_that_went_on_reads_what_the_undisturbed_one_read(mixed: Loader, tmp_path: Path) -> None:
    def read(first: int, last: int) -> list[Batch]:
        loader = Loader(mixed.samples, lambda name: tmp_path / name, seed=3)
        with Steps(loader, loader.plan(COST, batch_size=7)) as steps:
            return [batch for number in range(first, last) for batch in steps(number).batches]

    whole, parts = read(0, 25), [*read(0, 11), *read(11, 25)]
    assert [batch.positions for batch in whole] == [batch.positions for batch in parts]
    assert all(torch.equal(one.x0, other.x0) for one, other in zip(whole, parts, strict=True))


def test_one_shape_is_planned_as_it_is_batched(loader: Loader) -> None:
    with Steps(loader, loader.plan(COST, batch_size=5)) as steps:
        for number in range(9):
            (batch,) = steps(number).batches
            plain = loader.batch(5 * number, 5)
            assert torch.equal(batch.x0, plain.x0) and batch.captions == plain.captions
            assert batch.positions == plain.positions == tuple(range(5 * number, 5 * number + 5))


def test_what_goes_wrong_ahead_is_heard_of_at_its_own_step(mixed: Loader, tmp_path: Path) -> None:
    plan = mixed.plan(COST, batch_size=4)
    needs_b = [any(mixed.samples[i].shard == "b.tar" for i in plan.step(number).indices) for number in range(12)]
    (tmp_path / "b.tar").unlink()
    with Steps(mixed, plan) as steps:
        for number, broken in enumerate(needs_b):
            if broken:
                with pytest.raises(InputError, match=r"b\.tar: .*No such file"):
                    steps(number)
            else:
                assert steps(number).batches
    assert True in needs_b


def test_a_shard_that_was_cut_short_after_it_was_opened_is_an_error(mixed: Loader, tmp_path: Path) -> None:
    assert mixed.frames(0).shape == (2, 8, 8, 3)
    with (tmp_path / "a.tar").open("r+b") as file:
        file.truncate(mixed.samples[1].offset + 10)
    with pytest.raises(InputError, match=r"a\.tar: it must hold \d+ bytes at \d+, got 10"):
        mixed.frames(1)


def test_samples_of_two_shapes_are_no_batch(mixed: Loader) -> None:
    with pytest.raises(ValueError, match="a batch must have one shape"):
        mixed.gather([0, 1])


def test_many_shards_are_read_though_few_may_be_open(tmp_path: Path) -> None:
    samples = []
    for number in range(MAX_OPEN + 20):
        with ShardWriter(tmp_path / f"{number}.tar") as writer:
            frames = np.full((1, 4, 4, 3), number, dtype=np.uint8)
            place = writer.add(f"s{number}", {"frames.npy": array_bytes(frames)})["frames.npy"]
        samples.append(sample(f"s{number}", f"{number}.tar", place, (1, 4, 4)))
    loader, before = Loader(samples, lambda name: tmp_path / name, seed=0), len(os.listdir("/proc/self/fd"))
    for index in [*range(len(samples)), 0, 1, len(samples) - 1]:
        assert loader.frames(index)[0, 0, 0, 0] == index
    assert len(os.listdir("/proc/self/fd")) - before == MAX_OPEN
    del loader
    assert len(os.listdir("/proc/self/fd")) == before


# Stored latents and token vectors


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_stored_latents_are_what_the_model_sees(tmp_path: Path, dtype: Any) -> None:
    latents = np.random.default_rng(0).normal(size=(4, 2, 3, 5)).astype(dtype)
    with ShardWriter(tmp_path / "a.tar") as writer:
        place = writer.add("one", {"latents.npy": array_bytes(latents)})["latents.npy"]
    stored = sample("one", "a.tar", place, (5, 24, 40), latent_shape=(4, 2, 3, 5))
    loader = Loader([stored], lambda name: tmp_path / name, seed=0)
    batch = loader.batch(0, 2)
    assert stored.shape == (2, 3, 5)
    assert batch.x0.dtype == torch.float32 and batch.x0.shape == (2, 4, 2, 3, 5)
    assert (batch.x0[0].numpy() == latents.astype(np.float32)).all()
    wrong = Loader([dataclasses.replace(stored, latent_shape=(4, 2, 5, 3))], lambda name: tmp_path / name, seed=0)
    with pytest.raises(InputError, match=r"sample one must be floating \[4, 2, 5, 3\], got float"):
        wrong.gather([0])


def test_token_vectors_that_were_asked_for_are_not_kept(tmp_path: Path) -> None:
    vectors, samples = np.ones((64, 256), dtype=np.float16), []
    np.save(tmp_path / EMPTY_TEXT, vectors[:1])
    with ShardWriter(tmp_path / "a.tar") as writer:
        for number in range(50):
            place = writer.add(f"s{number}", {"text.npy": array_bytes(vectors)})["text.npy"]
            where = {"text_offset": place.offset, "text_length": place.length}
            samples.append(sample(f"s{number}", "a.tar", place, (1, 4, 4), **where))
    text = StoredText(tmp_path, samples, lambda name: tmp_path / name)
    tracemalloc.start()
    for each in samples:
        assert text([each.caption, ""])[0].shape == (2, 64, 256)
    left, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert left < 10 * 4 * vectors.size, "fewer bytes than ten of the fifty captions have"
