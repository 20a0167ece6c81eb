"""The embedded deployment's servers: whose tracker it is, and which port a running one serves."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

LOCAL = Path(__file__).parents[2] / "infra" / "local"


def ask(program: str, home: Path, **variables: str) -> "subprocess.CompletedProcess[str]":
    """Run a program that may import the deployment, in a home of its own."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("TELECINE_", "MLFLOW_"))}
    environment = kept | {"TELECINE_HOME": str(home), "PYTHONPATH": str(LOCAL)} | variables
    command = [sys.executable, "-c", program]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, [False, None]),
        ({"TELECINE_RUNNER": "container"}, [True, "admin"]),
        ({"TELECINE_TRACKING_URI": "http://127.0.0.1:5000"}, [False, "a-person"]),
        ({"TELECINE_TRACKING_URI": "http://127.0.0.1:5000", "TELECINE_RUNNER": "container"}, [False, "a-person"]),
    ],
)
def test_a_tracker_that_a_person_names_keeps_its_login(
    variables: dict[str, str], expected: list[Any], tmp_path: Path
) -> None:
    login = {"MLFLOW_TRACKING_USERNAME": "a-person"} if "TELECINE_TRACKING_URI" in variables else {}
    program = """
import json
from deployment import laptop
place = laptop()
print(json.dumps([place.needs_server, place.environment().get("MLFLOW_TRACKING_USERNAME")]))
"""
    told = ask(program, tmp_path, **variables, **login)
    assert json.loads(told.stdout or "null") == expected, told.stderr


@pytest.mark.parametrize(("port", "refused"), [(5000, False), (5001, True)])
def test_a_server_that_runs_on_another_port_is_named(port: int, refused: bool, tmp_path: Path) -> None:
    handle = {"pid": os.getpid(), "started": psutil.Process().create_time(), "port": 5000}
    (tmp_path / "mlflow.pid").write_text(json.dumps(handle))
    program = "import deployment, pages; deployment.guarded(lambda: pages._start(deployment.laptop(), 'mlflow') or 0)"
    told = ask(program, tmp_path, TELECINE_MLFLOW_PORT=str(port))
    assert ("mlflow of this home runs on port 5000, not on 5001; make down first" in told.stderr) is refused, told
