"""evaluate.compare: equal models tie, figures follow the rewards, intervals are over prompts."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from telecine.errors import InputError
from telecine_components.evaluate.compare.verdict import verdict
from telecine_models.backlot.caption import is_held_out

FAST = {"num_prompts": 4, "num_seeds": 2, "num_steps": 2, "num_threads": 1}


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
    assert len(document["films"]) == outputs.num_prompts == 4
    assert all(is_held_out(film["prompt"]) and len(film["model"]) == 2 for film in document["films"])
    mean = np.mean([film["reward"] for row in document["films"] for film in row["model"]])
    assert outputs.reward == pytest.approx(mean)
    with Image.open(local(outputs.preview_uri)) as sheet:
        assert sheet.size == (2 * (2 * 8 * 2) + 14, 4 * (16 + 8 * 2 + 2))


def test_the_verdict_counts_ties_half_and_its_interval_covers_the_truth() -> None:
    reference = np.zeros((4, 2))
    model = np.array([[0.1, 0.1], [0.1, 0.01], [-0.1, -0.01], [0.1, 0.1]])
    figures = verdict(model, reference, tie_margin=0.02, seed=0)
    assert figures["win_rate"] == pytest.approx((1 + 0.75 + 0.25 + 1) / 4)
    assert figures["win_rate_low"] <= figures["win_rate"] <= figures["win_rate_high"]
    rng = np.random.default_rng(0)
    covered = 0
    for trial in range(100):
        gain = 0.05 + rng.normal(0, 0.1, (30, 1)) + rng.normal(0, 0.02, (30, 4))
        seen = verdict(gain, np.zeros((30, 4)), tie_margin=0.0, seed=trial)
        covered += seen["reward_gain_low"] <= 0.05 <= seen["reward_gain_high"]
    assert covered / 100 == pytest.approx(0.95, abs=0.05)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"prompts": ["a red circle moves left on a blue background"]}, "must name at least 2 captions, got 1"),
        ({"prompts": ["a dog", "a cat"]}, "expected Backlot's"),
    ],
)
def test_prompts_that_cannot_be_judged_are_refused(trained: Any, given: dict[str, Any], message: str) -> None:
    uri = trained.outputs.model_uri
    with pytest.raises(InputError, match=message):
        trained.run("evaluate.compare", model_uri=uri, reference_uri=uri, **(FAST | given))
