"""MLflow as a researcher wants to find it: one parent run per run, one child per piece of work.

Who makes an MLflow run is settled by a conditional create in the store, because searching for one and then
creating it makes several under concurrency. A child belongs to the work's address: a retry, a racer and a call
from a shell log into the same one. People who share a store need not share an MLflow, so a claim names its tracker.

MLflow being away does not stop work that needs it only to be watched; what has to reach it before a checkpoint or a
commit raises :class:`RetryLater`.
"""

import contextlib
import fcntl
import logging
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from telecine import provenance
from telecine.errors import InputError, RetryLater
from telecine.points import FLUSH_S, YIELD_S, Point, Points
from telecine.redaction import mask
from telecine.settings import Settings
from telecine.storage import Store, to_json
from telecine.work import runs
from telecine.work.address import Address

if TYPE_CHECKING:
    from mlflow import MlflowClient

log = logging.getLogger(__name__)

MAX_PARAM_CHARS = 6000
MAX_DATASET_DIGEST_CHARS = 36


def connect(settings: Settings) -> "MlflowClient":
    """A client of the deployment's MLflow; a local database is made and migrated by one process at a time.

    Raises:
        RetryLater: if a tracking server does not answer.
        InputError: if it refuses the credentials.
    """
    _quieten()
    from mlflow import MlflowClient

    with translated(settings), _database_lock(settings):  # the constructor migrates a database, too
        client = MlflowClient(settings.tracking_uri, registry_uri=settings.tracking_uri)
        client.search_experiments(max_results=1)
    return client


@contextlib.contextmanager
def translated(settings: Settings) -> Iterator[None]:
    """Turn MLflow's being away into :class:`RetryLater` and its refusal of credentials into :class:`InputError`."""
    try:
        yield
    except Exception as error:
        if not type(error).__module__.startswith(("mlflow.", "sqlalchemy.")):
            raise
        trouble, place = _trouble(error), f"MLflow at {settings.tracking_uri}"
        if trouble == "refused":
            cure = "check MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
            raise InputError(f"{place} refused the credentials; {cure}") from None
        if trouble == "away":
            raise RetryLater(f"{place} does not answer: {_first_line(error)}") from None
        raise


def _trouble(error: Exception) -> str | None:
    if type(error).__name__ == "OperationalError":  # SQLAlchemy's: a database that is locked, full or gone
        return "away"
    code = str(getattr(error, "error_code", ""))
    if code in ("UNAUTHENTICATED", "PERMISSION_DENIED", "CUSTOMER_UNAUTHORIZED"):
        return "refused"
    return "away" if code in ("INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE", "REQUEST_LIMIT_EXCEEDED") else None


