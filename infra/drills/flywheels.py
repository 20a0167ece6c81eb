"""A whole deployment as services: the S3 server, MLflow behind a login, and each of Airflow's four processes."""

import contextlib
import json
import os
import secrets
import shutil
import signal
import subprocess
import time
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import psutil

from deployments import Deployment
from mlflow_server import MlflowServer
from places import (
    BUCKET,
    REPOSITORY,
    SECRET_KEY,
    SESSION_TOKEN,
    ObjectServer,
    await_port,
    free_port,
    s3_environment,
)
from telecine.component import POOLS

DAG_ID = "flywheel"
AIRFLOW = ("scheduler", "dag-processor", "api-server", "triggerer")
WORKER, IDLE = "airflow worker", "<idle>"
"""How Airflow titles the processes that supervise a task or run it."""
TIMEOUT_S = 180.0
KEPT = ("passwords.json", "basic_auth.ini")
"""Files by which Airflow and MLflow are told whom to let in."""


class Flywheel:
    """The services, one of which may be killed at any time and started again.

    Args:
        folder: of its own.
        site: a copy of the code; see :func:`deployments.make_site`.
    """

    def __init__(self, folder: Path, site: Path) -> None:
        folder.mkdir()
        self.folder = folder
        self.objects = ObjectServer(folder / "objects")
        self.airflow_port, self.password = free_port(), secrets.token_urlsafe(16)
        self.mlflow = MlflowServer(folder, folder / "home" / "mlflow", user="admin", password=self.password)
        environment = s3_environment(self.objects.port) | self.mlflow.environment
        self.place = Deployment(folder / "home", site, store_uri=f"s3://{BUCKET}/flywheel", environment=environment)
        self.environment = self.place.environment | self._airflow_environment()
        self.services: dict[str, subprocess.Popen[bytes]] = {}
        self._sessions: set[int] = set()

    @property
    def secrets(self) -> dict[str, str]:
        """What may be written down nowhere but in the files of :data:`KEPT`, by what it is."""
        return {
            "password": self.password,
            "signing key": self.environment["AIRFLOW__API_AUTH__JWT_SECRET"],
            "secret key": SECRET_KEY,
            "session token": SESSION_TOKEN,
        }

    def prepare(self) -> None:
        """Make both databases and start everything."""
        self.place.prepare_tracker()
        (self.folder / "dags").mkdir()
        shutil.copy(REPOSITORY / "dags" / f"{DAG_ID}.py", self.folder / "dags")
        pools = {name: {"slots": 2, "description": what, "include_deferred": False} for name, what in POOLS.items()}
        (self.folder / "pools.json").write_text(json.dumps(pools))
        (self.folder / "passwords.json").write_text(json.dumps({"admin": self.password}))
        for arguments in (["db", "migrate"], ["pools", "import", str(self.folder / "pools.json")]):
            subprocess.run(["airflow", *arguments], env=self.environment, check=True, capture_output=True)
        for name in ("mlflow", *AIRFLOW):
            self.start(name)
        for port in (self.mlflow.port, self.airflow_port):
            await_port(port, TIMEOUT_S)

    def start(self, name: str) -> None:
        """Start one service."""
        command = self.mlflow.command() if name == "mlflow" else ["airflow", name]
        with (self.folder / f"{name}.log").open("ab") as log:
            self.services[name] = subprocess.Popen(
                command, env=self.environment, cwd=self.folder, stdout=log, stderr=log, start_new_session=True
            )
        self._sessions.add(self.services[name].pid)

    def victims(self) -> dict[str, list[int]]:
        """Processes that may be killed now, by what they are."""
        found: dict[str, list[int]] = {name: [process.pid] for name, process in self.services.items()}
        found["s3"] = [self.objects.process.pid]
        ours = {process.pid: _title(process) for process in self.processes()}
        found["component"] = sorted(pid for pid, title in ours.items() if "telecine.cli run" in title)
        found["task"] = sorted(pid for pid, title in ours.items() if title.startswith(WORKER) and IDLE not in title)
        return {name: pids for name, pids in found.items() if pids}

    def kill(self, name: str, pid: int) -> bool:
        """Kill one process with -9, and start its service again, as whoever watches over it would.

        Returns whether it was still there.
        """
        try:
            os.kill(pid, signal.SIGKILL)
            killed = True
        except ProcessLookupError:
            killed = False
        if name == "s3":
            self.objects.restart(1.0)
        elif name in self.services:
            self.services[name].wait()
            if name in ("mlflow", "api-server"):  # what is left of it holds the port
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(pid, signal.SIGKILL)
            time.sleep(1.0)
            self.start(name)
        return killed

    def processes(self) -> list[psutil.Process]:
        """Every process of this deployment, whoever started it.

        Airflow's workers write their titles over their environment; they are known by their session.
        """
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, ProcessLookupError):
                in_session = os.getsid(process.pid) in self._sessions
                if in_session or process.environ().get("TELECINE_HOME") == str(self.place.home):
                    found.append(process)
        return found

    def close(self) -> None:
        """Kill everything, orphans included."""
        for _ in range(3):
            for process in self.processes():
                with contextlib.suppress(psutil.Error):
                    process.kill()
        self.objects.kill()

    def call(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """One request to Airflow's REST API, repeated while the server is away."""
        deadline = time.monotonic() + TIMEOUT_S
        while True:
            try:
                return self._send(method, f"api/v2/{path}", body, {"Authorization": f"Bearer {self._token()}"})
            except (OSError, HTTPException) as error:
                refused = isinstance(error, HTTPError) and error.code < 500
                if refused or time.monotonic() > deadline:
                    raise
                time.sleep(1.0)

    def _token(self) -> str:
        login = {"username": "admin", "password": self.password}
        return str(self._send("POST", "auth/token", login, {})["access_token"])

    def _send(self, method: str, path: str, body: dict[str, Any] | None, headers: dict[str, str]) -> dict[str, Any]:
        data = json.dumps(body).encode() if body is not None else None
        headers = {"Content-Type": "application/json", **headers}
        url = f"http://127.0.0.1:{self.airflow_port}/{path}"
        with urlopen(Request(url, data=data, method=method, headers=headers), timeout=30) as reply:
            found: dict[str, Any] = json.load(reply)
        return found

    def _airflow_environment(self) -> dict[str, str]:
        values = {
            "CORE__DAGS_FOLDER": str(self.folder / "dags"),
            "CORE__LOAD_EXAMPLES": "False",
            "CORE__EXECUTOR": "LocalExecutor",
            "CORE__PARALLELISM": "2",
            "CORE__EXECUTION_API_SERVER_URL": f"http://127.0.0.1:{self.airflow_port}/execution/",
            "CORE__SIMPLE_AUTH_MANAGER_USERS": "admin:admin",
            "CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(self.folder / "passwords.json"),
            "API__HOST": "127.0.0.1",
            "API__PORT": str(self.airflow_port),
            "API__BASE_URL": f"http://127.0.0.1:{self.airflow_port}",
            "API__WORKERS": "1",
            "API_AUTH__JWT_SECRET": secrets.token_urlsafe(48),
            # A task whose supervisor was killed is noticed in seconds here, in minutes by default.
            "SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "15",
            "SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "5",
            "SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "10",
            "USAGE_DATA_COLLECTION__ENABLED": "False",
        }
        mine = {f"AIRFLOW__{name}": value for name, value in values.items()}
        return {"AIRFLOW_HOME": str(self.folder / "airflow"), **self.mlflow.own_environment, **mine}


def _title(process: psutil.Process) -> str:
    """Command line of a process, empty when it is gone."""
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""
