"""The study of the suitability score: its thresholds on problems with a known answer, and what its films are."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from telecine_components.curate.suitability.fit import Direction

CLAIMS = Path(__file__).parents[2] / "infra" / "claims"
DIRECTIONS = (Direction("blur", 1.0, 0.01), Direction("exposure", 0.0, 0.01, "low"), Direction("noise", 1.0, 0.01))


@pytest.fixture(autouse=True)
def claims(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(CLAIMS))


def _rows(num_rows: int) -> list[dict[str, float]]:
    draws = np.random.default_rng(0).uniform(size=(num_rows, 3))
    return [{"blur": blur, "exposure": exposure, "noise": noise} for blur, exposure, noise in draws]


def test_f1_has_known_answers() -> None:
    import thresholds

    good = np.array([True, True, False, False])
    assert thresholds.f1(good, good) == 1
    assert thresholds.f1(~good, good) == 0
    assert thresholds.f1(np.ones(4, np.bool_), good) == pytest.approx(2 / 3)


@pytest.mark.parametrize("num_starts", [1, 6])
def test_thresholds_find_a_box_that_there_is(num_starts: int) -> None:
    """Where goodness is a box, the AND of thresholds is the right model, and tuning must find it."""
    import thresholds

    rows, test = _rows(400), _rows(1000)[400:]
    good, truly = (np.array([row["blur"] < 0.6 and row["exposure"] > 0.3 for row in each]) for each in (rows, test))
    found = thresholds.tuned(rows, good, DIRECTIONS, num_starts=num_starts, seed=0)
    assert thresholds.f1(found.keep(rows), good) > 0.98 and thresholds.f1(found.keep(test), truly) > 0.97
    assert found.limits[:2] == pytest.approx([0.6, -0.3], abs=0.04)
    assert found.limits[2] > 0.95, "what does not matter rejects nothing"


def test_more_starts_are_never_worse() -> None:
    import thresholds

    rows = _rows(150)
    good = np.array([row["blur"] + row["noise"] - row["exposure"] < 0.5 for row in rows])
    reached = [
        thresholds.f1(thresholds.tuned(rows, good, DIRECTIONS, num_starts=starts, seed=3).keep(rows), good)
        for starts in (1, 3, 9)
    ]
    assert reached == sorted(reached)


def test_no_two_films_share_a_scene() -> None:
    import suitability as study

    world = study.GPU
    counts = (world.num_train, world.num_test, world.num_clean + 9 * world.num_ranked)
    scenes = [
        study.scene_of(seed, split, index)
        for seed in range(3)
        for split, number in enumerate(counts)
        for index in range(number)
    ]
    assert len(set(scenes)) == len(scenes) == 3 * sum(counts)


def test_drawn_films_have_mild_defects_in_the_order_in_which_footage_meets_them() -> None:
    import suitability as study

    world = dataclasses.replace(study.SHORT, num_frames=4, width_px=32, height_px=32)
    films = [study._drawn(0, 0, index, world) for index in range(15)]
    assert [len(film.defects) for film in films] == [0, 1, 2, 3, 4] * 3
    for film in films:
        kinds = [kind for kind, _ in film.defects]
        assert kinds == sorted(set(kinds), key=study._MET_IN_ORDER.index)
        assert not {"overexposure", "underexposure"} <= set(kinds)
        assert all(0.05 <= severity <= 0.6 for _, severity in film.defects)
    assert all(film.quality > 2.5 for film in films if len(film.defects) < 2), "none alone makes a film bad"
