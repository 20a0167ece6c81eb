"""``make demo``: run the flywheel on VIDEOS with CONF, or go on with the unfinished run of the same request."""

import contextlib
import fcntl
import gc
import json
import os
import runpy
import secrets
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import quote
from urllib.request import Request, urlopen

from deployment import (
    REPOSITORY,
    Laptop,
    database_uri,
    end_group,
    guarded,
    handle_of,
    is_alive,
    laptop,
    pid_of,
    prepare,
    put,
)
from pages import serve_tracker
from telecine import engines, provenance, slugs
from telecine.errors import InputError, RetryLater
from telecine.storage import Store
from telecine.work import runs, status

DAG_ID = "flywheel"
DAG_TIMEOUT_S = 120.0


def demo(videos: str, conf_text: str) -> int:
    """Run the flywheel on the footage, or go on with the unfinished run of the same request; print what came of it."""
    place = laptop()
    conf = _conf(videos, conf_text)
    _check(place, conf)
    print(f"home   {place.here.home}\nstore  {place.here.store_uri}", flush=True)
    prepare(place)
    if place.needs_server:
        serve_tracker(place)
        print(f"MLflow {place.mlflow_page}  (make down stops it)", flush=True)
    started = time.monotonic()
    with _request(place.here.home, conf) as request:
        print(f"run    {request['run']}", flush=True)
        log = place.here.home / "logs" / f"{request['run']}.log"
        if pid_of(place, "airflow") is None:
            request["done"] = _run_dag(place, request, conf, log)
        else:
            print("in the Airflow that make up started", flush=True)
            request["done"] = _trigger_dag(place, request, conf)
    report = status.of(Store(place.here.store_uri), request["run"])
    _summarise(place, report, log, time.monotonic() - started)
    return 0 if request["done"] else _exit_code(report)


def _run_dag(place: Laptop, request: dict[str, Any], conf: dict[str, Any], log: Path) -> bool:
    """Run the DAG in an Airflow of its own and show each task as it goes; returns whether it ended well."""
    log.parent.mkdir(parents=True, exist_ok=True)
    airflow = [sys.executable, "-P", str(Path(__file__).with_name("run_airflow.py"))]
    command = [*airflow, "dags", "test", DAG_ID, request["logical_date"], "--conf", json.dumps(conf)]
    with _database(place, request["run"]) as database, log.open("a") as output:
        # Asking git takes each component as long as all of a small one's work.
        mine = {"TELECINE_RUN": request["run"], "TELECINE_GIT_COMMIT": provenance.git_commit()}
        environment = place.environment() | mine | database
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=output, start_new_session=True)
        request["airflow"] = handle_of(process.pid)
        _save(place.here.home, request)
        try:
            _watch(lambda: process.poll() is None, Store(place.here.store_uri), request["run"])
        except BaseException:
            # Without Airflow nobody retries; the component sees that its parent is gone, saves and ends.
            process.kill()
            process.wait()
            end_group(process.pid, signal.SIG_DFL)
            raise
    return process.wait() == 0


