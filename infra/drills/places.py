"""Places for drills: an object server in a process of its own, ports, and the environment that leads there."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parents[1]
BUCKET = "telecine"
ACCESS_KEY, SECRET_KEY, SESSION_TOKEN = (
    "AKIADRILL0KEY0000000",
    "drill/secret+key0123456789abcdefghijklmn",
    "drill-token",
)
START_TIMEOUT_S = 60.0


class ObjectServer:
    """Our S3 server in a process of its own, with one bucket; its data outlives it."""

    def __init__(self, folder: Path, *, port: int = 0) -> None:
        self.folder, self.port = folder, port or free_port()
        for name in ("objects", "new", "uploads"):
            (folder / BUCKET / name).mkdir(parents=True, exist_ok=True)
        self.process = self._start()

    def restart(self, pause_s: float = 0.0) -> None:
        """Kill it with -9 and start it again after a while."""
        self.kill()
        time.sleep(pause_s)
        self.process = self._start()

    def kill(self) -> None:
        """Kill it with -9."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def _start(self) -> "subprocess.Popen[bytes]":
        command = [
            sys.executable,
            str(HERE / "object_server.py"),
            "--folder",
            str(self.folder),
            "--port",
            str(self.port),
        ]
        process = subprocess.Popen(command, env=os.environ | s3_environment(self.port))
        await_port(self.port)
        return process


def s3_environment(port: int) -> dict[str, str]:
    """The variables by which a process finds an S3 store on this machine."""
    return {
        "AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        "AWS_SESSION_TOKEN": SESSION_TOKEN,
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_REGION": "us-east-1",
    }


@contextlib.contextmanager
def variables(environment: Mapping[str, str]) -> Iterator[None]:
    """This process's AWS_ variables as another process has them: a store reads them when it is made."""
    before = dict(os.environ)
    os.environ.update({name: value for name, value in environment.items() if name.startswith("AWS_")})
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def free_port() -> int:
    """A port that nobody listens to now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def await_port(port: int, timeout_s: float = START_TIMEOUT_S) -> None:
    """Wait until somebody listens."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise TimeoutError(f"nobody listens to port {port} after {timeout_s:.0f} s")
