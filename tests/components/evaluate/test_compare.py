"""evaluate.compare: equal models tie, figures follow the rewards, intervals are over prompts."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from telecine.alignment import judged
from telecine.errors import InputError
from telecine_components.evaluate.compare.verdict import verdict
from telecine_models.backlot.caption import is_held_out

FAST = {"num_prompts": 8, "num_seeds": 2, "num_steps": 2, "num_threads": 1}

TRIALS = 300


def local(uri: str) -> Path:
    return Path(uri.removeprefix("file://"))


@pytest.fixture(scope="module")
def other_model(trained: Any, tiny_training: dict[str, Any]) -> str:
    """The same architecture after a single step."""
    values = tiny_training | {"num_steps": 1}
    return str(trained.run("pretrain.train", dataset_uri=str(trained.dataset), **values).model_uri)


def test_a_model_ties_with_itself(trained: Any) -> None:
    uri = trained.outputs.model_uri
    outputs = trained.run("evaluate.compare", model_uri=uri, reference_uri=uri, **FAST)
    assert (outputs.win_rate, outputs.win_rate_low, outputs.win_rate_high) == (0.5, 0.5, 0.5)
    assert outputs.reward == outputs.reward_reference
    assert outputs.reward_gain_low == outputs.reward_gain_high == 0


def test_a_lora_is_judged_with_what_it_adds_and_ties_with_its_base_without(trained: Any, with_lora: Any) -> None:
    uris = {"model_uri": with_lora.model_uri, "reference_uri": trained.outputs.model_uri}
    outputs = trained.run("evaluate.compare", **uris, **FAST)
    assert outputs.reward != outputs.reward_reference
    without = trained.run("evaluate.compare", **uris, **FAST, lora_scale=0)
    assert without.reward == without.reward_reference == outputs.reward_reference
    assert without.win_rate == 0.5


def test_swapping_the_models_turns_the_verdict_round(trained: Any, other_model: str) -> None:
    uri = trained.outputs.model_uri
    one = trained.run("evaluate.compare", model_uri=uri, reference_uri=other_model, **FAST)
    two = trained.run("evaluate.compare", model_uri=other_model, reference_uri=uri, **FAST)
    assert (one.reward, one.reward_reference) == (two.reward_reference, two.reward)
    assert one.reward_gain == pytest.approx(-two.reward_gain)
    assert one.win_rate == pytest.approx(1 - two.win_rate)
    assert one.reward != one.reward_reference


def test_the_document_holds_every_film_of_held_out_prompts_and_the_sheet_shows_them(
    trained: Any, other_model: str
) -> None:
    outputs = trained.run("evaluate.compare", model_uri=trained.outputs.model_uri, reference_uri=other_model, **FAST)
    document = json.loads(local(outputs.comparison_uri).read_text())
    assert len(document["films"]) == outputs.num_prompts == 8
    assert all(is_held_out(film["prompt"]) and len(film["model"]) == 2 for film in document["films"])
    mean = np.mean([film["reward"] for row in document["films"] for film in row["model"]])
    assert outputs.reward == pytest.approx(mean)
    with Image.open(local(outputs.preview_uri)) as sheet:
        assert sheet.size == (2 * (2 * 8 * 2) + 14, 8 * (16 + 8 * 2 + 2))


def test_the_verdict_counts_ties_half_and_its_interval_covers_the_truth() -> None:
    reference = np.zeros((4, 2))
    model = np.array([[0.1, 0.1], [0.1, 0.01], [-0.1, -0.01], [0.1, 0.1]])
    figures = verdict(model, reference, tie_margin=0.02, num_rounds=1, seed=0)
    assert figures["win_rate"] == pytest.approx((1 + 0.75 + 0.25 + 1) / 4)
    assert figures["win_rate_low"] <= figures["win_rate"] <= figures["win_rate_high"]
    rng = np.random.default_rng(0)
    covered = 0
    for trial in range(100):
        gain = 0.05 + rng.normal(0, 0.1, (30, 1)) + rng.normal(0, 0.02, (30, 4))
        seen = verdict(gain, np.zeros((30, 4)), tie_margin=0.0, num_rounds=1, seed=trial)
        covered += seen["reward_gain_low"] <= 0.05 <= seen["reward_gain_high"]
    assert covered / 100 == pytest.approx(0.95, abs=0.05)


def test_equal_films_tie_at_a_margin_of_zero() -> None:
    model = np.array([[0.5, 0.75]] * 8)
    figures = verdict(model, np.full((8, 2), 0.5), tie_margin=0.0, num_rounds=1, seed=0)
    assert figures["win_rate"] == 0.75


@pytest.mark.parametrize("num_prompts", [2, 3, 5])
def test_a_few_prompts_that_were_all_won_prove_nothing(num_prompts: int) -> None:
    figures = verdict(np.ones((num_prompts, 1)), np.zeros((num_prompts, 1)), tie_margin=0.0, num_rounds=1, seed=0)
    assert (figures["win_rate"], figures["win_rate_low"], figures["reward_gain_low"]) == (1.0, 0.0, -1.0)


@pytest.mark.parametrize("num_rounds", [1, 3])
@pytest.mark.parametrize(("num_prompts", "num_seeds"), [(3, 1), (8, 1), (8, 4), (24, 1), (24, 4)])
def test_a_model_that_is_no_better_is_seldom_kept(num_prompts: int, num_seeds: int, num_rounds: int) -> None:
    """The best by reward of some rounds, all as good as the base, judged by its interval: kept in at most 2.5 %."""
    rng = np.random.default_rng(num_prompts * num_seeds)
    kept = 0
    for trial in range(TRIALS):
        rounds = []
        for _ in range(num_rounds):
            prompts = rng.normal(0, 0.1, (num_prompts, 1))
            gain = prompts + rng.normal(0, 0.1, (num_prompts, num_seeds))
            figures = verdict(0.5 + gain, np.full_like(gain, 0.5), tie_margin=0.02, num_rounds=num_rounds, seed=trial)
            rounds.append(figures)
        kept += judged(rounds)[0] > 0
    print(f"{num_prompts} prompts, {num_seeds} seeds, best of {num_rounds}: kept {kept / TRIALS:.3f}")
    assert kept / TRIALS <= 0.025 + 2.5 * (0.025 * 0.975 / TRIALS) ** 0.5


def test_a_model_that_is_better_is_kept() -> None:
    gain = 0.1 + np.random.default_rng(0).normal(0, 0.1, (24, 4))
    figures = verdict(0.5 + gain, np.full_like(gain, 0.5), tie_margin=0.02, num_rounds=3, seed=0)
    assert judged([figures])[0] == 1


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"prompts": ["a red circle moves left on a blue background"]}, "must name at least 8 captions, got 1"),
        ({"prompts": [f"a dog and {n} cats" for n in range(8)]}, "expected Backlot's"),
    ],
)
def test_prompts_that_cannot_be_judged_are_refused(trained: Any, given: dict[str, Any], message: str) -> None:
    uri = trained.outputs.model_uri
    with pytest.raises(InputError, match=message):
        trained.run("evaluate.compare", model_uri=uri, reference_uri=uri, **(FAST | given))
