"""What worker processes do to a batch, and what they cannot do to it."""

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.components.stages.toy_stages import Toy

from telecine.context import Item, Source
from telecine.errors import InputError, RetryLater
from telecine.storage import Store
from telecine.work import items as work_items
from telecine.work.digests import Digests
from telecine.work.items import Items
from telecine_components.stages.pool import Pool

Made = Callable[..., list[Item]]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log"


@pytest.fixture
def make(tmp_path: Path, log: Path) -> Made:
    """Make the items of named sources: ``make("good-1", "hang-2", stall_s=…, stages=…)``."""

    def run(
        *names: str,
        num_workers: int = 1,
        stall_s: float = 30.0,
        setup_s: float = 60.0,
        given: Any = None,
        stages: tuple[Toy, ...] = (),
        attempt: str = "one",
        force: bool = False,
        stopping: Callable[[], bool] = lambda: False,
        told: list[tuple[int, int]] | None = None,
    ) -> list[Item]:
        place = {"component": "toy.work", "source_digest": "code", "attempt": attempt, "force": force}
        store, digests = Store(f"file://{tmp_path}/store"), Digests(tmp_path / "home")
        return work_items.handed_over(
            Items(store, digests, scratch=tmp_path / "scratch", **place),
            [Source(name, f"digest of {name}", given=given) for name in names],
            stages or (Toy(log=log),),
            Pool(num_workers=num_workers, stall_s=stall_s, setup_s=setup_s),
            progress=lambda done, total: (told if told is not None else []).append((done, total)),
            stopping=stopping,
        )

    return run


def _log(log: Path) -> list[str]:
    return [line for line in log.read_text().split() if line != "setup"]


def test_items_come_in_the_order_of_their_sources_and_are_made_once_ever(make: Made, log: Path) -> None:
    told: list[tuple[int, int]] = []
    names = [f"good-{number}" for number in range(6)]
    first = make(*names, num_workers=2, told=told)
    assert [item.name for item in first] == names
    assert told == [(done, 6) for done in range(7)]
    assert make("good-9", *names)[1:] == first
    assert sorted(_log(log)) == [*names, "good-9"]


def test_workers_are_set_up_once_each(make: Made, log: Path) -> None:
    make(*(f"good-{number}" for number in range(6)))
    assert log.read_text().split().count("setup") == 1


