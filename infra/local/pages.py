"""``make up`` and ``make down``: Airflow's and MLflow's pages in the background, on loopback, behind logins."""

import argparse
import fcntl
import json
import signal
import socket
import subprocess
import sys
import time

from deployment import Laptop, end_group, guarded, handle_of, laptop, pid_of, prepare, put, server
from telecine.errors import InputError, TelecineError

START_TIMEOUT_S = 180.0


def main() -> int:
    """Parse and dispatch."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("command", choices=("up", "down"))
    return guarded({"up": up, "down": down}[parser.parse_args().command])


def up() -> int:
    """Start Airflow's and MLflow's servers in the background and wait until both answer."""
    place = laptop()
    prepare(place)
    for name in ("airflow", "mlflow"):
        _start(place, name)
    for name in ("airflow", "mlflow"):
        _await_port(place, name)
    print(f"Airflow  http://127.0.0.1:{place.airflow_port}  admin  {place.keys['airflow_password']}")
    print(f"MLflow   {place.mlflow_page}  admin  {place.keys['mlflow_password']}")
    return 0


def serve_tracker(place: Laptop) -> None:
    """Start MLflow's server alone, unless it runs, and wait until it answers; ``make down`` stops it."""
    with (place.here.home / "mlflow" / "starting.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        _start(place, "mlflow")
    _await_port(place, "mlflow")


def down() -> int:
    """Stop both servers and everything they started."""
    place = laptop()
    for name in ("airflow", "mlflow"):
        pid = pid_of(place, name)
        if pid is not None:
            end_group(pid, signal.SIGTERM)
            print(f"stopped {name}")
        (place.here.home / f"{name}.pid").unlink(missing_ok=True)
    return 0


def _start(place: Laptop, name: str) -> None:
    """Start one of the servers in the background, unless it runs."""
    port, running = _port(place, name), server(place, name)
    if running is not None:
        if running.get("port", port) != port:
            raise InputError(f"{name} of this home runs on port {running['port']}, not on {port}; make down first")
        return
    check_free(name, port)
    command, environment = (["airflow", "standalone"], {}) if name == "airflow" else _mlflow(place)
    logs = place.here.home / "logs"
    logs.mkdir(exist_ok=True)
    with (logs / f"{name}.log").open("a") as log:
        process = subprocess.Popen(
            command,
            env=place.environment() | environment,
            cwd=place.here.home,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    put(place.here.home / f"{name}.pid", json.dumps(handle_of(process.pid) | {"port": port}))


def _mlflow(place: Laptop) -> tuple[list[str], dict[str, str]]:
    """Command and environment of MLflow's server; the password stands in a file of its owner's alone."""
    folder = place.here.home / "mlflow"
    ini = folder / "basic_auth.ini"
    lines = [
        "[mlflow]",
        "default_permission = READ",
        "admin_username = admin",
        f"admin_password = {place.keys['mlflow_password']}",
        f"database_uri = sqlite:///{folder}/auth.db",
        "authorization_function = mlflow.server.auth:authenticate_request_basic_auth",
    ]
    put(ini, "\n".join(lines) + "\n")
    command = ["mlflow", "server", "--app-name", "basic-auth", "--host", "127.0.0.1", "--port", str(place.mlflow_port)]
    command += ["--workers", "1", "--backend-store-uri", place.tracker.tracking_uri]
    command += ["--artifacts-destination", f"file://{folder}/artifacts"]
    keys = {"MLFLOW_AUTH_CONFIG_PATH": str(ini), "MLFLOW_FLASK_SERVER_SECRET_KEY": place.keys["flask"]}
    return command, keys | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}


def _port(place: Laptop, name: str) -> int:
    return place.airflow_port if name == "airflow" else place.mlflow_port


def check_free(name: str, port: int) -> None:
    """Refuse a port that somebody else serves: the page behind it would not be ours."""
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", port)) == 0:
            raise InputError(f"port {port} is in use; set TELECINE_{name.upper()}_PORT to a free one")


def _await_port(place: Laptop, name: str) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", _port(place, name))) == 0:
                return
        if pid_of(place, name) is None:
            break
        time.sleep(0.5)
    raise TelecineError(f"{name} did not start; see {place.here.home / 'logs' / f'{name}.log'}")


if __name__ == "__main__":
    sys.exit(main())
