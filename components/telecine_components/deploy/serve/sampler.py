"""The one thread that samples: takes a task, makes its film, says how far it is."""

import contextlib
import dataclasses
import logging
import math
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np

from telecine.errors import RetryLater
from telecine_components.deploy.serve.tasks import RUNNING, Disowned, Film, Task, Tasks
from telecine_components.media.encode import write_mp4
from telecine_components.training.determinism import deterministic
from telecine_components.training.pipelines import load_pipeline

log = logging.getLogger(__name__)

Kept = TypeVar("Kept")

IDLE_S = 1.0
AWAY_S = 2.0
"""Pause between two calls of a store that does not answer."""


class Interrupted(Exception):
    """Somebody asked for the film to stop before it was done."""


@dataclasses.dataclass
class Progress:
    """The running film: evaluations begun of all, and when the first began."""

    task_id: str = ""
    done: int = 0
    total: int = 0
    started: float = 0.0


class Sampler:
    """Runs tasks one after another.

    Args:
        folder: pipeline folder. fps: frame rate of its films.
        lora_scale: of a LoRA in the folder, as :func:`load_pipeline` takes it.
        model: name and version, for the record of a task.
    """

    def __init__(
        self,
        tasks: Tasks,
        folder: Path,
        scratch: Path,
        *,
        lora_scale: float,
        fps: float,
        model: str,
        num_threads: int,
        shown_height_px: int,
        away_s: float = AWAY_S,
    ) -> None:
        self._tasks, self._scratch, self._model = tasks, scratch, model
        self._fps, self._num_threads, self._shown_height_px = fps, num_threads, shown_height_px
        with deterministic(num_threads):
            self._pipeline = load_pipeline(folder, lora_scale=lora_scale)
        self.patch: tuple[int, int, int] = tuple(self._pipeline.transformer.config.patch_size)
        self.progress = Progress()
        self._stop, self._away_s = threading.Event(), away_s
        self._seconds_per_cost: float | None = None

    def run(self) -> None:
        """Work until :meth:`stop` or until the tasks are another service's; what no film can cause ends the service."""
        with contextlib.suppress(Disowned):
            while not self._stop.is_set():
                task = self._kept(lambda: self._tasks.next(IDLE_S))
                if task is not None:
                    self._work(task)

    def stop(self) -> None:
        """Put the running film back, and return from :meth:`run`."""
        self._stop.set()
        self._tasks.close()

    def eta_s(self, task: Task) -> float | None:
        """Seconds until a waiting or running task is done, at the speed seen so far; None before any was seen."""
        if self._seconds_per_cost is None:
            return None
        ahead = sum(cost(other.film) for other in self._tasks.waiting() if other.id < task.id)
        running = self._tasks.get(self.progress.task_id)
        left = 0.0
        if running is not None and self.progress.total:
            left = cost(running.film) * (1 - self.progress.done / self.progress.total)
        own = 0.0 if task.id == self.progress.task_id else cost(task.film)
        return (left + ahead + own) * self._seconds_per_cost

    def _work(self, task: Task) -> None:
        self.progress = Progress(task.id, 0, task.film.num_steps, time.monotonic())
        began = time.monotonic()
        try:
            data = self._make(task.film)
        except Interrupted:
            # to be stopped is no fault of the task
            ended = self._kept(lambda: self._tasks.put_back(task, tries=task.tries - 1))
        except (ValueError, RuntimeError) as error:  # what torch and the pipeline raise for a film they cannot make
            log.warning("event=film_failed task=%s error=%r", task.id, f"{type(error).__name__}: {error}")
            reason = f"the model could not make this film: {error}"
            ended = self._kept(lambda: self._tasks.fail(task, reason))
        else:
            seconds = round(time.monotonic() - began, 3)
            ended = self._kept(lambda: self._tasks.finish(task, data, seconds=seconds, model=self._model))
        finally:
            self.progress = Progress()
        log.info("event=film task=%s state=%s seconds=%.2f", task.id, ended.state, time.monotonic() - began)

    def _kept(self, change: Callable[[], Kept]) -> Kept:
        """Change the tasks; where the store does not answer, again until it does or the service is stopped."""
        while True:
            try:
                return change()
            except RetryLater as away:
                log.warning("event=store_away error=%r", str(away))
                if self._stop.wait(self._away_s):
                    raise

    def _make(self, film: Film) -> bytes:
        with deterministic(self._num_threads):
            frames = self._pipeline(
                film.prompt,
                num_frames=film.num_frames,
                height_px=film.height_px,
                width_px=film.width_px,
                num_steps=film.num_steps,
                guidance_scale=film.guidance_scale,
                seed=film.seed,
                on_evaluation=self._watch,
            )[0]
        self._learn(film)
        path = self._scratch / "film.mp4"
        write_mp4(path, enlarged(frames, self._shown_height_px), self._fps)
        return path.read_bytes()

    def _watch(self, done: int, total: int) -> None:
        """Called before each evaluation of the model; what is raised here ends the film."""
        task = self._tasks.get(self.progress.task_id)
        if self._stop.is_set() or task is None or task.state != RUNNING:
            raise Interrupted
        self.progress.done, self.progress.total = done + 1, total

    def _learn(self, film: Film) -> None:
        seen = (time.monotonic() - self.progress.started) / cost(film)
        self._seconds_per_cost = seen if self._seconds_per_cost is None else (self._seconds_per_cost + seen) / 2


def cost(film: Film) -> float:
    """Work of a film, in pixels times evaluations."""
    return float(film.num_steps * film.num_frames * film.height_px * film.width_px)


def enlarged(frames: np.ndarray, height_px: int) -> np.ndarray:
    """Repeat the pixels of uint8 [F, H, W, 3] until the film is at least ``height_px`` high."""
    factor = max(1, math.ceil(height_px / frames.shape[1]))
    return frames.repeat(factor, axis=1).repeat(factor, axis=2)
