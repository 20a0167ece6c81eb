"""A deployment of a drill's own: a copy of the code, a home, a store, a tracker, and ``telecine`` processes in it."""

import atexit
import dataclasses
import functools
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from places import REPOSITORY
from telecine import provenance, settings, tracking

SOURCES = (
    "platform/telecine",
    "components/telecine_components",
    "models/telecine_models",
    "infra/drills/toys/drill_toys",
)
CALL_TIMEOUT_S = 300.0
CODE_RETRY = 75
BOOT_ID = "/proc/sys/kernel/random/boot_id"


@dataclasses.dataclass(frozen=True)
class Ended:
    """How a process ended and what it said."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> dict[str, Any]:
        """The result document of ``telecine run``."""
        found: dict[str, Any] = json.loads(self.out)
        return found

    @property
    def last_line(self) -> str:
        """What a person sees last."""
        return (self.err.strip().splitlines() or [""])[-1]


class Deployment:
    """See the module.

    Args:
        folder: of its own.
        store_uri: where its work goes; ``<home>/store`` by default.
        environment: more variables for its processes, the way to an S3 store for example.
        groups: whether each process leads a group of its own, which can be killed as a whole.
    """

    def __init__(
        self,
        folder: Path,
        site: Path,
        *,
        store_uri: str = "",
        environment: dict[str, str] | None = None,
        groups: bool = False,
    ) -> None:
        self.home, self._groups = folder, groups
        self.home.mkdir(parents=True, exist_ok=True)
        self.store_uri = store_uri or f"file://{folder}/store"
        mine = {
            "TELECINE_HOME": str(self.home),
            "TELECINE_STORE": self.store_uri,
            "TELECINE_GIT_COMMIT": provenance.git_commit(),
            "PYTHONPATH": str(site),
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        }
        self.environment = _clean(os.environ) | mine | (environment or {})

    def prepare_tracker(self) -> None:
        """Give it MLflow's database as the first use leaves it."""
        (self.home / "mlflow").mkdir(exist_ok=True)
        shutil.copy(_empty_tracker(), self.home / "mlflow" / "mlflow.db")

    def start(self, *arguments: str, machine: str = "", **environment: str) -> "subprocess.Popen[str]":
        """Start ``telecine`` with these arguments; ``machine`` makes it seem another one of the same name."""
        command = [sys.executable, "-m", "telecine.cli", *arguments]
        if machine:
            (self.home / machine).write_text(machine)
            other = f'mount --bind "$0" {BOOT_ID} && exec "$@"'
            command = ["unshare", "--map-root-user", "--mount", "sh", "-c", other, str(self.home / machine), *command]
        return subprocess.Popen(
            command,
            env=self.environment | environment,
            cwd=self.home,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=self._groups,
        )

    def start_run(
        self, name: str, inputs: dict[str, Any], *arguments: str, machine: str = "", **environment: str
    ) -> "subprocess.Popen[str]":
        """Start ``telecine run`` on a component."""
        return self.start("run", name, "--inputs", json.dumps(inputs), *arguments, machine=machine, **environment)

    def run(self, name: str, inputs: dict[str, Any], *arguments: str, **environment: str) -> Ended:
        """Run a component to its end."""
        return ended(self.start_run(name, inputs, *arguments, **environment))

    def call(self, *arguments: str, **environment: str) -> Ended:
        """Run a ``telecine`` command to its end."""
        return ended(self.start(*arguments, **environment))

    def persist(
        self, name: str, inputs: dict[str, Any], *arguments: str, tries: int = 20, **environment: str
    ) -> tuple[Ended, int]:
        """Run a component, again for as long as it ends with 75, as Airflow does; how it ended and how many retries."""
        for retry in range(tries):
            done = self.run(name, inputs, *arguments, **environment)
            if done.code != CODE_RETRY or retry + 1 == tries:
                return done, retry
        raise ValueError(f"tries must be at least 1, got {tries}")

    def children(self, key: str) -> list[str]:
        """MLflow runs of the work with this key that were not deleted, straight from the database."""
        query = """select r.run_uuid from runs r join tags t on t.run_uuid = r.run_uuid
            where t.key = 'platform.key' and t.value = ? and r.lifecycle_stage = 'active'"""
        return [row[0] for row in self._query(query, key)]

    def doubled_steps(self, run_id: str) -> list[tuple[str, int]]:
        """Metrics of an MLflow run that have more than one value at a step."""
        query = "select key, step from metrics where run_uuid = ? group by key, step having count(*) > 1"
        return [(row[0], row[1]) for row in self._query(query, run_id)]

    def steps(self, run_id: str, metric: str) -> list[int]:
        """Steps at which an MLflow run has a value of a metric, with every double."""
        return [
            row[0]
            for row in self._query(
                "select step from metrics where run_uuid = ? and key = ? order by step", run_id, metric
            )
        ]

    def series(self, run_id: str, metric: str) -> list[tuple[int, float]]:
        """Steps and values of a metric of an MLflow run, with every double."""
        query = "select step, value from metrics where run_uuid = ? and key = ? order by step"
        return [(row[0], row[1]) for row in self._query(query, run_id, metric)]

    def untold(self, key: str, num_steps: int) -> list[str]:
        """What MLflow lacks of a toy training with this key, or has twice."""
        children = self.children(key)
        if len(children) != 1:
            return [f"the MLflow children are {children}"]
        steps = self.steps(children[0], "train/loss")
        return [] if steps == list(range(1, num_steps + 1)) else [f"MLflow has the steps {steps} of {num_steps}"]

    def _query(self, text: str, *values: str) -> list[tuple[Any, ...]]:
        path = self.home / "mlflow" / "mlflow.db"
        connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=60)
        try:
            return connection.execute(text, values).fetchall()
        finally:
            connection.close()


@functools.cache
def _empty_tracker() -> Path:
    """MLflow's database, made once for all drills of this process, because that takes seconds."""
    folder = Path(tempfile.mkdtemp(prefix="drill-mlflow-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    tracking.connect(settings.from_environment({"TELECINE_HOME": str(folder)}))
    return folder / "mlflow" / "mlflow.db"


def make_site(folder: Path) -> Path:
    """A copy of the code and of the toys: what somebody edits during a drill changes no address in it."""
    for source in SOURCES:
        shutil.copytree(REPOSITORY / source, folder / Path(source).name, ignore=shutil.ignore_patterns("__pycache__"))
    metadata = folder / "drill_toys-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: drill-toys\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[telecine.components]\ndrill_toys = drill_toys\n")
    return folder


def ended(process: "subprocess.Popen[str]", timeout_s: float = CALL_TIMEOUT_S) -> Ended:
    """Wait for a process; one that hangs is killed and counts as ended by signal 9."""
    try:
        out, err = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
    return Ended(process.returncode, out, err)


def _clean(environment: "os._Environ[str]") -> dict[str, str]:
    """The environment without anybody's own deployment and credentials."""
    mine = ("TELECINE_", "AWS_", "MLFLOW_", "AIRFLOW_", "PYTHONPATH")
    return {name: value for name, value in environment.items() if not name.startswith(mine)}
