"""Known answers of Koala-36M's released detector, and what our own rule adds to it."""

import numpy as np
import numpy.typing as npt
import pytest

from telecine_components.curate.split.transitions import PUBLISHED, Rule, clip_spans, shots, transition_pairs

ALIKE = 2.88095


def _scores(num_pairs: int = 100, level: float = ALIKE, **at: float) -> npt.NDArray[np.float64]:
    scores = np.full(num_pairs, level)
    for pair, score in at.items():
        scores[int(pair.removeprefix("pair_"))] = score
    return scores


def _found(scores: npt.NDArray[np.float64], rule: Rule) -> list[int]:
    return [int(pair) for pair in np.flatnonzero(transition_pairs(scores, rule))]


@pytest.mark.parametrize(
    ("scores", "pairs"),
    [
        (_scores(), []),
        (_scores(pair_50=-1.0), [50]),
        (_scores(pair_50=-1.0, pair_54=-1.0), [50, 54]),
        (_scores(level=0.5), []),
        (_scores(level=0.5, pair_60=-0.1), [60]),
        (_scores(pair_50=1.0), []),
        (_scores(8), []),
        (_scores(9), []),
    ],
    ids=["still", "cut", "two cuts", "fast motion", "cut in fast motion", "mild dip", "8 pairs", "9 pairs"],
)
def test_the_published_rule_gives_its_known_answers(scores: npt.NDArray[np.float64], pairs: list[int]) -> None:
    assert _found(scores, PUBLISHED) == pairs


def test_a_fade_is_found_at_its_beginning() -> None:
    fade = _scores(**{f"pair_{pair}": 0.3 for pair in range(48, 54)})
    # Pair 50 lies on the published rule's bound exactly, so rounding decides.
    assert _found(fade, PUBLISHED) in ([49], [49, 50])


def test_a_pan_over_a_pattern_is_seldom_taken_for_a_cut() -> None:
    pan = np.random.default_rng(0).uniform(-0.6, 0.9, 100)
    assert len(_found(pan, PUBLISHED)) > 20
    assert len(_found(pan, Rule())) <= 2


def test_a_cut_in_half_of_the_picture_is_found() -> None:
    scores = _scores(level=2.6, pair_50=0.95)
    assert _found(scores, PUBLISHED) == []
    assert _found(scores, Rule()) == [50]


@pytest.mark.parametrize("pair", [0, 1, 5, 94, 98, 99])
def test_a_cut_near_the_ends_is_found(pair: int) -> None:
    assert _found(_scores(**{f"pair_{pair}": -2.0}), Rule()) == [pair]


def test_shots_lie_between_transitions_and_leave_out_the_frames_inside() -> None:
    flags = np.zeros(100, np.bool_)
    flags[[28, 29, 60]] = True
    assert shots(flags) == [(0, 29), (30, 61), (61, 101)]
    assert shots(np.zeros(0, np.bool_)) == [(0, 1)]


def test_clips_are_trimmed_at_transitions_only() -> None:
    assert clip_spans((0, 51), 101, trim_frames=4, max_frames=1000) == [(0, 47)]
    assert clip_spans((51, 101), 101, trim_frames=4, max_frames=1000) == [(55, 101)]


def test_long_shots_become_equal_clips_that_tile_them() -> None:
    assert clip_spans((0, 250), 250, trim_frames=4, max_frames=100) == [(0, 83), (83, 166), (166, 250)]


def test_a_shot_that_trimming_would_use_up_keeps_its_middle_frame() -> None:
    assert clip_spans((50, 57), 101, trim_frames=4, max_frames=100) == [(53, 54)]