class RunTracker:
    """One MLflow run being written.

    Metrics are appended to :class:`telecine.points.Points` and sent by its thread; everything else waits for MLflow.

    Args:
        leads: whether this attempt may send points now.
        rivals: other attempts at the same work that live.
        flush_s: seconds between two sendings, and so what a SIGKILL may lose of a curve.
    """

    def __init__(
        self,
        client: "MlflowClient",
        run_id: str,
        parent_run_id: str,
        *,
        leads: Callable[[], bool] = lambda: True,
        rivals: Callable[[], Set[str]] = frozenset,
        flush_s: float = FLUSH_S,
    ) -> None:
        self.client, self.run_id, self.parent_run_id = client, run_id, parent_run_id
        self._rivals = rivals
        self._points = Points(
            send=self._log, last_steps=self._last_steps, leads=leads, failures=failures, flush_s=flush_s
        )

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """Log values at an optimiser step (or any other integer axis); takes microseconds, whatever MLflow does."""
        self._points.add(values, step)

    def settle(self) -> list[Point]:
        """Send what is buffered, if this attempt leads, before a checkpoint says that it is not computed again.

        An attempt that does not lead keeps its points and returns them: who leads may be dead without its being known.
        """
        return self._points.settle()

    def resume(self, points: Iterable[Sequence[Any]]) -> None:
        """Take over the points that an attempt before this one could not send; what was sent is not sent again."""
        self._points.resume(points)

    def complete(self) -> None:
        """Send all that is left, because this attempt has won: once its rivals have yielded, or in spite of them."""
        deadline = time.monotonic() + YIELD_S
        while self._rivals() and time.monotonic() < deadline:
            time.sleep(0.5)
        self._points.settle_all()
        self.close()

    def flush(self) -> None:
        """Send what is buffered, if this attempt leads; what MLflow does not take now stays for the next time."""
        self._points.flush()

    def close(self) -> None:
        """End the thread that sends metrics; what it has not sent stays for :meth:`settle`."""
        self._points.close()

    def _log(self, points: Sequence[Point]) -> None:
        from mlflow.entities import Metric

        self.client.log_batch(self.run_id, metrics=[Metric(*point) for point in points])

    def _last_steps(self, names: Set[str]) -> dict[str, int]:
        there = self.client.get_run(self.run_id).data.metrics
        return {name: self._last_step(name) if name in there else -1 for name in names}

    def _last_step(self, name: str) -> int:
        return max((metric.step for metric in self.client.get_metric_history(self.run_id, name)), default=-1)

    def knows(self, run_id: str) -> bool:
        """Whether an MLflow run exists in this tracker; work of another person over the same store has it elsewhere."""
        return knows(self.client, run_id)

    def tags(self, tags: Mapping[str, str]) -> None:
        """Set tags."""
        from mlflow.entities import RunTag

        self.client.log_batch(self.run_id, tags=[RunTag(name, mask(str(value))) for name, value in tags.items()])

    def artifact(self, path: Path, folder: str = "") -> None:
        """Log a small file (a picture, a short clip, a report); large files stay in the store."""
        self.client.log_artifact(self.run_id, str(path), folder or None)

    def dataset(self, *, name: str, digest: str, source_uri: str, context: str, profile: Mapping[str, Any]) -> None:
        """Log an input dataset, for MLflow's lineage."""
        from mlflow.entities import Dataset, DatasetInput, InputTag

        dataset = Dataset(
            name=name,
            digest=digest[:MAX_DATASET_DIGEST_CHARS],
            source_type="telecine",
            source=to_json({"uri": source_uri}).decode(),
            profile=to_json(dict(profile)).decode(),
        )
        tags = [InputTag("mlflow.data.context", context)]
        self.client.log_inputs(self.run_id, [DatasetInput(dataset=dataset, tags=tags)])
        self.tags({"dataset.digest": digest})


def parent_run(client: "MlflowClient", settings: Settings, store: Store, run: str) -> str:
    """The MLflow run of a whole run; made by whoever wins ``runs/<run>/mlflow-<tracker>.json``."""
    origin = store.read_json(f"runs/{run}/run.json") or {}
    experiment = _experiment(client, settings, origin.get("dag_id") or "shell")
    tags = {
        "mlflow.runName": run,
        "platform.run_id": run,
        "platform.dag_id": origin.get("dag_id") or "",
        "platform.airflow_run_id": origin.get("airflow_run_id") or "",
        **_source_tags(),
    }
    return _claimed(client, store, runs.mlflow_claim(run, settings.tracker_id), experiment, tags)


def child_run(
    client: "MlflowClient",
    settings: Settings,
    store: Store,
    address: Address,
    *,
    run: str,
    task: str,
    attempt: str,
    leads: Callable[[], bool],
    rivals: Callable[[], Set[str]],
    params: Mapping[str, Any],
) -> RunTracker:
    """The MLflow run of one piece of work, below the parent of the run that met it first."""
    parent = parent_run(client, settings, store, run)
    experiment = client.get_run(parent).info.experiment_id
    commit = provenance.git_commit()[:8] or "no-git"
    tags = {
        "mlflow.runName": f"{address.component}-{commit}-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}",
        "mlflow.parentRunId": parent,
        "platform.run_id": run,
        "platform.task_id": task,
        "platform.component": address.component,
        "platform.key": address.key,
        "config.digest": address.key,
        **_origin_tags(store, run),
        **_source_tags(),
        **{f"hw.{name}": value for name, value in provenance.hardware().items()},
    }
    run_id = _claimed(client, store, f"{address.prefix}/mlflow-{settings.tracker_id}.json", experiment, tags)
    tracker = RunTracker(client, run_id, parent, leads=leads, rivals=rivals)
    client.update_run(run_id, status="RUNNING")
    tracker.tags({"platform.attempt": attempt, "platform.try": os.environ.get("TELECINE_TRY", "1")})
    _log_params(client, run_id, params)
    return tracker


def close(client: "MlflowClient", run_id: str, *, succeeded: bool) -> None:
    """End an MLflow run."""
    client.set_terminated(run_id, "FINISHED" if succeeded else "FAILED")


