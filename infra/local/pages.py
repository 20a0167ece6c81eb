"""``make up`` and ``make down``: Airflow's and MLflow's pages in the background, on loopback, behind logins."""

import argparse
import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

from deployment import Laptop, end_group, guarded, handle_of, laptop, pid_of, prepare, put
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
    logs = place.here.home / "logs"
    for name, command, environment in _services(place):
        if pid_of(place, name) is not None:
            continue
        _check_free(name, place.airflow_port if name == "airflow" else place.mlflow_port)
        logs.mkdir(exist_ok=True)
        with (logs / f"{name}.log").open("a") as log:
            process = subprocess.Popen(
                command, env=environment, cwd=place.here.home, stdout=log, stderr=log, start_new_session=True
            )
        put(place.here.home / f"{name}.pid", json.dumps(handle_of(process.pid)))
    for name, port in (("airflow", place.airflow_port), ("mlflow", place.mlflow_port)):
        _await_port(place, name, port)
    print(f"Airflow  http://127.0.0.1:{place.airflow_port}  admin  {place.keys['airflow_password']}")
    print(f"MLflow   http://127.0.0.1:{place.mlflow_port}  admin  {place.keys['mlflow_password']}")
    return 0


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


def _services(place: Laptop) -> Iterator[tuple[str, list[str], dict[str, str]]]:
    environment = place.environment()
    yield "airflow", ["airflow", "standalone"], environment
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
    command += ["--workers", "1", "--backend-store-uri", place.here.tracking_uri]
    command += ["--artifacts-destination", f"file://{folder}/artifacts"]
    keys = {"MLFLOW_AUTH_CONFIG_PATH": str(ini), "MLFLOW_FLASK_SERVER_SECRET_KEY": place.keys["flask"]}
    keys["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"
    yield "mlflow", command, environment | keys


def _check_free(name: str, port: int) -> None:
    """Refuse a port that somebody else serves: the page behind it would not be ours."""
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", port)) == 0:
            raise InputError(f"port {port} is in use; set TELECINE_{name.upper()}_PORT to a free one")


def _await_port(place: Laptop, name: str, port: int) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        if pid_of(place, name) is None:
            break
        time.sleep(0.5)
    raise TelecineError(f"{name} did not start; see {place.here.home / 'logs' / f'{name}.log'}")


if __name__ == "__main__":
    sys.exit(main())
