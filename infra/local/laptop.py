"""The embedded deployment: Airflow and MLflow on one machine, in one folder, without root and without a container.

    python infra/local/laptop.py demo     run the flywheel to its end; VIDEOS and CONF in the environment
    python infra/local/laptop.py up       start both web pages
    python infra/local/laptop.py down     stop them
"""

import argparse
import contextlib
import dataclasses
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

from telecine import settings, tracking
from telecine.errors import InputError, TelecineError
from telecine.settings import Settings
from telecine.storage import Store
from telecine.work import runs, status

REPOSITORY = Path(__file__).resolve().parents[2]
DAG_ID = "flywheel"
PARALLELISM = 2
START_TIMEOUT_S = 180.0
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


def main() -> int:
    """Parse and dispatch; every error of ours is one line and an exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    commands = parser.add_subparsers(required=True)
    demo_parser = commands.add_parser("demo", help="run the flywheel to its end")
    demo_parser.add_argument("--videos", default=os.environ.get("VIDEOS", ""), help="folder; empty renders Backlot films")
    demo_parser.add_argument("--conf", default=os.environ.get("CONF") or "{}", help="other Params of the DAG, as JSON")
    demo_parser.set_defaults(command=lambda parsed: demo(parsed.videos, parsed.conf))
    commands.add_parser("up", help="start both web pages").set_defaults(command=lambda _: up())
    commands.add_parser("down", help="stop them").set_defaults(command=lambda _: down())
    parsed = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return int(parsed.command(parsed))
    except TelecineError as error:
        print(f"telecine: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("\nstopped; the same command goes on where this one stopped", file=sys.stderr)
        return 130


def laptop() -> Laptop:
    """The deployment under TELECINE_HOME; its secrets are made once and readable by their owner alone."""
    here = settings.from_environment()
    here.home.mkdir(parents=True, exist_ok=True)
    path = here.home / "secrets.json"
    with contextlib.suppress(FileExistsError), os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        json.dump(_new_keys(), file)
    ports = (int(os.environ.get(f"TELECINE_{name}_PORT", port)) for name, port in (("AIRFLOW", 8080), ("MLFLOW", 5000)))
    return Laptop(here, json.loads(path.read_text()), *ports)


def demo(videos: str, conf_text: str) -> int:
    """Run the flywheel on the footage, or go on with the unfinished run of the same request; print what came of it."""
    place = laptop()
    conf = _conf(videos, conf_text)
    print(f"home   {place.here.home}\nstore  {place.here.store_uri}", flush=True)
    prepare(place)
    started = time.monotonic()
    with _request(place.here.home, conf) as request:
        print(f"run    {request['run']}", flush=True)
        log = place.here.home / "logs" / f"{request['run']}.log"
        code = _run_dag(place, request, conf, log)
        request["done"] = code == 0
    report = status.of(Store(place.here.store_uri), request["run"])
    _summarise(place, report, log, time.monotonic() - started)
    return 0 if code == 0 else _exit_code(report)


def prepare(place: Laptop) -> None:
    """Migrate both databases, once per version, before any task can race to do it."""
    tracking.connect(place.here)
    stamp = place.airflow_home / "migrated"
    wanted = version("apache-airflow")
    place.airflow_home.mkdir(parents=True, exist_ok=True)
    passwords = place.airflow_home / "passwords.json"
    if not passwords.exists():
        passwords.touch(mode=0o600)
        passwords.write_text(json.dumps({"admin": place.keys["airflow_password"]}))
    if stamp.exists() and stamp.read_text() == wanted:
        return
    print("preparing Airflow's database, once", flush=True)
    done = subprocess.run(["airflow", "db", "migrate"], env=place.environment(), capture_output=True, text=True)
    if done.returncode != 0:
        raise TelecineError(f"airflow db migrate failed:\n{done.stdout}{done.stderr}")
    stamp.write_text(wanted)


def up() -> int:
    """Start Airflow's and MLflow's servers in the background and wait until both answer."""
    place = laptop()
    prepare(place)
    logs = place.here.home / "logs"
    for name, command, environment in _services(place):
        if _pid(place, name) is not None:
            continue
        logs.mkdir(exist_ok=True)
        with (logs / f"{name}.log").open("a") as log:
            process = subprocess.Popen(
                command, env=environment, cwd=place.here.home, stdout=log, stderr=log, start_new_session=True
            )
        (place.here.home / f"{name}.pid").write_text(str(process.pid))
    for name, port in (("airflow", place.airflow_port), ("mlflow", place.mlflow_port)):
        _await_port(place, name, port)
    print(f"Airflow  http://127.0.0.1:{place.airflow_port}  admin  {place.keys['airflow_password']}")
    print(f"MLflow   http://127.0.0.1:{place.mlflow_port}  admin  {place.keys['mlflow_password']}")
    return 0


def down() -> int:
    """Stop both servers and everything they started."""
    place = laptop()
    for name in ("airflow", "mlflow"):
        pid = _pid(place, name)
        if pid is not None:
            _end_group(pid, signal.SIGTERM)
            print(f"stopped {name}")
        (place.here.home / f"{name}.pid").unlink(missing_ok=True)
    return 0


def _run_dag(place: Laptop, request: dict[str, Any], conf: dict[str, Any], log: Path) -> int:
    """Run the DAG in an Airflow of its own and show each task as it goes; returns Airflow's exit code."""
    log.parent.mkdir(parents=True, exist_ok=True)
    command = ["airflow", "dags", "test", DAG_ID, request["logical_date"], "--conf", json.dumps(conf)]
    environment = place.environment() | {"TELECINE_RUN": request["run"]}
    with log.open("a") as output:
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=output, start_new_session=True)
        try:
            _watch(process, Store(place.here.store_uri), request["run"])
        except BaseException:
            # Without Airflow nobody retries; the component sees that its parent is gone, saves and ends.
            process.kill()
            process.wait()
            _end_group(process.pid, signal.SIG_DFL)
            raise
    return process.wait()


