"""A real Airflow for each file: SQLite, this checkout's DAGs, no example."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from telecine import settings
from telecine.storage import Store
from telecine.work import runs

REPOSITORY = Path(__file__).parents[2]


class Airflow:
    """An Airflow of its own in a deployment of its own."""

    def __init__(self, here: settings.Settings) -> None:
        self.here = here
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        self.environment = (
            os.environ
            | here.environment()
            | {
                "PATH": path,
                "AIRFLOW_HOME": str(here.home / "airflow"),
                "AIRFLOW__CORE__DAGS_FOLDER": str(REPOSITORY / "dags"),
                "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            }
        )

    def call(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run one ``airflow`` command."""
        return subprocess.run(
            ["airflow", *arguments], env=self.environment | environment, capture_output=True, text=True, timeout=600
        )

    def test(
        self, dag: str, run: str, conf: dict[str, Any], *arguments: str, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a DAG to its end in one process; what is stored of it has the slug ``run``."""
        command = ("dags", "test", dag, *arguments, "--conf", json.dumps(conf))
        return self.call(*command, **environment, TELECINE_RUN=run)

    def pointers(self, run: str) -> dict[str, runs.Pointer]:
        """What each task of a run met."""
        return {pointer.task: pointer for pointer in runs.pointers(Store(self.here.store_uri), run)}

    def decisions(self, run: str) -> dict[str, str]:
        """What was decided for each task of a run."""
        return {task: pointer.decision for task, pointer in self.pointers(run).items()}


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory, empty_tracker: Path) -> Path:
    """Home of an Airflow as the deployment prepares it, with the DAGs in its database; made once."""
    here = _home(tmp_path_factory.mktemp("prepared"), empty_tracker)
    command = [sys.executable, "-P", "-c", "from deployment import laptop, prepare; prepare(laptop())"]
    path = {"PYTHONPATH": str(REPOSITORY / "infra" / "local")}
    subprocess.run(command, env=Airflow(here).environment | path, check=True, timeout=300)
    known = Airflow(here).call("dags", "reserialize")
    assert known.returncode == 0, known.stdout[-5000:] + known.stderr[-5000:]
    return here.home


@pytest.fixture(scope="module")
def airflow(tmp_path_factory: pytest.TempPathFactory, prepared: Path) -> Airflow:
    """Airflow over an empty store and tracker."""
    here = _home(tmp_path_factory.mktemp("airflow"), prepared / "mlflow" / "mlflow.db")
    (here.home / "airflow").mkdir()
    shutil.copy(prepared / "airflow" / "airflow.db", here.home / "airflow")
    return Airflow(here)


def _home(folder: Path, tracker: Path) -> settings.Settings:
    here = settings.from_environment({"TELECINE_HOME": str(folder)})
    (here.home / "mlflow").mkdir()
    shutil.copy(tracker, here.home / "mlflow" / "mlflow.db")
    return here
