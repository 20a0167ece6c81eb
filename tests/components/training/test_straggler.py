"""Who is slow, and what that costs the others."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from telecine_components.training.straggler import StragglerWatch, Window, gather_ranks, slow_ranks


@pytest.mark.parametrize(
    ("step_s", "slow"),
    [
        ([1.0], []),
        ([1.0, 1.3], []),
        ([1.0, 1.31], [1]),
        ([2.0, 1.0], [0]),
        ([1.0, 1.0, 1.4, 1.0], [2]),
        ([1.0, 1.0, 5.0, 5.0], [2, 3]),
        ([1.0, 0.1, 1.0, 1.0], []),
        ([0.0, 0.0], []),
        ([30e-6, 42e-6], []),
        ([1e-3, 7e-3], [1]),
    ],
)
def test_a_rank_is_slow_by_the_median_of_all(step_s: list[float], slow: list[int]) -> None:
    assert slow_ranks(step_s) == slow


class Others:
    """What the other ranks would have said."""

    def __init__(self, *ranks: Sequence[float]) -> None:
        self.ranks = ranks

    def __call__(self, values: Sequence[float]) -> list[list[float]]:
        return [list(values), *map(list, self.ranks)]


def window_of(watch: StragglerWatch, steps: Sequence[tuple[float, float]]) -> Window:
    found = [watch.step(step, compute_s=c, data_wait_s=d) for step, (c, d) in enumerate(steps, start=1)]
    assert found[:-1] == [None] * (len(steps) - 1) and found[-1] is not None
    return found[-1]


def test_a_window_says_who_holds_the_others_up() -> None:
    watch = StragglerWatch(window=4, gather=Others((8.0, 2.0, 0.0), (4.4, 1.1, 0.0)))
    window = window_of(watch, [(1.0, 0.0)] * 4)
    assert (window.step, window.num_steps, window.slow) == (4, 4, [1])
    assert window.busy_s == [4.0, 8.0, 4.4] and window.lost_s == pytest.approx(3.6)
    assert window.words == "rank 1 takes 2 s a step; the median rank takes 1.1 s"
    assert window_of(watch, [(1.0, 0.0)] * 4).busy_s == [4.0, 8.0, 4.4], "a window begins anew"


def test_one_hiccup_costs_time_and_makes_no_straggler() -> None:
    window = window_of(StragglerWatch(window=3, gather=Others((3.0, 1.0, 0.0))), [(1.0, 0.0), (7.0, 0.0), (1.0, 0.0)])
    assert window.slow == [] and window.words == "" and window.lost_s == 6.0


def test_data_that_the_slowest_rank_waited_for_itself_is_not_counted_twice() -> None:
    late = [(1.0, 2.0)] * 3
    mine = window_of(StragglerWatch(window=3, gather=Others((3.0, 1.0, 0.0))), late)
    assert mine.slow == [0] and mine.lost_s == 0.0
    other = window_of(StragglerWatch(window=3, gather=Others((9.0, 3.0, 6.0))), [(1.0, 0.0)] * 3)
    assert other.slow == [1] and other.lost_s == 6.0


def test_a_rank_alone_waits_for_nobody() -> None:
    window = window_of(StragglerWatch(window=2), [(1.0, 0.5), (9.0, 0.0)])
    assert (window.slow, window.lost_s) == ([], 0.0)
    assert gather_ranks([1.0, 2.0]) == [[1.0, 2.0]]
    with pytest.raises(ValueError, match="window must be at least 1 step, got 0"):
        StragglerWatch(window=0)


def test_what_a_slow_rank_of_a_real_training_costs_lands_in_straggler(tmp_path: Path) -> None:
    script = Path(__file__).with_name("shared_slow_rank.py")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, str(script), str(tmp_path)], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "event=straggler step=50 reason='rank 1 takes " in done.stderr
    first, slow = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    assert slow["slept_s"] > 2.5 and first["slept_s"] == 0
    for rank in (first, slow):
        assert rank["total"]["straggler"] == pytest.approx(slow["slept_s"], rel=0.1)
