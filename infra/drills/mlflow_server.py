"""An MLflow server of a drill's own, behind a login, started as ``make up`` starts it."""

import contextlib
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from places import await_port, free_port

START_TIMEOUT_S = 180.0


class MlflowServer:
    """See the module.

    Args:
        folder: of its log and its configuration, which holds the password.
        data: of its databases and artifacts; ``mlflow.db`` in it may be there already.
        user: who may do everything.
    """

    def __init__(self, folder: Path, data: Path, *, user: str, password: str) -> None:
        self.port, self.user, self.password = free_port(), user, password
        self._folder, self._data = folder, data
        self._key = secrets.token_urlsafe(32)

    @property
    def environment(self) -> dict[str, str]:
        """The variables by which a client finds it and is let in."""
        return {
            "TELECINE_TRACKING_URI": f"http://127.0.0.1:{self.port}",
            "MLFLOW_TRACKING_USERNAME": self.user,
            "MLFLOW_TRACKING_PASSWORD": self.password,
        }

    @property
    def own_environment(self) -> dict[str, str]:
        """The variables that the server itself needs."""
        return {
            "MLFLOW_AUTH_CONFIG_PATH": str(self._folder / "basic_auth.ini"),
            "MLFLOW_FLASK_SERVER_SECRET_KEY": self._key,
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        }

    def command(self) -> list[str]:
        """Its command line; writes its configuration, which keeps the password out of it."""
        lines = [
            "[mlflow]",
            "default_permission = READ",
            f"admin_username = {self.user}",
            f"admin_password = {self.password}",
            f"database_uri = sqlite:///{self._data}/auth.db",
            "authorization_function = mlflow.server.auth:authenticate_request_basic_auth",
        ]
        (self._folder / "basic_auth.ini").write_text("\n".join(lines) + "\n")
        command = ["mlflow", "server", "--app-name", "basic-auth", "--host", "127.0.0.1"]
        command += ["--port", str(self.port), "--workers", "1"]
        command += ["--backend-store-uri", f"sqlite:///{self._data}/mlflow.db"]
        return [*command, "--artifacts-destination", f"file://{self._data}/artifacts"]

    @contextlib.contextmanager
    def running(self, environment: dict[str, str]) -> Iterator[None]:
        """The server at work, its output in ``mlflow.log``."""
        log = self._folder / "mlflow.log"
        with log.open("ab") as output:
            process = subprocess.Popen(
                self.command(),
                env=environment | self.own_environment,
                cwd=self._folder,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        try:
            await_port(self.port, START_TIMEOUT_S)
            yield
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