def test_a_worker_computes_with_one_thread(make: Made, log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    make("multiply-1")
    assert _log(log) == ["multiply-1", "threads:[1]:1"]


def test_a_worker_that_hangs_in_c_is_cut_off_and_one_that_is_slow_is_not(make: Made, log: Path) -> None:
    began = time.monotonic()
    hung = "the decoder hung: no progress for 0.6 s"
    made = make("good-1", "hang-2", "slow-3", "freeze-4", "good-5", stall_s=0.6)
    assert [item.reason for item in made] == [None, hung, None, hung, None]
    assert list((log.parent / "scratch").iterdir()) == [], "what a killed worker had at hand is gone"
    assert time.monotonic() - began < 15
    assert make("hang-2")[0].reason == made[1].reason, "it is committed like any result"
    assert _log(log).count("hang-2") == 1


def test_a_worker_that_hangs_while_it_is_set_up_ends_the_batch_and_blames_no_item(make: Made, log: Path) -> None:
    hung = (Toy(log=log, setup_s=1000.0),)
    with pytest.raises(RetryLater, match=r"^a worker process gave no sign of life for 3 s while it was set up; "):
        make("good-1", stages=hung, setup_s=3.0, given="more than a pipe takes" * 100_000)
    assert list((log.parent / "scratch").iterdir()) == []
    assert [item.reason for item in make("good-1")] == [None]


def test_a_worker_may_be_set_up_for_longer_than_it_may_be_silent_at_an_item(make: Made, log: Path) -> None:
    silent = (Toy(log=log, setup_s=1.5),)
    assert [item.reason for item in make("good-1", stages=silent, stall_s=0.5)] == [None]
    in_steps = (Toy(log=log, setup_s=4.0, setup_beat_s=1.0),)
    assert [item.reason for item in make("good-2", stages=in_steps, stall_s=0.5, setup_s=3.0)] == [None]


def test_fetching_may_take_longer_than_a_decoder_may_be_silent(make: Made, log: Path) -> None:
    made = make("fetch-1", "fetchhang-2", num_workers=2, stall_s=0.6)
    assert [item.reason for item in made] == [None, "the decoder hung: no progress for 0.6 s"]
    assert "fetched" in _log(log)


def test_an_item_that_kills_its_worker_gets_a_reason_after_another_try(make: Made, log: Path) -> None:
    made = make("crash-1", "good-2", "crashonce-3", "good-4")
    assert [item.reason for item in made] == ["the decoder crashed on it 2 times: SIGSEGV", None, None, None]
    assert [_log(log).count(name) for name in ("crash-1", "crashonce-3", "good-2")] == [2, 2, 1]


def test_bad_data_is_a_row_and_anything_else_ends_the_batch(make: Made, log: Path) -> None:
    assert [item.reason for item in make("bad-1", "good-2")] == ["it is bad", None]
    with pytest.raises(InputError, match="toy: this can never work"):
        make("good-3", "wrong-4", "good-5")
    with pytest.raises(RuntimeError, match=r"(?s)in a worker process:.*KeyError: 'a bug'"):
        make("bug-6")
    assert "good-5" not in _log(log)
    make("good-3")
    assert _log(log).count("good-3") == 1, "what was done before stays"


def test_stopping_ends_what_has_begun_and_begins_nothing(make: Made, log: Path) -> None:
    stop = threading.Event()
    told: list[Any] = []
    log.touch()

    def stop_at_the_first() -> None:
        _await(lambda: "good-1" in log.read_text())
        stop.set()

    threading.Thread(target=stop_at_the_first).start()
    stage = Toy(log=log, item_s=0.5)
    with pytest.raises(RetryLater, match=r"stopped after 1 of 3 items; the same call continues there"):
        make("good-1", "good-2", "good-3", stages=(stage,), stopping=stop.is_set, told=told)
    make("good-1", "good-2", "good-3")
    assert _log(log) == ["good-1", "good-2", "good-3"]


def test_force_makes_each_item_again_and_once(make: Made, log: Path) -> None:
    make("good-1", "good-2")
    make("good-1", "good-2", attempt="two", force=True)
    assert sorted(_log(log)) == ["good-1", "good-1", "good-2", "good-2"]


def test_a_chain_hands_each_item_to_the_next_stage_and_redoes_what_comes_after_a_change(make: Made, log: Path) -> None:
    def stages(threshold: int) -> tuple[Toy, ...]:
        last = Toy(name="cut", params={"threshold": threshold}, log=log)
        return Toy(name="measure", log=log), Toy(name="caption", log=log), last

    made = make("good-1", "bad-2", stages=stages(1))
    assert made[0].value == {"text": "measure:good-1;caption:good-1;cut:good-1;"}
    assert made[1].reason == "it is bad"
    assert _log(log) == ["good-1"] * 3 + ["bad-2"], "no stage after the one that refused it"
    make("good-1", "bad-2", stages=stages(2))
    assert _log(log) == ["good-1"] * 3 + ["bad-2", "good-1"]
    make("good-1", stages=(Toy(name="measure", params={"speed": 2}, log=log), *stages(2)[1:]))
    assert _log(log)[5:] == ["good-1"], "what follows equal bytes is not made again"
    another = Toy(name="measure", params={"speed": 3}, word="fast", log=log)
    assert make("good-1", stages=(another, *stages(2)[1:]))[0].value["text"].startswith("measure:good-1fast;caption")
    assert _log(log)[6:] == ["good-1"] * 3


def test_workers_are_at_items_at_the_same_time(make: Made, log: Path) -> None:
    stages = tuple(Toy(name=name, log=log) for name in "abc")
    assert len(make(*(f"meet-{number}" for number in range(4)), num_workers=4, stages=stages)) == 4


def _await(holds: Callable[[], bool], timeout_s: float = 30.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)
