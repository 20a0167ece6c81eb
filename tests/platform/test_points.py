"""Points on their way to a tracker: a step never waits, none is lost or sent twice, and who leads sends."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence, Set

import pytest

from telecine.points import BATCH_POINTS, Point, Points


class Away(Exception):
    """The tracker is not there."""


class Curve:
    """A tracker in memory that may be away, lose replies, or take its time.

    Attributes:
        replies: what befalls the next requests, in turn: ``lost`` stores and fails, ``away`` fails.
    """

    def __init__(self) -> None:
        self.stored: list[Point] = []
        self.replies: list[str] = []
        self.batches: list[int] = []
        self.num_asked = 0
        self.leads = True
        self.buffers: list[Points] = []
        self.open = threading.Event()
        self.open.set()

    def send(self, batch: Sequence[Point]) -> None:
        assert self.open.wait(30)
        fate = self.replies.pop(0) if self.replies else ""
        if fate != "away":
            self.stored += batch
            self.batches.append(len(batch))
        if fate:
            raise Away(f"{fate}\nand a traceback")

    def last_steps(self, names: Set[str]) -> dict[str, int]:
        self.num_asked += 1
        return {name: max((step for n, _, _, step in self.stored if n == name), default=-1) for name in names}

    def points(self, flush_s: float = 1000.0, asleep_s: float = 1000.0) -> Points:
        buffer = Points(
            send=self.send,
            last_steps=self.last_steps,
            leads=lambda: self.leads,
            failures=lambda: (Away,),
            flush_s=flush_s,
            asleep_s=asleep_s,
        )
        self.buffers.append(buffer)
        return buffer

    def steps(self, name: str = "loss") -> list[int]:
        return [step for n, _, _, step in self.stored if n == name]


@pytest.fixture
def curve() -> Iterator[Curve]:
    made = Curve()
    yield made
    for buffer in made.buffers:
        buffer.close()


def test_values_and_steps_arrive_in_order_and_in_batches(curve: Curve) -> None:
    buffer = curve.points()
    for step in range(BATCH_POINTS + 10):
        buffer.add({"loss": 1 / (step + 1), "lr": step}, step)
    assert curve.stored == []
    assert buffer.settle() == []
    assert curve.batches == [BATCH_POINTS, BATCH_POINTS, 20]
    assert curve.steps() == curve.steps("lr") == list(range(BATCH_POINTS + 10))
    assert [value for name, value, _, _ in curve.stored if name == "loss"][2] == 1 / 3


def test_the_thread_sends_soon_and_a_step_does_not_wait_for_it(curve: Curve) -> None:
    buffer = curve.points(flush_s=0.02)
    curve.open.clear()
    longest_s = 0.0
    deadline = time.monotonic() + 0.3
    step = 0
    while time.monotonic() < deadline:  # the thread is stuck in a request all the while
        began = time.perf_counter()
        buffer.add({"loss": 1.0}, step)
        longest_s = max(longest_s, time.perf_counter() - began)
        step += 1
        time.sleep(0.001)
    curve.open.set()
    assert longest_s < 0.15 and curve.stored == []
    _await(lambda: curve.steps() == list(range(step)))
    buffer.close()


def test_points_of_many_threads_arrive_once_each_while_two_settle(curve: Curve) -> None:
    buffer = curve.points(flush_s=0.001)

    def write(name: str) -> None:
        for step in range(2000):
            buffer.add({name: float(step)}, step)

    def settle() -> None:
        for _ in range(200):
            buffer.settle()

    threads = [threading.Thread(target=write, args=(f"curve-{number}",)) for number in range(3)]
    threads += [threading.Thread(target=settle) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    buffer.settle()
    buffer.close()
    assert [curve.steps(f"curve-{number}") for number in range(3)] == [list(range(2000))] * 3


@pytest.mark.parametrize("fate", ["lost", "away"])
def test_a_request_without_a_reply_is_neither_lost_nor_doubled(curve: Curve, fate: str) -> None:
    buffer = curve.points()
    for step in range(BATCH_POINTS + 500):
        buffer.add({"loss": 0.0, "lr": 0.0}, step)
    curve.replies = ["", fate]
    with pytest.raises(Away):
        buffer.settle()
    buffer.settle()
    assert curve.steps() == curve.steps("lr") == list(range(BATCH_POINTS + 500))


def test_flush_says_in_one_line_that_the_tracker_is_away_and_keeps_the_points(
    curve: Curve, caplog: pytest.LogCaptureFixture
) -> None:
    buffer = curve.points()
    buffer.add({"loss": 1.0}, 1)
    curve.replies = ["away"]
    buffer.flush()
    assert caplog.messages == ["event=tracker_away points=1 error='away'"]
    buffer.flush()
    assert curve.steps() == [1]


def test_only_the_leader_sends_and_what_was_sent_is_not_sent_again(curve: Curve) -> None:
    first, second = curve.points(), curve.points()
    curve.leads = False
    for step in range(4):
        first.add({"loss": 0.0}, step)
    kept = first.settle()
    assert curve.stored == [] and [point[3] for point in kept] == [0, 1, 2, 3]
    curve.leads = True
    second.resume(list(point) for point in kept)  # as JSON brings them
    for step in range(2, 6):  # it goes on from the checkpoint of step 2 and computes 2 and 3 again
        second.add({"loss": 0.0}, step)
    second.settle()
    first.settle()
    assert curve.steps() == [0, 1, 2, 3, 4, 5]


def test_an_attempt_asks_what_is_there_once_and_again_after_it_slept(curve: Curve) -> None:
    buffer = curve.points(asleep_s=0.3)
    for step in range(3):
        buffer.add({"loss": 0.0}, step)
        buffer.settle()
    assert curve.num_asked == 1
    curve.stored.append(("loss", 0.5, 0, 3))  # by an attempt that took the lead meanwhile
    time.sleep(0.4)
    buffer.add({"loss": 0.0}, 3)
    buffer.add({"loss": 0.0}, 4)
    buffer.settle()
    assert curve.num_asked == 2 and curve.steps() == [0, 1, 2, 3, 4]


def test_a_winner_sends_whoever_leads(curve: Curve) -> None:
    buffer = curve.points()
    curve.leads = False
    buffer.add({"loss": 0.0}, 1)
    buffer.settle_all()
    assert curve.steps() == [1]


def test_closing_ends_the_thread_and_a_later_point_starts_it_again(curve: Curve) -> None:
    buffer = curve.points(flush_s=0.01)
    buffer.close()
    for step in (1, 2):
        curve.batches.clear()
        buffer.add({"loss": 0.0}, step)
        _await(lambda: curve.batches == [1])
        assert _num_threads() == 1
        buffer.close()
        assert _num_threads() == 0


def test_what_is_no_number_is_refused_by_the_call(curve: Curve) -> None:
    with pytest.raises(ValueError, match="could not convert"):
        curve.points().add({"loss": "high"}, 1)  # type: ignore[dict-item]


def _num_threads() -> int:
    return sum(thread.name == "points" for thread in threading.enumerate())


def _await(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)
