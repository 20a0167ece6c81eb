"""From shots to clips."""

import itertools
import math

import numpy as np
import numpy.typing as npt
import pytest

from telecine_components.curate.split.spans import clip_spans


def _edges(num_frames: int, fps: float = 25.0) -> npt.NDArray[np.float64]:
    return np.arange(num_frames + 1) / fps


def test_clips_are_trimmed_at_transitions_only() -> None:
    assert clip_spans((0, 51), _edges(101), trim_frames=4, max_clip_s=60) == [(0, 47)]
    assert clip_spans((51, 101), _edges(101), trim_frames=4, max_clip_s=60) == [(55, 101)]
    assert clip_spans((20, 51), _edges(101), trim_frames=4, max_clip_s=60) == [(24, 47)]


def test_long_shots_become_equal_clips_that_tile_them() -> None:
    assert clip_spans((0, 250), _edges(250), trim_frames=4, max_clip_s=4.0) == [(0, 84), (84, 167), (167, 250)]
    assert clip_spans((0, 100), _edges(100), trim_frames=4, max_clip_s=4.0) == [(0, 100)]


@pytest.mark.parametrize("max_clip_s", [0.01, 0.05, 1.0, 3.99, 100.0])
@pytest.mark.parametrize("fps", [23.976, 25.0, 59.94])
def test_no_clip_is_longer_than_allowed_unless_it_is_a_frame(max_clip_s: float, fps: float) -> None:
    spans = clip_spans((7, 333), _edges(400, fps), trim_frames=0, max_clip_s=max_clip_s)
    assert [spans[0][0], spans[-1][1]] == [7, 333]
    assert all(left[1] == right[0] for left, right in itertools.pairwise(spans))
    longest = max(1, math.floor(max_clip_s * fps + 1e-6))
    assert max(end - start for start, end in spans) <= longest
    assert len(spans) == math.ceil(326 / longest)


def test_clips_of_a_variable_rate_are_equal_in_time() -> None:
    # Ten seconds at 10 frames a second, ten at 40.
    edges_s = np.concatenate([np.arange(100) / 10, 10 + np.arange(401) / 40])
    spans = clip_spans((0, 500), edges_s, trim_frames=0, max_clip_s=5.0)
    assert spans == [(0, 50), (50, 100), (100, 300), (300, 500)]


def test_a_frame_that_stands_longer_than_a_clip_may_last_is_a_clip_of_its_own() -> None:
    edges_s = np.concatenate([np.arange(50) / 25, 28800 + np.arange(51) / 25])
    assert clip_spans((0, 100), edges_s, trim_frames=0, max_clip_s=2.0) == [(0, 49), (49, 50), (50, 100)]


def test_a_shot_that_trimming_would_use_up_keeps_its_middle_frame() -> None:
    assert clip_spans((50, 57), _edges(101), trim_frames=4, max_clip_s=4) == [(53, 54)]
