"""The suitability model on clips whose quality is known by construction, without any video."""

import dataclasses
import json
import math
from typing import Any

import numpy as np
import pytest

from telecine.errors import InputError
from telecine_components.curate.learn.judging import spearman
from telecine_components.curate.suitability import builtin
from telecine_components.curate.suitability.fit import DIRECTIONS, fit
from telecine_components.curate.suitability.model import Model, Penalty, from_json
from telecine_components.media import clips

Rows = list[dict[str, Any]]
USUAL = {
    "motion": (0.1, 0.02),
    "stability": (0.9, 0.02),
    "freeze": (0.0, 0.0),
    "flicker": (0.01, 0.005),
    "blur": (0.3, 0.03),
    "noise": (0.004, 0.002),
    "blockiness": (0.02, 0.01),
    "exposure": (0.5, 0.05),
    "contrast": (0.8, 0.05),
    "clipping": (0.01, 0.005),
    "colourfulness": (0.4, 0.1),
    "black_bars": (0.0, 0.0),
    "overlay_text": (0.0, 0.0),
    "logo": (0.05, 0.03),
}
FAULTS = {"blur": 0.4, "noise": 0.1, "freeze": 1.0, "stability": -0.8, "overlay_text": 0.1, "flicker": 0.4}
"""What a fault of severity 1 adds to its measure."""


def made(seed: int, kinds: tuple[str, ...], num_clips: int = 400) -> tuple[Rows, np.ndarray]:
    """Clips of which two in three have one fault, and their quality."""
    rng = np.random.default_rng(seed)
    rows, quality = [], []
    for index in range(num_clips):
        row = {name: float(abs(rng.normal(mean, spread))) for name, (mean, spread) in USUAL.items()}
        severity = float(rng.uniform(0.1, 1)) if index % 3 else 0.0
        kind = kinds[rng.integers(len(kinds))]
        row[kind] += FAULTS[kind] * severity
        rows.append(row)
        quality.append(5 - 4 * severity)
    return rows, np.array(quality)


@pytest.fixture(scope="module")
def learned() -> Model:
    return fit(*made(0, tuple(FAULTS)), truth="planted")


def test_it_learns_the_scale_of_what_it_was_given(learned: Model) -> None:
    rows, quality = made(1, tuple(FAULTS))
    scores = [learned.score(row) for row in rows]
    assert spearman(np.array(scores), quality) > 0.85
    assert np.sqrt(np.square(np.array(scores) - quality).mean()) < 0.6
    assert all(1 <= score <= 5 for score in scores)


@pytest.mark.parametrize("kind", FAULTS)
def test_a_fault_that_no_training_clip_had_is_found(kind: str) -> None:
    model = fit(*made(0, tuple(other for other in FAULTS if other != kind)), truth="planted")
    rows, quality = made(1, (kind,))
    assert spearman(np.array([model.score(row) for row in rows]), quality) > 0.8


def test_without_sharing_a_fault_that_no_training_clip_had_is_not_found() -> None:
    """What the prior is for: alone, the data say nothing of a measure that never went wrong."""
    others = tuple(kind for kind in FAULTS if kind != "freeze")
    rows, quality = made(0, others)
    frozen = {name: mean for name, (mean, _) in USUAL.items()} | {"freeze": 1.0}
    apart, shared = (fit(rows, quality, truth="planted", sharing=sharing) for sharing in (1e-9, 1.0))
    clean = frozen | {"freeze": 0.0}
    assert shared.score(clean) - shared.score(frozen) > 1.0
    strength = {each.measure: each.strength for each in apart.penalties}["freeze"]
    assert strength == pytest.approx(1.0, abs=0.05), "it stays where the search began"


@pytest.mark.parametrize("direction", DIRECTIONS, ids=lambda each: f"{each.measure}-{each.bad}")
def test_a_measure_that_gets_worse_never_raises_the_score(learned: Model, direction: Any) -> None:
    rows, _ = made(2, tuple(FAULTS), num_clips=20)
    for row in rows:
        # From the middle of what is usual, because motion and exposure are bad at both ends.
        steps = [
            row | {direction.measure: USUAL[direction.measure][0] + direction.sign * step}
            for step in np.linspace(0, 1, 21)
        ]
        scores = [learned.score(step) for step in steps]
        assert scores == sorted(scores, reverse=True)


