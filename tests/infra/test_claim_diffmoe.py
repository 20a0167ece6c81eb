"""The study of DiffMoE: its arms cost what it says, meet the same data, and are judged alike."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

CLAIMS = Path(__file__).parents[2] / "infra" / "claims"


@pytest.fixture(autouse=True)
def claims(monkeypatch: pytest.MonkeyPatch) -> None:
    """The claims' modules import each other as scripts in one folder do."""
    monkeypatch.syspath_prepend(str(CLAIMS))


def model_of(shape: Any) -> Any:
    from telecine_models.video_dit.model import VideoDiT

    torch.manual_seed(0)
    return VideoDiT(**dataclasses.asdict(shape.config((2, 2, 2))))


def test_arms_cost_what_the_rows_say() -> None:
    import diffmoe

    for world in (diffmoe.LAPTOP, diffmoe.GPU):
        config = {arm: shape.config(world.patch_size) for arm, shape in world.arms}
        counted = {"num_video": 32, "num_text": 12}
        dense = diffmoe.sample_flops(config["dense"], capacity=1.0, **counted)
        fair = diffmoe.fair_capacity(config["diffmoe_counted"])
        assert 0.8 < fair < 1
        exact = diffmoe.sample_flops(config["diffmoe_counted"], capacity=fair, **counted)
        assert exact == pytest.approx(dense, rel=1e-12)
        usual = diffmoe.sample_flops(config["diffmoe"], capacity=1.0, **counted)
        assert usual / dense == pytest.approx(1.03, abs=0.015), "router and predictor are what is not counted"
        larger = diffmoe.sample_flops(config["dense_3x"], capacity=1.0, **counted)
        assert larger / dense == pytest.approx(3, rel=0.05)


def test_the_model_with_experts_does_what_is_counted() -> None:
    """An expert's share of the pool at the fair capacity, and router and predictor for every token."""
    import diffmoe

    counts = {}
    for arm in ("dense", "diffmoe_counted"):
        model = model_of(diffmoe.LAPTOP.shape(arm)).eval()
        model.route("static")
        for layer in model.mixtures:
            layer.capacity = diffmoe.fair_capacity(model.size)
        video, text = torch.randn(8, 3, 4, 8, 8), torch.randn(8, 16, 64)
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            model(video, torch.rand(8), text)
        counts[arm] = counter.get_total_flops()
    # Shares are whole tokens.
    assert counts["diffmoe_counted"] == pytest.approx(counts["dense"], rel=0.01)
    assert counts["diffmoe_counted"] <= counts["dense"]


def test_clips_of_seeds_and_splits_are_different_and_of_a_seed_the_same() -> None:
    import diffmoe

    world = diffmoe.SHORT
    first, second = diffmoe.train_clips(world, 1), diffmoe.train_clips(world, 2)
    held_out = diffmoe.held_out_clips(world, 1)
    assert not torch.equal(first.x0, second.x0)
    apart = (first.x0[:, None] - held_out.x0[None]).abs().flatten(2).amax(2)
    assert apart.min() > 0, "no held-out clip is trained on"
    diffmoe.clips.cache_clear()
    assert torch.equal(diffmoe.train_clips(world, 1).x0, first.x0)


def test_a_run_is_a_function_of_its_task_and_judging_moves_nothing() -> None:
    import diffmoe

    task = diffmoe.Training(arm="diffmoe", seed=3, world=diffmoe.SHORT, learning_rate=3e-3, device="cpu")
    first, second = task(), task()
    assert first.figures == second.figures
    other = dataclasses.replace(task, seed=4)()
    assert other.figures["held_out_loss"] != first.figures["held_out_loss"]
    model = model_of(diffmoe.SHORT.shape("diffmoe"))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    held_out = diffmoe.held_out_clips(diffmoe.SHORT, 3)
    judged = [diffmoe.judged(model, held_out, diffmoe.SHORT, 3) for _ in range(2)]
    assert judged[0] == judged[1]
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_figures_of_bands_and_routes_are_of_one_loss() -> None:
    import diffmoe

    found = {}
    for arm in ("diffmoe", "diffmoe_counted"):
        task = diffmoe.Training(arm=arm, seed=3, world=diffmoe.SHORT, learning_rate=3e-3, device="cpu")
        found[arm] = task().figures
    figures = found["diffmoe"]
    bands = [figures[f"loss_band_{band}"] for band in range(diffmoe.NUM_BANDS)]
    assert min(bands) < figures["held_out_loss"] == figures["loss_count"] < max(bands)
    assert figures["capacity_static"] == pytest.approx(1.0, abs=0.02)
    assert found["diffmoe_counted"]["capacity_static"] == pytest.approx(8 / 9, abs=0.02)


def test_arms_of_one_shape_start_from_the_same_weights() -> None:
    import diffmoe

    weights = {}
    for arm in ("dense", "diffmoe"):
        torch.manual_seed(5)
        shape = diffmoe.LAPTOP.shape(arm)
        weights[arm] = diffmoe.fresh(shape, (2, 2, 2)).state_dict()
    both = weights["dense"].keys() & weights["diffmoe"].keys()
    assert all(torch.equal(weights["dense"][name], weights["diffmoe"][name]) for name in both)
    apart = {name.rpartition("feed_forward")[0] for name in weights["dense"].keys() ^ weights["diffmoe"].keys()}
    assert apart == {"blocks.1.", "blocks.3."}


def test_shifted_flow_times_lie_nearer_to_noise() -> None:
    import fit

    plain, shifted = (fit.noise_of(torch.Size((64, 2)), 0, 1, shift=shift) for shift in (1.0, 3.0))
    assert torch.equal(plain[1], shifted[1])
    assert torch.allclose(shifted[0], 3 * plain[0] / (1 + 2 * plain[0]))
    assert (shifted[0] > plain[0]).all() and shifted[0].max() < 1


def test_clips_cut_text_that_none_of_them_has() -> None:
    import diffmoe

    held_out = diffmoe.held_out_clips(diffmoe.SHORT, 3)
    lengths = held_out.real.sum(1)
    index = torch.tensor([int(lengths.argmin())])
    few = held_out.at(index)
    assert few.text.shape[1] == int(lengths.min()) and bool(few.real.all())
    assert torch.equal(few.text[0], held_out.text[index[0], : few.text.shape[1]])
