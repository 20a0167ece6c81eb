"""Tasks and their films, kept in the store so that they outlive the service.

``services/<model>/tasks/<id>/task.json`` is written at every change of state, ``video.mp4`` before ``done``. A task
that was running when the service died is found as running by the next start, which runs it again.
"""

import dataclasses
import hashlib
import logging
import secrets
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from telecine.config import param
from telecine.errors import RetryLater
from telecine.storage import Store, to_json

log = logging.getLogger(__name__)

QUEUED, RUNNING, DONE, FAILED, CANCELLED = "queued", "running", "done", "failed", "cancelled"
FINISHED = (DONE, FAILED, CANCELLED)
MAX_TRIES = 3
"""A task that was running at this many deaths of the service is what kills it, and is not tried again."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Film:
    """Everything that the bytes of a film depend on beside the weights; a request names these."""

    prompt: str = param(help="Caption to film.")
    seed: int = param(0, ge=0, lt=2**63, help="Another seed is another film.")
    num_steps: int = param(ge=1, help="Steps of the solver.")
    guidance_scale: float = param(ge=0, le=30, help="Classifier-free guidance; 1 is none.")
    num_frames: int = param(ge=1, help="Frames.")
    height_px: int = param(ge=1, help="Height.")
    width_px: int = param(ge=1, help="Width.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task:
    """One request for a film. Times are seconds since the epoch; ``seconds`` is the time of sampling and encoding."""

    id: str
    film: Film
    state: str = QUEUED
    created: float
    started: float | None = None
    ended: float | None = None
    seconds: float | None = None
    tries: int = 0
    model: str = ""
    error: str | None = None
    idempotency_digest: str | None = None


class QueueFull(Exception):
    """As many tasks wait as may."""


class KeyReused(Exception):
    """An idempotency key came again with another request."""


class Disowned(Exception):
    """Another service has taken the tasks over: this one changes nothing any more."""

    def __init__(self) -> None:
        super().__init__("another service has taken over; ask that one")


class Tasks:
    """All tasks of one service; safe to use from several threads.

    Args:
        root: folder of the service in the store.
        keep: finished tasks that are kept; the oldest beyond are removed with their films.

    Every change raises :class:`Disowned` once another service has taken over.

    Attributes:
        disowned: whether it has.
        num_ended: tasks that ended since the start, by state. on_end: called with each of them.
    """

    def __init__(self, store: Store, root: str, *, max_queue: int, keep: int) -> None:
        self._store, self._root = store, root
        self._max_queue, self._keep = max_queue, keep
        self._changed = threading.Condition()
        self._tasks: dict[str, Task] = {}
        self._closed = self.disowned = False
        self.num_ended: Counter[str] = Counter()
        self.on_end: Callable[[Task], None] = lambda task: None
        for task in self._stored():
            self._tasks[task.id] = task
        for task in [task for task in self._tasks.values() if task.state == RUNNING]:
            self.put_back(task, tries=task.tries)

    def submit(self, film: Film, idempotency_key: str = "") -> tuple[Task, bool]:
        """A task for the film, and whether it is new: the same key and film give the task that stands.

        Raises:
            QueueFull: as many tasks wait as may.
            KeyReused: the key stands for another film.
        """
        digest = hashlib.sha256(idempotency_key.encode()).hexdigest() if idempotency_key else None
        with self._changed:
            standing = next((t for t in self._tasks.values() if digest and t.idempotency_digest == digest), None)
            if standing is not None:
                if standing.film != film:
                    raise KeyReused(standing.id)
                return standing, False
            if len(self._waiting()) >= self._max_queue:
                raise QueueFull
            task = self._put(Task(id=self._new_id(), film=film, created=time.time(), idempotency_digest=digest))
            self._changed.notify_all()
            try:
                self._remove_old()
            except (Disowned, RetryLater, OSError) as error:
                # the task is stored: told otherwise, its owner would ask twice
                log.warning("event=old_films_stay error=%r", str(error))
            return task, True

    def next(self, timeout_s: float) -> Task | None:
        """The task that waits longest, now running; None if none came in time or the queue is closed."""
        with self._changed:
            if not self._waiting():
                self._changed.wait(timeout_s)
            if self._closed or not self._waiting():
                return None
            task = self._waiting()[0]
            return self._put(dataclasses.replace(task, state=RUNNING, started=time.time(), tries=task.tries + 1))

    def finish(self, task: Task, data: bytes, *, seconds: float, model: str) -> Task:
        """Keep the film, then say that it is done."""
        self._check_own()
        self._store.write(self.video_path(task.id), data)
        return self._end(task, DONE, seconds=seconds, model=model)

    def fail(self, task: Task, error: str) -> Task:
        """Say why there is no film."""
        return self._end(task, FAILED, error=error)

    def cancel(self, task: Task) -> Task:
        """Say that nobody wants the film any more; what has already ended stays as it is."""
        return self._end(task, CANCELLED)

    def put_back(self, task: Task, *, tries: int) -> Task:
        """Let a running task wait again, at its old place; one that was running at too many deaths fails."""
        if tries >= MAX_TRIES:
            return self.fail(task, f"the service ended {tries} times while it made this film")
        with self._changed:
            now = self._tasks[task.id]
            if now.state != RUNNING:
                return now
            return self._put(dataclasses.replace(now, state=QUEUED, started=None, tries=tries))

    def close(self) -> None:
        """Hand out no more tasks, and wake whoever waits for one."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def disown(self) -> None:
        """Change no more: these tasks are another service's now."""
        self.disowned = True

    def get(self, name: str) -> Task | None:
        """One task."""
        with self._changed:
            return self._tasks.get(name)

    def recent(self, count: int) -> list[Task]:
        """The newest tasks, newest first."""
        with self._changed:
            return sorted(self._tasks.values(), key=lambda task: task.id, reverse=True)[:count]

    def waiting(self) -> list[Task]:
        """Queued tasks, in the order in which they will run."""
        with self._changed:
            return self._waiting()

    def counts(self) -> dict[str, int]:
        """Tasks by state."""
        with self._changed:
            states = [task.state for task in self._tasks.values()]
        return {state: states.count(state) for state in (QUEUED, RUNNING, *FINISHED)}

    def video_path(self, name: str) -> str:
        """Path of a film below the store's root."""
        return f"{self._root}/tasks/{name}/video.mp4"

    def _new_id(self) -> str:
        """Sorts after every other, also within a millisecond and after the clock was set back; not to be guessed."""
        newest = max((int(name.partition("-")[0]) for name in self._tasks), default=0)
        return f"{max(int(time.time() * 1000), newest + 1):013d}-{secrets.token_hex(6)}"

    def _end(self, task: Task, state: str, **more: Any) -> Task:
        with self._changed:
            now = self._tasks[task.id]
            if now.state in FINISHED:
                return now
            ended = self._put(dataclasses.replace(now, state=state, ended=time.time(), **more))
            self.num_ended[state] += 1
            self.on_end(ended)
            return ended

    def _put(self, task: Task) -> Task:
        self._check_own()
        self._store.write(f"{self._root}/tasks/{task.id}/task.json", to_json(dataclasses.asdict(task)))
        self._tasks[task.id] = task
        return task

    def _check_own(self) -> None:
        if self.disowned:
            raise Disowned

    def _waiting(self) -> list[Task]:
        return sorted((task for task in self._tasks.values() if task.state == QUEUED), key=lambda task: task.id)

    def _remove_old(self) -> None:
        self._check_own()
        finished = sorted(name for name, task in self._tasks.items() if task.state in FINISHED)
        for name in finished[: max(0, len(finished) - self._keep)]:
            self._store.delete_folder(f"{self._root}/tasks/{name}")
            del self._tasks[name]

    def _stored(self) -> Iterator[Task]:
        for name in self._store.folders(f"{self._root}/tasks"):
            values = self._store.read_json(f"{self._root}/tasks/{name}/task.json")
            if values is not None:
                yield Task(**{**values, "film": Film(**values["film"])})