def _watch(process: "subprocess.Popen[bytes]", store: Store, run: str) -> None:
    """Print a line when a task settles, and a moving one while it runs."""
    shown: set[tuple[str, float]] = set()
    clear, began = "\r\x1b[K" if sys.stdout.isatty() else "", time.time()
    alive = True
    while alive:
        alive = process.poll() is None
        tasks = status.of(store, run)["tasks"] if store.read_json(f"runs/{run}/run.json") else []
        for task in tasks:
            settled = task["state"] in (*runs.SETTLED, "failed") and task["started"] >= began
            if settled and (task["task"], task["started"]) not in shown:
                shown.add((task["task"], task["started"]))
                print(f"{clear}{_line(task)}", flush=True)
        running = [task for task in tasks if task["state"] not in (*runs.SETTLED, "failed")]
        if clear and running:
            print(f"{clear}{_line(running[-1])}", end="", flush=True)
        time.sleep(0.5 if alive else 0)
    print(clear, end="")


def _line(task: dict[str, Any]) -> str:
    return f"  {task['task']:16} {task['state']:8} {task['detail']}"


@contextlib.contextmanager
def _request(home: Path, conf: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """This request's run: the last one where it asked for the same and did not finish, else a new one."""
    path = home / "demo.json"
    last = json.loads(path.read_text()) if path.exists() else {"done": True}
    if last["done"] or last["conf"] != conf or _is_alive(last["pid"]):
        date = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime()) + f".{secrets.randbelow(10**6):06d}+00:00"
        last = {"logical_date": date, "run": runs.slug(DAG_ID, date), "conf": conf}
    request = last | {"done": False, "pid": os.getpid()}
    path.write_text(json.dumps(request))
    try:
        yield request
    finally:
        path.write_text(json.dumps(request))


def _conf(videos: str, text: str) -> dict[str, Any]:
    try:
        conf = json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(f"CONF must be a JSON object such as '{{\"train_num_steps\": 50}}': {error}") from None
    if not isinstance(conf, dict):
        raise InputError(f"CONF must be a JSON object, got {text!r}")
    if videos:
        folder = Path(videos).expanduser().absolute()
        if not folder.is_dir():
            raise InputError(f"VIDEOS must be a folder of video files, got {videos!r}")
        conf["videos_uri"] = str(folder)
    return conf


