"""Tasks of deploy.serve, the thread that films them and the claim on them, by themselves: also over a bad store."""

from collections.abc import Collection
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from telecine.errors import InputError, RetryLater
from telecine.storage import Store
from telecine_components.deploy.serve.claim import Claim
from telecine_components.deploy.serve.sampler import Sampler, enlarged
from telecine_components.deploy.serve.tasks import MAX_TRIES, Film, QueueFull, Tasks

FILM = Film(prompt="a square", seed=0, num_steps=1, guidance_scale=1.0, num_frames=2, height_px=8, width_px=8)


class Failing(Store):
    """A store that does not answer the writes of these numbers, counted from 0, nor any wish to remove something."""

    def __init__(self, uri: str, fails: Collection[int] = ()) -> None:
        super().__init__(uri)
        self.fails, self.num_writes = fails, 0

    def write(self, path: str, data: bytes) -> None:
        """Fail, or write."""
        self.num_writes += 1
        if self.num_writes - 1 in self.fails:
            raise RetryLater("the store is away")
        super().write(path, data)

    def delete_folder(self, prefix: str) -> int:
        """Fail."""
        raise RetryLater("the store is away")


class Racing(Store):
    """A store in which somebody else claims a model just before the first create."""

    rival: Any = None

    def create(self, path: str, data: bytes) -> bool:
        """Let the rival go first."""
        rival, self.rival = self.rival, None
        if rival is not None:
            Claim(rival, "services/m")
        return super().create(path, data)


def tasks(store: Store, *, max_queue: int = 9, keep: int = 9) -> Tasks:
    return Tasks(store, "services/m", max_queue=max_queue, keep=keep)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(f"file://{tmp_path}")


def test_tasks_run_in_the_order_in_which_they_came_and_outlive_the_process(store: Store) -> None:
    made = tasks(store)
    asked = [made.submit(FILM)[0].id for _ in range(3)]
    first = made.next(0)
    assert first is not None and first.id == asked[0]
    made.finish(first, b"film", seconds=1.0, model="m version 1")
    again = tasks(store)
    assert [task.id for task in again.waiting()] == asked[1:]
    kept = again.get(asked[0])
    assert kept is not None and (kept.state, kept.model, kept.film) == ("done", "m version 1", FILM)
    assert store.read(again.video_path(asked[0])) == b"film"


def test_a_task_that_kills_the_service_again_and_again_is_given_up(store: Store) -> None:
    name = tasks(store).submit(FILM)[0].id
    for _ in range(MAX_TRIES):
        running = tasks(store).next(0)
        assert running is not None and running.id == name
    given_up = tasks(store).get(name)
    assert given_up is not None and given_up.state == "failed"
    assert f"ended {MAX_TRIES} times" in (given_up.error or "")


def test_a_task_that_was_cancelled_is_not_put_back(store: Store) -> None:
    made = tasks(store)
    made.submit(FILM)
    running = made.next(0)
    assert running is not None
    made.cancel(running)
    assert made.put_back(running, tries=0).state == "cancelled"
    assert made.next(0) is None


def test_old_films_make_room(store: Store) -> None:
    made = tasks(store, keep=2)
    for _ in range(4):
        task = made.submit(FILM)[0]
        running = made.next(0)
        assert running is not None
        made.finish(running, b"film", seconds=1.0, model="m")
    made.submit(FILM)
    assert len(store.folders("services/m/tasks")) == 3
    assert made.get(task.id) is not None


def test_a_full_queue_takes_no_more(store: Store) -> None:
    made = tasks(store, max_queue=1)
    made.submit(FILM)
    with pytest.raises(QueueFull):
        made.submit(FILM)


def test_pixels_are_repeated_until_a_person_sees_something() -> None:
    frames = np.arange(2 * 3 * 4 * 3, dtype=np.uint8).reshape(2, 3, 4, 3)
    large = enlarged(frames, 7)
    assert large.shape == (2, 9, 12, 3)
    assert np.array_equal(large[:, ::3, ::3], frames)


def test_old_films_that_cannot_be_removed_fail_no_new_task(tmp_path: Path) -> None:
    made = tasks(Failing(f"file://{tmp_path}"), keep=1)
    for _ in range(2):
        made.submit(FILM)
        made.cancel(made.waiting()[0])
    asked = made.submit(FILM)[0]
    assert [task.id for task in made.waiting()] == [asked.id]


def test_a_store_that_is_away_for_a_while_costs_a_film_no_try(trained: Any, tmp_path: Path) -> None:
    # running is kept at the third call; the film, and that it is done, at the second
    store = Failing(f"file://{tmp_path / 'store'}", fails=(1, 2, 4, 6))
    made = tasks(store)
    asked = made.submit(FILM)[0]
    folder = Path(trained.outputs.model_uri.removeprefix("file://"))
    sampler = Sampler(made, folder, tmp_path, fps=8.0, model="m", num_threads=1, shown_height_px=8, away_s=0.01)
    made.on_end = lambda task: sampler.stop()
    sampler.run()
    done = made.get(asked.id)
    assert done is not None and (done.state, done.tries) == ("done", 1)
    assert store.read(made.video_path(asked.id))
    assert store.num_writes == 9


def claiming(store: Store, attempt: str) -> Any:
    """What a claim needs of a Context, of an attempt that lives."""
    state = {"attempt": attempt, "host": "elsewhere", "pid": 1}
    store.write_json(f"work/deploy.serve/{attempt}/beats/{attempt}.json", state)
    return SimpleNamespace(store=store, component="deploy.serve", key=attempt, attempt=attempt)


def test_of_two_that_claim_at_once_one_serves(store: Store, tmp_path: Path) -> None:
    racing = Racing(f"file://{tmp_path}")
    first, racing.rival = claiming(racing, "first"), claiming(store, "second")
    with pytest.raises(InputError, match="services/m is served by process 1 on elsewhere"):
        Claim(first, "services/m")
    (held,) = store.entries("services/m/claims")
    assert store.read_json(held.path)["attempt"] == "second"


def test_a_service_whose_claim_was_taken_over_ends_and_writes_no_more(store: Store) -> None:
    claim, made = Claim(claiming(store, "first"), "services/m"), tasks(store)
    made.submit(FILM)
    running = made.next(0)
    assert running is not None
    store.delete("work/deploy.serve/first/beats/first.json")
    Claim(claiming(store, "second"), "services/m")
    with pytest.raises(InputError, match="another service has taken services/m over"):
        claim.watch(on_loss=made.disown, look_s=0.01)
    assert made.put_back(running, tries=0).state == "queued"
    assert store.read_json(f"services/m/tasks/{running.id}/task.json")["state"] == "running"
