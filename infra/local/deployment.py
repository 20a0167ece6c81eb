"""The embedded deployment: Airflow and MLflow on one machine, in one folder, without root and without a container."""

import contextlib
import dataclasses
import json
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import psutil

from telecine import settings, tracking
from telecine.errors import InputError, TelecineError
from telecine.settings import Settings

REPOSITORY = Path(__file__).resolve().parents[2]
PARALLELISM = 2
STOP_TIMEOUT_S = 30.0


@dataclasses.dataclass(frozen=True)
class Laptop:
    """The deployment's places and secrets."""

    here: Settings
    keys: dict[str, str]
    airflow_port: int
    mlflow_port: int

    @property
    def airflow_home(self) -> Path:
        """Airflow's own folder."""
        return self.here.home / "airflow"

    def environment(self) -> dict[str, str]:
        """What every process of the deployment gets; Airflow finds its sub-processes by PATH."""
        settings_of_airflow = {
            "CORE__DAGS_FOLDER": str(REPOSITORY / "dags"),
            "CORE__LOAD_EXAMPLES": "False",
            "CORE__EXECUTOR": "LocalExecutor",
            "CORE__PARALLELISM": str(PARALLELISM),
            "CORE__FERNET_KEY": self.keys["fernet"],
            "CORE__EXECUTION_API_SERVER_URL": f"http://127.0.0.1:{self.airflow_port}/execution/",
            "CORE__SIMPLE_AUTH_MANAGER_USERS": "admin:admin",
            "CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(self.airflow_home / "passwords.json"),
            "API__HOST": "127.0.0.1",
            "API__PORT": str(self.airflow_port),
            "API__BASE_URL": f"http://127.0.0.1:{self.airflow_port}",
            "API__WORKERS": "1",
            "API_AUTH__JWT_SECRET": self.keys["jwt"],
            "DAG_PROCESSOR__REFRESH_INTERVAL": "30",
            "USAGE_DATA_COLLECTION__ENABLED": "False",
        }
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
        mine = {"AIRFLOW_HOME": str(self.airflow_home), "PATH": path, "PYTHONUNBUFFERED": "1"}
        mine |= {f"AIRFLOW__{name}": value for name, value in settings_of_airflow.items()}
        return {**os.environ, **self.here.environment(), **mine}


def laptop() -> Laptop:
    """The deployment under TELECINE_HOME; its secrets are made once and readable by their owner alone."""
    here = settings.from_environment()
    here.home.mkdir(parents=True, exist_ok=True)
    path = here.home / "secrets.json"
    if not path.exists():
        fresh = here.home / f"secrets-{os.getpid()}.json"
        put(fresh, json.dumps(_new_keys()))
        with contextlib.suppress(FileExistsError):
            os.link(fresh, path)
        fresh.unlink()
    return Laptop(here, json.loads(path.read_text()), _port("AIRFLOW", 8080), _port("MLFLOW", 5000))


def _port(name: str, default: int) -> int:
    text = os.environ.get(f"TELECINE_{name}_PORT") or str(default)
    if not text.isdigit() or not 0 < int(text) < 65536:
        raise InputError(f"TELECINE_{name}_PORT must be a port from 1 to 65535, got {text!r}")
    return int(text)


def prepare(place: Laptop) -> None:
    """Migrate both databases, once per version, before any task can race to do it."""
    tracking.connect(place.here)
    stamp = place.airflow_home / "migrated"
    wanted = version("apache-airflow")
    place.airflow_home.mkdir(parents=True, exist_ok=True)
    put(place.airflow_home / "passwords.json", json.dumps({"admin": place.keys["airflow_password"]}))
    if stamp.exists() and stamp.read_text() == wanted:
        return
    print("preparing Airflow's database, once", flush=True)
    done = subprocess.run(["airflow", "db", "migrate"], env=place.environment(), capture_output=True, text=True)
    if done.returncode != 0:
        raise TelecineError(f"airflow db migrate failed:\n{done.stdout}{done.stderr}")
    stamp.write_text(wanted)


def guarded(command: Callable[[], int]) -> int:
    """Run a command; every error of ours is one line and its exit code, and a stop is no traceback."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return command()
    except TelecineError as error:
        print(f"telecine: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("\nstopped; the same command goes on where this one stopped", file=sys.stderr)
        return 130


def handle_of(pid: int) -> dict[str, float]:
    """A process by its number and its start: numbers are given away again, after a reboot at the latest."""
    return {"pid": pid, "started": psutil.Process(pid).create_time()}


def is_alive(handle: dict[str, float]) -> bool:
    """Whether that very process still runs."""
    try:
        process = psutil.Process(int(handle["pid"]))
        return bool(process.create_time() == handle["started"] and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def pid_of(place: Laptop, name: str) -> int | None:
    """Process number of one of the servers that ``make up`` started, if it runs."""
    path = place.here.home / f"{name}.pid"
    handle = json.loads(path.read_text()) if path.exists() else None
    return int(handle["pid"]) if handle is not None and is_alive(handle) else None


def put(path: Path, text: str) -> None:
    """Write a file for its owner's eyes, whole or not at all."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=path.name)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    os.replace(name, path)


def end_group(group: int, first: signal.Signals | signal.Handlers) -> None:
    """Send ``first`` to a process group, wait until it is empty, and kill what is left of it."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, int(first))
        deadline = time.monotonic() + STOP_TIMEOUT_S
        while time.monotonic() < deadline:
            time.sleep(0.2)
            os.killpg(group, 0)
        os.killpg(group, signal.SIGKILL)


def _new_keys() -> dict[str, str]:
    from cryptography.fernet import Fernet

    return {
        "fernet": Fernet.generate_key().decode(),
        "jwt": secrets.token_urlsafe(48),
        "flask": secrets.token_urlsafe(32),
        "airflow_password": secrets.token_urlsafe(12),
        "mlflow_password": secrets.token_urlsafe(12),
    }
