"""The same stages on a real Ray of two processors: equal results, and a lost worker costs nothing."""

import dataclasses
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.components.stages.toy_stages import Toy

from telecine.context import Item, Source
from telecine.storage import Store
from telecine.work import items as work_items
from telecine.work.digests import Digests
from telecine.work.items import Executor, Items
from telecine_components.stages.pool import Pool
from telecine_components.stages.ray_stream import Actor, RayStream

NAMES = ("good-1", "bad-2", "hang-3", "crash-4", *(f"good-{number}" for number in range(5, 11)))


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """A Ray of this test's own."""
    import ray

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))
        patch.setenv("RAY_AUTH_MODE", "disabled")  # else it leaves a token in the home of whoever runs this
        ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
        yield
        ray.shutdown()


def _make(folder: Path, executor: Executor, names: tuple[str, ...], stages: tuple[Toy, ...]) -> list[Item]:
    place: dict[str, Any] = {"component": "toy.work", "source_digest": "code", "attempt": "one", "force": False}
    store, digests = Store(f"file://{folder}/store"), Digests(folder / "home")
    return work_items.handed_over(
        Items(store, digests, scratch=folder / "scratch", **place),
        [Source(name, f"digest of {name}") for name in names],
        stages,
        executor,
        progress=lambda *_: None,
        stopping=lambda: False,
    )


def _stages(log: Path) -> tuple[Toy, ...]:
    shape: dict[str, Any] = {"log": log, "memory_gib": 0.1, "cpus": 0.5}
    return Toy(name="measure", **shape), Toy(name="caption", item_s=0.2, **shape), Toy(name="cut", **shape)


def _bytes(folder: Path) -> dict[str, bytes]:
    files = (path for path in (folder / "store").rglob("*") if path.is_file() and path.name != "commit.json")
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def test_ray_makes_what_one_process_makes_and_a_killed_actor_loses_and_doubles_nothing(
    cluster: None, tmp_path: Path
) -> None:
    alone, streamed = tmp_path / "alone", tmp_path / "streamed"
    for folder in (alone, streamed):
        folder.mkdir()
    expected = _make(alone, Pool(stall_s=3.0), NAMES, _stages(alone / "log"))
    killed: list[int] = []
    killer = threading.Thread(target=_kill_an_actor, args=(streamed / "log", killed))
    killer.start()
    made = _make(streamed, RayStream(stall_s=3.0), NAMES, _stages(streamed / "log"))
    killer.join()
    assert made == expected
    assert _bytes(streamed) == _bytes(alone)
    assert killed, "an actor was really killed"
    starts = (streamed / "log").read_text().split()
    done_once = [name for name in NAMES if name.startswith("good")]
    assert sum(starts.count(name) for name in done_once) - 3 * len(done_once) <= 2, "at most what was at hand again"
    _make(streamed, Pool(), (*NAMES, "good-99"), _stages(streamed / "log"))
    again = (streamed / "log").read_text().split()[len(starts) :]
    assert [line for line in again if line != "setup"] == ["good-99"] * 3, "a restart skips what is finished"


def test_an_error_of_ours_passes_through_ray_as_what_it_is(tmp_path: Path) -> None:
    place: dict[str, Any] = {"component": "toy.work", "source_digest": "code", "attempt": "one", "force": False}
    items = Items(Store(f"file://{tmp_path}/store"), Digests(tmp_path / "home"), scratch=tmp_path, **place)
    actor = Actor(items.batch([Toy(log=tmp_path / "log")]), tmp_path, stall_s=30.0)
    rows = {"number": [7], "source": [json.dumps(dataclasses.asdict(Source("wrong-1", "digest")))], "error": [""]}
    assert actor(rows)["error"] == ["InputError: toy: this can never work"]
    actor.close()


def _kill_an_actor(log: Path, killed: list[int]) -> None:
    """Once the slow stage is at work, kill -9 the process that Ray runs one of its actors in."""
    deadline = time.monotonic() + 60
    while not log.exists() or log.read_text().split().count("good-6") < 2:
        if time.monotonic() > deadline:
            return
        time.sleep(0.05)
    for status in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            title = status.read_bytes()
        except OSError:
            continue
        if title.startswith(b"ray::MapWorker(MapBatches(Actor))"):
            os.kill(int(status.parent.name), signal.SIGKILL)
            killed.append(int(status.parent.name))
            return
