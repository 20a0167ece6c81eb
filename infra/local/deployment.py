"""The embedded deployment: Airflow and MLflow on one machine, in one folder, without root and without a container."""

import contextlib
import dataclasses
import fcntl
import json
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import version
from pathlib import Path

import psutil

from telecine import buckets, settings, tracking
from telecine.component import POOLS
from telecine.errors import TelecineError
from telecine.settings import Settings

REPOSITORY = Path(__file__).resolve().parents[2]
PARALLELISM = 2
PORTS = (("TELECINE_AIRFLOW_PORT", 8080), ("TELECINE_MLFLOW_PORT", 5000))
STOP_TIMEOUT_S = 30.0
MIGRATION = """
import gc
import sys
from airflow.cli.cli_parser import get_parser

for command in (["db", "migrate"], ["pools", "import", sys.argv[1]]):
    parsed = get_parser().parse_args(command)
    parsed.func(parsed)
gc.freeze()
"""
"""Two commands of Airflow in one process: to import it takes longer than the second of them, and so does its exit
with a last collection that walks all of it.
"""


@dataclasses.dataclass(frozen=True)
class Laptop:
    """The deployment's places and secrets.

    Attributes:
        needs_server: every task reaches MLflow through this deployment's own server rather than in its database.
    """

    here: Settings
    keys: dict[str, str]
    airflow_port: int
    mlflow_port: int
    needs_server: bool

    @property
    def airflow_home(self) -> Path:
        """Airflow's own folder."""
        return self.here.home / "airflow"

    @property
    def mlflow_page(self) -> str:
        """Where this deployment's own MLflow server listens, when it runs."""
        return f"http://127.0.0.1:{self.mlflow_port}"

    @property
    def tracker(self) -> Settings:
        """The settings of whoever makes MLflow's database, or serves it."""
        if not self.needs_server:
            return self.here
        database = f"sqlite:///{self.here.home}/mlflow/mlflow.db"
        return dataclasses.replace(self.here, tracking_uri=database, runner="process")

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
            "DATABASE__SQL_ALCHEMY_CONN": database_uri(self.airflow_home / "airflow.db"),
            "USAGE_DATA_COLLECTION__ENABLED": "False",
        }
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
        mine = {"AIRFLOW_HOME": str(self.airflow_home), "PATH": path, "PYTHONUNBUFFERED": "1"}
        mine |= {"TELECINE_MLFLOW_PAGE": self.mlflow_page}
        if self.needs_server:
            mine |= {"MLFLOW_TRACKING_USERNAME": "admin", "MLFLOW_TRACKING_PASSWORD": self.keys["mlflow_password"]}
        mine |= {f"AIRFLOW__{name}": value for name, value in settings_of_airflow.items()}
        return {**os.environ, **self.here.environment(), **mine}


def database_uri(path: Path) -> str:
    """A database of Airflow's: its processes wait a minute for each other's writes, not SQLAlchemy's five seconds."""
    return f"sqlite:///{path}?timeout=60"


def laptop() -> Laptop:
    """The deployment under TELECINE_HOME; its secrets are made once and readable by their owner alone."""
    airflow_port, mlflow_port = (settings.port(os.environ, *each) for each in PORTS)
    own = _with_own_server(os.environ, mlflow_port)
    here = settings.from_environment({**os.environ, **own})
    here.home.mkdir(parents=True, exist_ok=True)
    path = here.home / "secrets.json"
    if not path.exists():
        fresh = here.home / f"secrets-{os.getpid()}.json"
        put(fresh, json.dumps(_new_keys()))
        with contextlib.suppress(FileExistsError):
            os.link(fresh, path)
        fresh.unlink()
    return Laptop(here, json.loads(path.read_text()), airflow_port, mlflow_port, needs_server=bool(own))


def _with_own_server(environment: Mapping[str, str], port: int) -> dict[str, str]:
    """Where this deployment's own MLflow server is, if tasks need it; a tracker that a person named is not ours.

    Components in containers cannot open MLflow's database.
    """
    named = environment.get("TELECINE_RUNNER") != "container" or environment.get("TELECINE_TRACKING_URI")
    return {} if named else {"TELECINE_TRACKING_URI": f"http://127.0.0.1:{port}"}


def prepare(place: Laptop) -> None:
    """Make the store's bucket, and both databases once per version, before any task can race to do it."""
    if not place.here.store_is_local:
        buckets.prepare(place.here.store_uri)
    place.airflow_home.mkdir(parents=True, exist_ok=True)
    with (place.airflow_home / "preparing.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with _preparing_airflow(place):
            tracking.connect(place.tracker)


@contextlib.contextmanager
def _preparing_airflow(place: Laptop) -> Iterator[None]:
    """Make Airflow's database and pools in a process of its own, beside what is done meanwhile."""
    stamp = place.airflow_home / "prepared"
    wanted = f"apache-airflow {version('apache-airflow')}, pools {', '.join(POOLS)}"
    put(place.airflow_home / "passwords.json", json.dumps({"admin": place.keys["airflow_password"]}))
    if stamp.exists() and stamp.read_text() == wanted:
        yield
        return
    print("preparing the databases of Airflow and MLflow, once", flush=True)
    slots = {"telecine_light": PARALLELISM, "telecine_heavy": 1}
    pools = {
        name: {"slots": slots[name], "description": what, "include_deferred": False} for name, what in POOLS.items()
    }
    put(place.airflow_home / "pools.json", json.dumps(pools))
    command = [sys.executable, "-c", MIGRATION, str(place.airflow_home / "pools.json")]
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(command, env=place.environment(), stdout=said, stderr=said)
        try:
            yield
        finally:
            process.wait()  # a migration is not broken off
        if process.returncode != 0:
            said.seek(0)
            raise TelecineError(f"Airflow's database could not be prepared:\n{said.read()}")
    put(stamp, wanted)


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


def server(place: Laptop, name: str) -> dict[str, float] | None:
    """One of the servers that ``make up`` started, if it runs: its process, and the ``port`` it serves."""
    path = place.here.home / f"{name}.pid"
    handle: dict[str, float] | None = json.loads(path.read_text()) if path.exists() else None
    return handle if handle is not None and is_alive(handle) else None


def pid_of(place: Laptop, name: str) -> int | None:
    """Process number of one of those servers, if it runs."""
    found = server(place, name)
    return int(found["pid"]) if found else None


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
        "serve_token": secrets.token_urlsafe(24),
    }