def test_motion_and_exposure_are_bad_at_both_ends(learned: Model) -> None:
    row = {name: mean for name, (mean, _) in USUAL.items()}
    for measure, low, high in (("motion", 0.0, 3.0), ("exposure", 0.0, 1.0)):
        ends = [learned.score(row | {measure: value}) for value in (low, high)]
        assert max(ends) < learned.score(row) - 0.5


def test_a_clip_has_the_same_score_alone_and_in_any_company(learned: Model) -> None:
    rows, _ = made(3, tuple(FAULTS), num_clips=50)
    alone = [learned.score(row) for row in rows]
    assert [learned.score(row) for row in reversed(rows)] == alone[::-1]
    assert learned.score(rows[7]) == alone[7]


def test_what_a_measure_costs_multiplies_to_the_score(learned: Model) -> None:
    for row in made(4, tuple(FAULTS), num_clips=20)[0]:
        kept = math.prod(1 - cost for cost in learned.costs(row).values())
        assert learned.worst + (learned.best - learned.worst) * kept == pytest.approx(learned.score(row))


def test_equal_clips_give_an_equal_model_that_survives_its_file(learned: Model) -> None:
    again = fit(*made(0, tuple(FAULTS)), truth="planted")
    assert again.to_json() == learned.to_json()
    assert from_json(learned.to_json(), owner="test", known=clips.SCHEMA.names) == learned


def test_ratings_that_use_half_of_the_scale_are_met_on_it() -> None:
    rows, quality = made(0, tuple(FAULTS))
    model = fit(rows, 2 + quality / 2.5, truth="ratings")
    assert model.best < 4.5 and model.worst > 1.5


def test_a_row_without_a_measure_is_told(learned: Model) -> None:
    row = {name: mean for name, (mean, _) in USUAL.items()} | {"blur": None, "noise": math.nan}
    assert learned.missing(row) == ["blur", "noise"]
    with pytest.raises(KeyError):
        learned.score({})


def test_the_builtin_model_needs_only_columns_of_the_manifest() -> None:
    model = from_json(builtin.MODEL, owner="test", known=clips.SCHEMA.names)
    assert model.truth == "planted" and set(model.measures) == {each.measure for each in DIRECTIONS}
    assert json.loads(builtin.MODEL)["metrics"]["spearman"] > 0.7


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "telecine suitability 2"}, "another format"),
        ({"penalties": [{"measure": "blur"}]}, "missing"),
        ({"extra": 1}, "extra"),
        ({"penalties": [Penalty(measure="charm", knee=0, ruin=1, strength=1)]}, r"\['charm'\]"),
        ({"penalties": [Penalty(measure="blur", knee=1, ruin=1, strength=1)]}, "a ruin apart from the knee"),
        ({"penalties": [Penalty(measure="blur", knee=0, ruin=1, strength=-1)]}, "a strength from 0"),
        ({"penalties": [Penalty(measure="blur", knee=0, ruin=10**400, strength=1)]}, "a ruin apart from the knee"),
        ({"penalties": [{"measure": "blur", "knee": None, "ruin": 1, "strength": 1}]}, "a ruin apart from the knee"),
        ({"penalties": [{"measure": ["blur"], "knee": 0, "ruin": 1, "strength": 1}]}, "it needs the measures"),
        ({"worst": 10**400}, "1 <= worst <= best <= 5, got 10{59}"),
        ({"best": math.nan}, "1 <= worst <= best <= 5, got .* nan$"),
        ({"best": "5"}, "1 <= worst <= best <= 5, got .* '5'$"),
        ({"worst": 4.0, "best": 2.0}, "1 <= worst <= best <= 5, got 4.0 and 2.0$"),
    ],
)
def test_a_file_that_holds_no_model_is_refused(learned: Model, change: dict[str, Any], message: str) -> None:
    values = json.loads(learned.to_json()) | change
    values["penalties"] = [
        dataclasses.asdict(each) if isinstance(each, Penalty) else each for each in values["penalties"]
    ]
    with pytest.raises(InputError, match=f"test: suitability_uri must be a model.*{message}"):
        from_json(json.dumps(values), owner="test", known=clips.SCHEMA.names)


@pytest.mark.parametrize("text", ["", "[]", "7", "{}", "\x00", "[" * 100_000])
def test_text_that_is_no_model_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="suitability_uri must be a model"):
        from_json(text, owner="test", known=clips.SCHEMA.names)
