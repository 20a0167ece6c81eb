"""Tasks of deploy.serve, the thread that films them and the claim on them, by themselves: also over a bad store."""

import asyncio
import time
from collections.abc import Callable, Collection
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import numpy as np
import pytest

from telecine.errors import InputError, RetryLater
from telecine.storage import Store
from telecine_components.deploy.serve.access import Access
from telecine_components.deploy.serve.app import Service, build
from telecine_components.deploy.serve.claim import Claim
from telecine_components.deploy.serve.limits import Limits
from telecine_components.deploy.serve.metrics import Metrics
from telecine_components.deploy.serve.sampler import Sampler, enlarged
from telecine_components.deploy.serve.tasks import MAX_TRIES, Disowned, Film, QueueFull, Tasks

FILM = Film(prompt="a square", seed=0, num_steps=1, guidance_scale=1.0, num_frames=2, height_px=8, width_px=8)

DEFAULTS = {"num_steps": 1, "guidance_scale": 1.0, "num_frames": 2, "height_px": 8, "width_px": 8}
TOKEN = "a token of the tests"  # noqa: S105
SLOW_S = 1.0


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
    sampler = Sampler(
        made, folder, tmp_path, lora_scale=1.0, fps=8.0, model="m", num_threads=1, shown_height_px=8, away_s=0.01
    )
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
    with pytest.raises(Disowned):
        made.put_back(running, tries=0)
    assert store.read_json(f"services/m/tasks/{running.id}/task.json")["state"] == "running"


def test_a_service_that_was_taken_over_accepts_writes_and_removes_nothing(store: Store) -> None:
    made = tasks(store, keep=1)
    for _ in range(3):
        made.submit(FILM)
        made.cancel(made.waiting()[0])
    made.submit(FILM)
    running = made.next(0)
    assert running is not None
    made.disown()
    before = {entry.path: entry.modified for entry in store.entries("services")}
    for change in (
        lambda: made.submit(FILM),
        lambda: made.cancel(running),
        lambda: made.finish(running, b"film", seconds=1.0, model="m"),
    ):
        with pytest.raises(Disowned):
            change()
    assert {entry.path: entry.modified for entry in store.entries("services")} == before
    assert made.num_ended["done"] == 0


# The routes, in this process


class Slow(Store):
    """A store that takes its time to write."""

    def write(self, path: str, data: bytes) -> None:
        """Wait, then write."""
        time.sleep(SLOW_S)
        super().write(path, data)


@pytest.fixture
def routes(trained: Any, tmp_path: Path) -> Callable[[Tasks], httpx.AsyncClient]:
    """A client, with the token, of a service over some tasks that nobody films."""
    folder = Path(trained.outputs.model_uri.removeprefix("file://"))

    def client(made: Tasks) -> httpx.AsyncClient:
        service = Service(
            model="m",
            version="1",
            tasks=made,
            sampler=Sampler(
                made, folder, tmp_path, lora_scale=1.0, fps=8.0, model="m", num_threads=1, shown_height_px=8
            ),
            limits=Limits(defaults=DEFAULTS, patch=(1, 1, 1), most={}, max_prompt_chars=99),
            access=Access(TOKEN),
            metrics=Metrics(made, model="m", version="1"),
            fetch=Path,
            ready=lambda: True,
        )
        headers = {"Authorization": f"Bearer {TOKEN}"}
        return httpx.AsyncClient(
            transport=httpx.ASGITransport(build(service)), base_url="http://localhost", headers=headers
        )

    return client


def test_a_store_that_is_slow_holds_up_no_other_request(
    routes: Callable[[Tasks], httpx.AsyncClient], tmp_path: Path
) -> None:
    async def ask() -> tuple[list[int], float]:
        client, slowest = routes(tasks(Slow(f"file://{tmp_path / 'store'}"))), 0.0
        posts = [asyncio.create_task(client.post("/v1/videos", json={"prompt": "a square"})) for _ in range(4)]
        while not all(post.done() for post in posts):
            began = time.monotonic()
            assert (await client.get("/healthz")).status_code == 200
            await asyncio.sleep(0.01)
            slowest = max(slowest, time.monotonic() - began)
        return [post.result().status_code for post in posts], slowest

    codes, slowest = asyncio.run(ask())
    assert codes == [202] * 4
    assert slowest < 0.8 * SLOW_S


def test_a_request_that_meets_a_service_just_taken_over_is_sent_away(
    routes: Callable[[Tasks], httpx.AsyncClient], store: Store
) -> None:
    made = tasks(store)
    waits = made.submit(FILM)[0]
    made.disown()

    async def ask() -> list[httpx.Response]:
        client = routes(made)
        return [
            await client.post("/v1/videos", json={"prompt": "a square"}),
            await client.delete(f"/v1/videos/{waits.id}"),
            await client.get("/readyz"),
        ]

    asked, cancelled, ready = asyncio.run(ask())
    assert [reply.status_code for reply in (asked, cancelled, ready)] == [503] * 3
    assert cancelled.json()["error"] == "another service has taken over; ask that one"
    assert "retry-after" in asked.headers and "retry-after" in cancelled.headers
    assert [task.id for task in tasks(store).waiting()] == [waits.id]