def _summarise(place: Laptop, report: dict[str, Any], log: Path, seconds: float) -> None:
    tasks = {task["task"]: task for task in report["tasks"]}
    failed = [task for task in report["tasks"] if task["state"] not in runs.SETTLED]
    print()
    for task in failed:
        print(f"{task['task']} {task['state']} {task['detail']}")
    if failed or "deploy.report" not in tasks:
        print(f"the run did not finish; Airflow's log: {log}\nthe same command goes on where this one stopped")
        return
    outputs = tasks["deploy.report"]["outputs"]
    store = Store(place.here.store_uri)
    summary = json.loads(store.read(store.path_of(outputs["summary_uri"]) or ""))
    for line in _headlines(summary, tasks):
        print(line)
    print(f"\nreport   {outputs['report_uri'].removeprefix('file://')}")
    print(f"explain  .venv/bin/telecine explain {report['run']}")
    print("pages    make up  (Airflow and MLflow, with logins)")
    print(f"took     {seconds:.0f} s")


def _headlines(summary: dict[str, Any], tasks: dict[str, Any]) -> Iterator[str]:
    """The run in a few lines: funnel, losses, samples, model."""
    funnel, held_out = summary["funnel"], summary["held_out"]
    rejected = ", ".join(f"{count} {reason}" for reason, count in sorted(funnel["rejected"].items()) if count)
    yield f"funnel   {funnel['files']} files, {funnel['clips_in']} clips, {funnel['kept']} kept ({rejected or 'none rejected'})"
    for bad in summary["bad_files"]:
        yield f"         {bad['file']}: {bad['reason']}"
    losses = ", ".join(f"{name.replace('_', ' ')} {loss:.4f}" for name, loss in held_out["loss"].items())
    yield f"losses   training {summary['final_loss']:.4f} after {summary['num_steps']} steps; held-out {losses}"
    yield f"         {summary['verdict']}"
    samples = tasks["evaluate.sample"]["outputs"]["samples_uri"].removeprefix("file://")
    yield f"samples  {summary['num_films']} films, {samples}/contact_sheet.png"
    yield f"model    {summary['model_name']} version {summary['model_version']}, alias {summary['alias']}"


def _exit_code(report: dict[str, Any]) -> int:
    refused = any(task["detail"].find("InputError") >= 0 or task["key"] == "" for task in report["tasks"] if task["state"] == "failed")
    return InputError.exit_code if refused else 1


def _services(place: Laptop) -> Iterator[tuple[str, list[str], dict[str, str]]]:
    environment = place.environment()
    yield "airflow", ["airflow", "standalone"], environment
    folder = place.here.home / "mlflow"
    ini = folder / "basic_auth.ini"
    if not ini.exists():
        ini.touch(mode=0o600)
        ini.write_text(
            "[mlflow]\ndefault_permission = READ\nadmin_username = admin\n"
            f"admin_password = {place.keys['mlflow_password']}\ndatabase_uri = sqlite:///{folder}/auth.db\n"
            "authorization_function = mlflow.server.auth:authenticate_request_basic_auth\n"
        )
    command = ["mlflow", "server", "--app-name", "basic-auth", "--host", "127.0.0.1", "--port", str(place.mlflow_port)]
    command += ["--workers", "1", "--backend-store-uri", place.here.tracking_uri]
    command += ["--artifacts-destination", f"file://{folder}/artifacts"]
    keys = {"MLFLOW_AUTH_CONFIG_PATH": str(ini), "MLFLOW_FLASK_SERVER_SECRET_KEY": place.keys["flask"]}
    yield "mlflow", command, environment | keys


def _await_port(place: Laptop, name: str, port: int) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        if _pid(place, name) is None:
            break
        time.sleep(0.5)
    raise TelecineError(f"{name} did not start; see {place.here.home / 'logs' / f'{name}.log'}")


def _pid(place: Laptop, name: str) -> int | None:
    path = place.here.home / f"{name}.pid"
    pid = int(path.read_text()) if path.exists() else None
    return pid if pid is not None and _is_alive(pid) else None


def _is_alive(pid: int) -> bool:
    """Whether a process runs; one that ended and was not yet waited for does not."""
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def _end_group(group: int, first: signal.Signals | signal.Handlers) -> None:
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


if __name__ == "__main__":
    sys.exit(main())