def finish(client: "MlflowClient", run_id: str, outputs: Mapping[str, Any] | None = None) -> None:
    """Give a run its figures and its end whose work is committed, where its attempt did not live to do so.

    Nothing to do for a run of somebody else's MLflow: work is shared over the store, trackers need not be.
    """
    if not knows(client, run_id) or client.get_run(run_id).info.status == "FINISHED":
        return
    for name, value in numbers(outputs or {}, prefix="output/").items():
        client.log_metric(run_id, name, value, step=0)
    client.set_terminated(run_id, "FINISHED")


def numbers(outputs: Mapping[str, Any], *, prefix: str) -> dict[str, float]:
    """The outputs that are numbers, as metrics."""
    return {f"{prefix}{name}": float(v) for name, v in outputs.items() if type(v) in (int, float)}


def _claimed(client: "MlflowClient", store: Store, path: str, experiment: str, tags: Mapping[str, str]) -> str:
    """The run that the claim at ``path`` names; a new one where there is no claim, or its run is gone from MLflow."""
    while (standing := store.read_json(path)) is None or not knows(client, standing["run_id"]):
        if standing is not None and store.read_json(path) == standing:  # else somebody has already replaced it
            store.delete(path)
        made = client.create_run(experiment, tags=dict(tags)).info.run_id
        try:
            won = store.create(path, to_json({"run_id": made})) or store.read_json(path) == {"run_id": made}
        except BaseException:
            client.delete_run(made)  # nobody would ever end it; a claim that was stored all the same is replaced later
            raise
        if not won:
            client.delete_run(made)
    return str(standing["run_id"])


def knows(client: "MlflowClient", run_id: str) -> bool:
    """Whether a run exists here: a person may have deleted it, or it belongs to another tracker over the same store."""
    from mlflow.exceptions import MlflowException

    try:
        return bool(client.get_run(run_id).info.lifecycle_stage == "active")
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return False


def _experiment(client: "MlflowClient", settings: Settings, name: str) -> str:
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is not None:
        return str(found.experiment_id)
    # Beside a local store the artifacts lie on the disk as well: a model enters them by hardlink.
    local = settings.tracker_is_local or settings.store_is_local
    folder = f"file://{settings.home}/mlflow/artifacts/{name}" if local else None
    try:
        return str(client.create_experiment(name, artifact_location=folder))
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
        standing = client.get_experiment_by_name(name)
        assert standing is not None
        return str(standing.experiment_id)


def _log_params(client: "MlflowClient", run_id: str, params: Mapping[str, Any]) -> None:
    from mlflow.entities import Param

    known = client.get_run(run_id).data.params
    fresh = [Param(name, mask(str(value))[:MAX_PARAM_CHARS]) for name, value in params.items() if name not in known]
    if fresh:
        client.log_batch(run_id, params=fresh)


def _origin_tags(store: Store, run: str) -> dict[str, str]:
    origin = store.read_json(f"runs/{run}/run.json") or {}
    return {f"platform.{name}": str(origin[name]) for name in ("dag_id", "airflow_run_id") if origin.get(name)}


def _source_tags() -> dict[str, str]:
    commit = provenance.git_commit()
    return {"mlflow.source.git.commit": commit, "mlflow.source.name": "telecine", "mlflow.source.type": "PROJECT"}


@contextlib.contextmanager
def _database_lock(settings: Settings) -> Iterator[None]:
    """Hold the right to make or migrate the local database: its first use by two processes at once crashes."""
    parts = urlsplit(settings.tracking_uri)
    if parts.scheme != "sqlite":
        yield
        return
    folder = Path(parts.path[1:] if parts.path.startswith("//") else parts.path).parent
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "migration.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _quieten() -> None:
    for name in ("alembic", "mlflow.store.tracking"):
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)  # the traceback of what it raises as well
    logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)  # our own line says that it is away
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")


def failures() -> tuple[type[Exception], ...]:
    """What is raised when MLflow, or the store that says who leads, is away."""
    from mlflow.exceptions import MlflowException

    # MLflow imports SQLAlchemy where the tracker is a database; a client of a server need not even have it.
    database = sys.modules.get("sqlalchemy.exc")
    return (MlflowException, OSError, RetryLater, *([database.SQLAlchemyError] if database else []))


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
