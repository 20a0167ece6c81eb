"""Rows about training data: complete on a short run, and shut where a loss or a frame is another."""

import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest
import torch

BENCH = Path(__file__).parents[2] / "infra" / "bench"


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bench's modules import each other as scripts in one folder do."""
    monkeypatch.syspath_prepend(str(BENCH))


def short(name: str, module: Any, folder: Path) -> Any:
    import rows

    done: list[tuple[int, int]] = []
    found = getattr(module, name)(rows.Trial("short", 2, folder, lambda *step: done.append(step)))
    assert found.quality_gate == "equal", found.quality_gate
    assert done[-1][0] == done[-1][1] == found.runs
    assert found.ratio == pytest.approx(found.ours / found.peer)
    assert found.low <= found.ratio <= found.high
    return found


@pytest.mark.parametrize("name", ["mixed_shapes_vs_buckets", "mixed_shapes_vs_padding"])
def test_steps_of_mixed_shapes_are_timed_after_every_loss_was_the_peers(bench: None, tmp_path: Path, name: str) -> None:
    import mixed_shapes

    found = short(name, mixed_shapes, tmp_path)
    assert set(found.details["steps"]) == {"ours", "peer"}
    assert found.runs == 2 * mixed_shapes.SHORT.pairs_per_run
    assert found.details["variation_of_ours_over_the_peers"] > 0


def test_a_loss_of_another_sample_shuts_the_gate(bench: None) -> None:
    import mixed_shapes

    def wrong(model: Any, batches: Any) -> list[torch.Tensor]:
        return [1.01 * velocity for velocity in mixed_shapes.separate(model, batches)]

    assert mixed_shapes.quality_gate(mixed_shapes.SHORT, wrong).startswith("differs: loss of sample ")
    assert mixed_shapes.quality_gate(mixed_shapes.SHORT, mixed_shapes.padded) == "equal"


def test_a_bucket_has_one_shape_and_as_many_tokens_as_the_others(bench: None) -> None:
    import mixed_shapes

    setting = mixed_shapes.FULL
    shapes, batches = setting.shapes(), mixed_shapes.bucket_batches(setting)
    tokens = [sum(setting.cost.tokens(shapes[i]) for i in batch) for batch in batches]
    budget = setting.batch_size * sum(map(setting.cost.tokens, shapes)) / len(shapes)
    assert all(len({shapes[i] for i in batch}) == 1 for batch in batches)
    assert max(abs(each / budget - 1) for each in tokens) < 0.2
    met = [i for batch in batches for i in batch]
    assert len(set(met)) == len(met) > 0.8 * len(shapes)
    steps = [batch for (batch,) in mixed_shapes.bucket_steps(setting, 24)]
    per_token = [sum(setting.cost.flops(shapes[i]) for i in each) / tokens[batches.index(each)] for each in steps]
    whole = sum(setting.cost.flops(shapes[i]) for i in met) / sum(tokens)
    assert sum(per_token) / len(steps) == pytest.approx(whole, rel=0.03), "the steps stand for the epoch"


def test_our_steps_vary_less_in_work_than_buckets_of_either_kind(bench: None) -> None:
    import mixed_shapes

    found = mixed_shapes.flops_variation(mixed_shapes.FULL)
    assert found["ours"] < found["buckets of constant FLOPs"] < found["buckets of constant tokens"]


def test_figures_are_sums_over_steps(bench: None) -> None:
    import mixed_shapes

    found = [mixed_shapes.Measured((100, 90), (1.0, 1.0)), mixed_shapes.Measured((100, 110), (1.0, 3.0))]
    assert mixed_shapes.speed(found, 0) == 100 and mixed_shapes.speed(found, 1) == 50
    assert mixed_shapes.speedup(found) == 2
    assert mixed_shapes.variation(found, 0) == 0 and mixed_shapes.variation(found, 1) == 0.5


def test_samples_are_read_in_turns_after_every_frame_was_that_of_a_full_decode(bench: None, tmp_path: Path) -> None:
    import loader

    found = short("loader_vs_pyav", loader, tmp_path)
    assert 0 < found.details["share_of_the_limit"] <= 1.5 and math.isfinite(found.ours)


def test_the_peer_converts_frames_by_swscale_and_not_by_slower_code_of_ours(bench: None, tmp_path: Path) -> None:
    import av

    import loader

    film = loader._film(tmp_path / "film.mp4", 0, loader.SHORT)
    with av.open(str(film)) as container:
        frames = [frame for _, frame in zip(range(8), container.decode(video=0), strict=False)]
    size = dict(zip(("width", "height"), loader.SHORT.sample_px, strict=True))
    plain = [frame.reformat(**size, format="rgb24", interpolation="AREA").to_ndarray() for frame in frames]
    assert (loader.decoded(loader.Window(film, 0), loader.SHORT) == plain).all()


def test_one_other_frame_shuts_the_gate(bench: None, tmp_path: Path) -> None:
    import loader
    from telecine_components.training.loader import Loader

    setting = loader.SHORT
    film = loader._film(tmp_path / "film.mp4", 0, setting)
    windows = [loader.Window(film, 3), loader.Window(film, 17)]
    samples = loader.write_shard(tmp_path / "shard.tar", windows, setting)
    ours = Loader(samples, lambda name: tmp_path / name, seed=0)
    assert loader.quality_gate(ours, windows, setting) == "equal"
    swapped = Loader(samples[::-1], lambda name: tmp_path / name, seed=0)
    assert loader.quality_gate(swapped, windows, setting) == (
        "differs: ours at frame 3 of film.mp4, ours at frame 17 of film.mp4"
    )
    shut = loader.compared([], "differs: x", setting, 1.0, {"shard": 2, "films": 1})
    assert (shut.ratio, shut.holds) == (None, False)
    later = dataclasses.replace(windows[0], start=4)
    assert not (loader.decoded(windows[0], setting) == loader.decoded(later, setting)).all()
