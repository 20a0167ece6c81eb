"""Shots, transitions and planted defects."""

import itertools
from collections import Counter

import numpy as np
import pytest

from telecine_models.backlot.plan import DEFECTS, Span, plan_film

PLANS = [plan_film(np.random.default_rng(seed), 120, 12) for seed in range(400)]


def length(span: Span) -> int:
    return span.end_frame - span.start_frame


@pytest.mark.parametrize(("num_frames", "fps"), [(1, 1), (2, 30), (5, 1), (72, 1), (72, 12), (300, 24), (9, 120)])
def test_spans_tile_the_film(num_frames: int, fps: int) -> None:
    for seed in range(50):
        spans = plan_film(np.random.default_rng(seed), num_frames, fps)
        assert [spans[0].start_frame, *(span.end_frame for span in spans)] == [
            *(span.start_frame for span in spans),
            num_frames,
        ]
        assert all(length(span) >= 1 for span in spans)


def test_only_the_first_shot_begins_with_no_transition() -> None:
    assert all([s.transition == "none" for s in spans] == [True] + [False] * (len(spans) - 1) for spans in PLANS)


def test_hard_cuts_prevail_and_dissolves_and_fades_occur() -> None:
    kinds = Counter(span.transition for spans in PLANS for span in spans[1:])
    assert kinds["cut"] > 0.6 * kinds.total()
    assert min(kinds["dissolve"], kinds["fade"]) > 0.08 * kinds.total()


def test_a_transition_lies_around_its_boundary_and_leaves_both_shots_a_third_at_least() -> None:
    for spans in PLANS:
        for before, span in itertools.pairwise(spans):
            blend = span.blend_end_frame - span.blend_start_frame
            assert span.blend_start_frame <= span.start_frame <= span.blend_end_frame
            assert (blend == 0) == (span.transition == "cut")
            assert 3 * blend <= min(length(before), length(span))


def test_about_half_of_the_films_have_one_spoilt_shot_and_every_defect_occurs() -> None:
    spoilt = [[span.defect for span in spans if span.defect] for spans in PLANS]
    assert max(len(defects) for defects in spoilt) == 1
    kinds = Counter(defect for defects in spoilt for defect in defects)
    assert kinds.total() == pytest.approx(0.5 * len(PLANS), rel=0.15)
    assert all(kinds[defect] > 15 for defect in DEFECTS)


def test_a_shot_is_short_where_that_is_its_defect_and_nowhere_else() -> None:
    for span in (span for spans in PLANS for span in spans):
        if span.defect == "short":
            assert length(span) <= 4
        else:
            assert length(span) >= 12