@contextlib.contextmanager
def _database(place: Laptop, run: str) -> Iterator[dict[str, str]]:
    """Airflow's database for one DAG run, as environment: the home's own, which ``make up`` shows.

    SQLite and Airflow's registration of DAGs serve one process at a time, so while another demo of this home is at
    work a run gets a copy of its own.
    """
    with (place.airflow_home / "database.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            copy = place.airflow_home / f"airflow-{run}.db"
            try:
                _copy_database(place.airflow_home / "airflow.db", copy)
                yield {"AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": database_uri(copy)}
            finally:
                copy.unlink(missing_ok=True)
        else:
            yield {}


def _copy_database(source: Path, target: Path) -> None:
    with contextlib.closing(sqlite3.connect(source)) as whole, contextlib.closing(sqlite3.connect(target)) as copy:
        whole.backup(copy)


def _trigger_dag(place: Laptop, request: dict[str, Any], conf: dict[str, Any]) -> bool:
    """Run the DAG in the Airflow that ``make up`` started, and show each task as it goes."""
    airflow = AirflowApi(place)
    airflow.await_dag()
    airflow.call("PATCH", f"dags/{DAG_ID}", {"is_paused": False})
    path = f"dags/{DAG_ID}/dagRuns/{quote(request['logical_date'])}"

    def state() -> str:
        return str(airflow.call("GET", path).get("state", "gone"))

    if state() == "gone":
        body = {"dag_run_id": request["logical_date"], "logical_date": None, "conf": conf}
        airflow.call("POST", f"dags/{DAG_ID}/dagRuns", body)
    elif state() == "failed":
        airflow.call("POST", f"{path}/clear", {"dry_run": False, "only_failed": True})
    _watch(lambda: state() not in ("success", "failed", "gone"), Store(place.here.store_uri), request["run"])
    return state() == "success"


class AirflowApi:
    """Airflow's REST API, as the page's admin."""

    def __init__(self, place: Laptop) -> None:
        self.root = f"http://127.0.0.1:{place.airflow_port}"
        login = {"username": "admin", "password": place.keys["airflow_password"]}
        self.token = self._send("POST", "auth/token", login, {})["access_token"]

    def await_dag(self) -> None:
        """Wait until Airflow has read the DAG file for the first time."""
        deadline = time.monotonic() + DAG_TIMEOUT_S
        while not self.call("GET", f"dags/{DAG_ID}"):
            if time.monotonic() > deadline:
                raise RetryLater(f"Airflow did not read dags/{DAG_ID}.py within {DAG_TIMEOUT_S:.0f} s; see its log")
            time.sleep(1)

    def call(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """Send one request; empty for what is not there, :class:`InputError` in Airflow's words for a refusal."""
        return self._send(method, f"api/v2/{path}", body, {"Authorization": f"Bearer {self.token}"})

    def _send(self, method: str, path: str, body: dict[str, Any] | None, headers: dict[str, str]) -> dict[str, Any]:
        data = json.dumps(body).encode() if body is not None else None
        headers = {"Content-Type": "application/json", **headers}
        request = Request(f"{self.root}/{path}", data=data, method=method, headers=headers)  # noqa: S310 - loopback, http
        try:
            with urlopen(request, timeout=60) as reply:  # noqa: S310 - loopback, http
                document: dict[str, Any] = json.load(reply)
        except HTTPError as error:
            if method == "GET" and error.code == HTTPStatus.NOT_FOUND:
                return {}
            raise InputError(f"Airflow refused {method} {path}: {error.read().decode()}") from None
        except URLError as error:
            raise RetryLater(f"Airflow at {self.root} does not answer: {error.reason}") from None
        return document


def _watch(runs_still: Callable[[], bool], store: Store, run: str) -> None:
    """Print a line when a task settles, and a moving one while it runs."""
    shown: set[tuple[str, float]] = set()
    clear, began = "\r\x1b[K" if sys.stdout.isatty() else "", time.time()
    alive = True
    while alive:
        alive = runs_still()
        tasks = status.of(store, run)["tasks"] if store.read_json(f"runs/{run}/run.json") else []
        for task in tasks:
            settled = task["state"] in (*runs.SETTLED, "failed") and task["started"] >= began
            if settled and (task["task"], task["started"]) not in shown:
                shown.add((task["task"], task["started"]))
                print(f"{clear}{_line(task)}", flush=True)
        running = [task for task in tasks if task["state"] not in (*runs.SETTLED, "failed")]
        if clear and running:
            print(f"{clear}{_line(running[-1])}", end="", flush=True)
        time.sleep(0.5 if alive else 0.0)
    print(clear, end="")


def _line(task: dict[str, Any]) -> str:
    return f"  {task['task']:16} {task['state']:8} {task['detail']}"


@contextlib.contextmanager
def _request(home: Path, conf: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The run for this request: an unfinished one that asked for the same and that nobody drives, else a new one.

    Requests lie in a file each, and one is chosen at a time, so that two demos in one home never take the same run.
    """
    folder = home / "demos"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "choosing.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        request = _unfinished(folder, conf) or _fresh(conf)
        if "airflow" in request and is_alive(request["airflow"]):  # its driver was killed, and it was not
            end_group(int(request["airflow"]["pid"]), signal.SIGKILL)
        request |= {"done": False, "driver": handle_of(os.getpid())}
        _save(home, request)
    try:
        yield request
    finally:
        _save(home, request)


def _unfinished(folder: Path, conf: dict[str, Any]) -> dict[str, Any] | None:
    known = [json.loads(path.read_text()) for path in folder.glob("*.json")]
    open_ones = [r for r in known if not r["done"] and r["conf"] == conf and not is_alive(r["driver"])]
    return max(open_ones, key=lambda request: str(request["logical_date"]), default=None)


def _fresh(conf: dict[str, Any]) -> dict[str, Any]:
    date = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime()) + f".{secrets.randbelow(10**6):06d}+00:00"
    return {"logical_date": date, "run": slugs.slug(DAG_ID, date), "conf": conf}


def _save(home: Path, request: dict[str, Any]) -> None:
    put(home / "demos" / f"{request['run']}.json", json.dumps(request))


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


def _check(place: Laptop, conf: dict[str, Any]) -> None:
    """Refuse what the DAG's Params refuse, and containers without their images, before Airflow is started."""
    os.environ.update(place.environment())  # read by Airflow while it is imported
    from telecine.operators import ComponentOperator, check_conf

    dag = runpy.run_path(str(REPOSITORY / "dags" / f"{DAG_ID}.py"))["dag"]
    check_conf(dag, conf)
    if place.here.runner == "container":
        engine = engines.find()
        for image_set in sorted({task.component.image for task in dag.tasks if isinstance(task, ComponentOperator)}):
            engine.require(image_set)


def _summarise(place: Laptop, report: dict[str, Any], log: Path, seconds: float) -> None:
    tasks = {task["task"]: task for task in report["tasks"]}
    failed = [task for task in report["tasks"] if task["state"] not in runs.SETTLED]
    print()
    for task in failed:
        print(f"{task['task']} {task['state']} {task['detail']}")
    if failed or "deploy.report" not in tasks:
        print(f"the run did not finish; Airflow's log: {log}")
        if _exit_code(report) != InputError.exit_code:
            print("the same command goes on where this one stopped")
        return
    outputs = tasks["deploy.report"]["outputs"]
    store = Store(place.here.store_uri)
    summary = json.loads(store.read(store.path_of(outputs["summary_uri"]) or ""))
    for line in _headlines(summary, tasks):
        print(line)
    print(f"\nreport   {outputs['report_uri'].removeprefix('file://')}")
    if not place.here.store_is_local:
        print(f"open     .venv/bin/telecine link {outputs['report_uri']}")
    print(f"explain  .venv/bin/telecine explain {report['run']}")
    print("pages    make up  (Airflow and MLflow, with logins)")
    print(f"took     {seconds:.0f} s")


def _headlines(summary: dict[str, Any], tasks: dict[str, Any]) -> Iterator[str]:
    """The run in a few lines: funnel, losses, samples, model."""
    funnel, held_out = summary["funnel"], summary["held_out"]
    rejected = ", ".join(f"{count} {reason}" for reason, count in sorted(funnel["rejected"].items()) if count)
    clips = f"{funnel['clips_in']} clips, {funnel['kept']} kept"
    yield f"funnel   {funnel['files']} files, {clips} ({rejected or 'none rejected'})"
    for bad in summary["bad_files"]:
        yield f"         {bad['file']}: {bad['reason']}"
    losses = ", ".join(f"{name.replace('_', ' ')} {loss:.4f}" for name, loss in held_out["loss"].items())
    yield f"losses   training {summary['final_loss']:.4f} after {summary['num_steps']} steps; held-out {losses}"
    for name, gain in held_out["gain_over"].items():
        interval = f"[{gain['low']:.4f}, {gain['high']:.4f}]"
        over = f"{held_out['num_clips']} held-out clips"
        yield f"         gain over {name.replace('_', ' ')} {gain['mean']:.4f}, 95 % interval {interval} over {over}"
    samples = tasks["evaluate.sample"]["outputs"]["samples_uri"].removeprefix("file://")
    yield f"samples  {summary['num_films']} films, {samples}/contact_sheet.png"
    yield f"model    {summary['model_name']} version {summary['model_version']}, alias {summary['alias']}"


def _exit_code(report: dict[str, Any]) -> int:
    """78 where an input was refused, 75 where a store or server stayed away, else 1."""
    met = {task["exit_code"] for task in report["tasks"]}
    return next((code for code in (InputError.exit_code, RetryLater.exit_code) if code in met), 1)


if __name__ == "__main__":
    code = guarded(lambda: demo(os.environ.get("VIDEOS", ""), os.environ.get("CONF") or "{}"))
    gc.freeze()  # Python's last collection would walk all of Airflow and MLflow while a person waits
    sys.exit(code)
