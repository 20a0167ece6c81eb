"""The (arm, seed) runs of the studies: each a process of one thread, some at a time, each a child run in MLflow."""

import contextlib
import dataclasses
import multiprocessing
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from mlflow.entities import Metric, Param, RunTag

from progress import show
from telecine import provenance, tracking
from telecine.settings import Settings

if TYPE_CHECKING:
    from mlflow import MlflowClient

EXPERIMENT = "claims"
_BATCH = 1000


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a run gives back.

    Attributes:
        figures: the results.
        curves: (step, value) pairs by name.
        films: uint8 [F, H, W, 3] by name, for people to look at.
    """

    figures: Mapping[str, float]
    curves: Mapping[str, Sequence[tuple[int, float]]] = dataclasses.field(default_factory=dict)
    films: Mapping[str, npt.NDArray[np.uint8]] = dataclasses.field(default_factory=dict)


class Task(Protocol):
    """A frozen dataclass of plain values, which are logged as the run's parameters. Calling it is the run.

    It is called in another process, so it is a pure function of its fields; two equal tasks are carried out once.
    """

    @property
    def arm(self) -> str:
        """Which of the things compared this is."""

    @property
    def seed(self) -> int:
        """What it draws everything from."""

    def __call__(self) -> Outcome:
        """Train and measure."""

    def __hash__(self) -> int: ...


class Journal:
    """The experiment ``claims`` of the deployment's MLflow."""

    def __init__(self, client: "MlflowClient", experiment_id: str) -> None:
        self.client, self.experiment_id = client, experiment_id

    @classmethod
    def connected(cls, settings: Settings) -> "Journal":
        """Raises RetryLater or InputError as :func:`telecine.tracking.connect` does."""
        client = tracking.connect(settings)
        with tracking.translated(settings):
            found = client.get_experiment_by_name(EXPERIMENT)
            local = settings.tracker_is_local or settings.store_is_local
            folder = f"file://{settings.home}/mlflow/artifacts/{EXPERIMENT}" if local else None
            made = found.experiment_id if found else client.create_experiment(EXPERIMENT, artifact_location=folder)
        return cls(client, str(made))

    def begin(self, name: str, params: Mapping[str, Any], parent: str | None = None) -> str:
        """Make a run; returns its id."""
        tags = {"mlflow.runName": name, "mlflow.source.git.commit": provenance.git_commit()}
        tags |= {f"hw.{key}": value for key, value in provenance.hardware().items()}
        tags |= {"mlflow.parentRunId": parent} if parent else {}
        run_id = str(self.client.create_run(self.experiment_id, tags=tags).info.run_id)
        self.client.log_batch(run_id, params=[Param(key, str(value)) for key, value in params.items()])
        return run_id

    def end(self, run_id: str, *, succeeded: bool) -> None:
        """End a run."""
        tracking.close(self.client, run_id, succeeded=succeeded)

    def child(self, parent: str, task: Task, outcome: Outcome) -> None:
        """Log a task that was carried out."""
        run_id = self.begin(f"{task.arm}-{task.seed}", dataclasses.asdict(task), parent)  # type: ignore[call-overload]
        points = _points(outcome.figures)
        for name, curve in outcome.curves.items():
            for step, value in curve:
                points += _points({name: value}, step)
        for start in range(0, len(points), _BATCH):
            self.client.log_batch(run_id, metrics=points[start : start + _BATCH])
        self.end(run_id, succeeded=True)

    def finding(self, run_id: str, row: Mapping[str, Any], pictures: Sequence[Path]) -> None:
        """Log what a claim came to."""
        points = _points({key: row[key] for key in ("effect", "low", "high") if row[key] is not None})
        for seed, effect in zip(row["seeds"], row["effects"], strict=True):
            points += _points({"effect_of_seed": effect}, seed)
        tags = [RunTag(key, str(row[key])) for key in ("claim", "unit", "reproduced", "budget")]
        self.client.log_batch(run_id, metrics=points, tags=tags)
        for path in pictures:
            self.client.log_artifact(run_id, str(path))
        self.client.log_dict(run_id, dict(row), "row.json")


@dataclasses.dataclass(frozen=True)
class Noted:
    """A claim's run in MLflow."""

    journal: Journal
    run_id: str

    def finding(self, row: Mapping[str, Any], pictures: Sequence[Path]) -> None:
        """Log what the claim came to."""
        self.journal.finding(self.run_id, row, pictures)


class Runs:
    """Carries out tasks, each once; to be used as a context, and within :meth:`claim`.

    Args:
        num_workers: processes of one thread each; 0 runs everything in this one.
    """

    def __init__(self, num_workers: int, journal: Journal) -> None:
        self._journal, self._num_workers = journal, num_workers
        self._done: dict[Task, Outcome] = {}
        self._pool: ProcessPoolExecutor | None = None
        self._claim: tuple[str, str] | None = None
        self._logged: set[Task] = set()

    def __enter__(self) -> "Runs":
        if self._num_workers:
            context = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(self._num_workers, mp_context=context, initializer=_one_thread)
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool:
            self._pool.shutdown(cancel_futures=True)

    @contextlib.contextmanager
    def claim(self, name: str, params: Mapping[str, Any]) -> Iterator[Noted]:
        """The claim that the tasks to come belong to."""
        run_id = self._journal.begin(name, params)
        self._claim, self._logged = (name, run_id), set()
        try:
            yield Noted(self._journal, run_id)
        except BaseException:
            self._journal.end(run_id, succeeded=False)
            raise
        self._journal.end(run_id, succeeded=True)

    def __call__(self, tasks: Sequence[Task]) -> list[Outcome]:
        """Outcomes in the order of the tasks."""
        assert self._claim is not None
        different = list(dict.fromkeys(tasks))
        for task in different:
            if task in self._done:
                self._log(task)
        fresh = [task for task in different if task not in self._done]
        for task, outcome in show(self._claim[0], len(fresh), self._carried_out(fresh)):
            self._done[task] = outcome
            self._log(task)
        return [self._done[task] for task in tasks]

    def _log(self, task: Task) -> None:
        """Once below each claim."""
        assert self._claim is not None
        if task not in self._logged:
            self._logged.add(task)
            self._journal.child(self._claim[1], task, self._done[task])

    def _carried_out(self, tasks: Sequence[Task]) -> Iterator[tuple[Task, Outcome]]:
        if self._pool is None:
            yield from ((task, task()) for task in tasks)
            return
        futures = {self._pool.submit(task): task for task in tasks}
        for future in as_completed(futures):
            yield futures[future], future.result()


def _points(values: Mapping[str, float], step: int = 0) -> list[Metric]:
    moment_ms = int(time.time() * 1000)
    return [Metric(name, float(value), moment_ms, step) for name, value in values.items()]


def _one_thread() -> None:
    torch.set_num_threads(1)
