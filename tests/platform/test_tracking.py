"""MLflow being away, refusing, locked, or somebody else's: told apart, and never the end of work that can go on."""

import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from telecine import settings, tracking
from telecine.errors import InputError, RetryLater
from telecine.storage import Store
from telecine.work.checkpoints import Checkpoints
from telecine.work.digests import Digests


class Refusing(BaseHTTPRequestHandler):
    """Answers every request as a server with authentication answers a wrong password."""

    def do_GET(self) -> None:
        self.send_response(401)
        self.end_headers()

    do_POST = do_GET

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def refusing_server() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), Refusing)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()


def test_a_server_that_refuses_the_password_is_a_wrong_input(refusing_server: str, tmp_path: Path) -> None:
    here = _with_server(tmp_path, refusing_server)
    with pytest.raises(InputError, match="refused the credentials; check MLFLOW_TRACKING_USERNAME"):
        tracking.connect(here)


def test_a_server_that_is_not_there_is_worth_another_try(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    here = _with_server(tmp_path, f"http://127.0.0.1:{_free_port()}")
    with pytest.raises(RetryLater, match="does not answer"):
        tracking.connect(here)


def test_a_locked_database_is_worth_another_try(deployment: settings.Settings) -> None:
    client = tracking.connect(deployment)
    database = sqlite3.connect(deployment.home / "mlflow" / "mlflow.db")
    database.execute("begin exclusive")
    try:
        with pytest.raises(RetryLater, match="does not answer"), tracking.translated(deployment):
            client.create_experiment("while-it-is-locked")
    finally:
        database.rollback()
        database.close()


def test_two_first_users_of_a_new_tracker_both_get_one(tmp_path: Path) -> None:
    here = settings.from_environment({"TELECINE_HOME": str(tmp_path / "new")})
    program = "from telecine import settings, tracking; tracking.connect(settings.from_environment())"
    users = [subprocess.Popen([sys.executable, "-c", program], env=os.environ | here.environment()) for _ in range(2)]
    assert [user.wait(timeout=120) for user in users] == [0, 0]


def test_points_of_attempts_that_never_led_reach_mlflow_through_the_checkpoints(
    deployment: settings.Settings, tmp_path: Path
) -> None:
    client = tracking.connect(deployment)
    run_id = client.create_run("0").info.run_id
    store, digests = Store(deployment.store_uri), Digests(deployment.home)

    def attempt(name: str, *, leads: bool) -> tuple[tracking.RunTracker, Checkpoints]:
        tracker = tracking.RunTracker(client, run_id, run_id, leads=lambda: leads)
        checkpoints = Checkpoints(
            store,
            digests,
            work_prefix="work/a.b/key",
            attempt=name,
            scratch=tmp_path,
            before_commit=tracker.settle,
            resume=tracker.resume,
        )
        return tracker, checkpoints

    def train(tracker: tracking.RunTracker, checkpoints: Checkpoints, num_steps: int) -> None:
        latest = checkpoints.latest()
        for step in range(latest.step + 1 if latest else 1, num_steps + 1):
            tracker.metrics({"loss": 1 / step}, step)
            if step % 2 == 0:
                checkpoints.save(step, lambda folder: (folder / "state").touch())

    for number, num_steps in enumerate((2, 5, 7)):  # each of them is killed, and none of them led
        train(*attempt(f"dead-{number}", leads=False), num_steps)
    assert client.get_metric_history(run_id, "loss") == []
    for name in ("alive", "later"):
        tracker, checkpoints = attempt(name, leads=True)
        train(tracker, checkpoints, 8)
        tracker.settle()
    assert [point.step for point in client.get_metric_history(run_id, "loss")] == list(range(1, 9))


KILLED = """
import os, pathlib, sys, time
from telecine import settings, tracking

go = pathlib.Path(sys.argv[2])
tracker = tracking.RunTracker(tracking.connect(settings.from_environment()), sys.argv[1], "", flush_s=1.0)
step = 0
while True:
    step += 1
    tracker.metrics({"loss": 1 / step, "moment": time.time()}, step)
    if step == 100:
        tracker.settle()  # as before a checkpoint
        go.touch()
    time.sleep(0.005)
"""


def test_kill_nine_loses_at_most_what_came_since_the_last_flush(deployment: settings.Settings, tmp_path: Path) -> None:
    client = tracking.connect(deployment)
    run_id = client.create_run("0").info.run_id
    settled = tmp_path / "settled"
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, run_id, str(settled)], env=os.environ | deployment.environment()
    )
    try:
        _await(settled.exists)
        _await(lambda: len(client.get_metric_history(run_id, "loss")) > 100)
        time.sleep(0.5)
    finally:
        process.kill()
        process.wait()
        killed = time.time()
    curve = sorted(client.get_metric_history(run_id, "loss"), key=lambda point: point.step)
    moments = [point.value for point in client.get_metric_history(run_id, "moment")]
    assert [point.step for point in curve] == list(range(1, len(curve) + 1)), "no gap and none twice"
    assert [point.value for point in curve] == [1 / point.step for point in curve]
    assert killed - max(moments) < 1.0 + 2.0, "the time between two sendings, and one request"
    # Whoever goes on from the checkpoint of step 100 computes the steps after it again.
    tracker = tracking.RunTracker(client, run_id, run_id)
    for step in range(101, len(curve) + 50):
        tracker.metrics({"loss": 1 / step}, step)
    tracker.complete()
    steps = [point.step for point in client.get_metric_history(run_id, "loss")]
    assert sorted(steps) == list(range(1, len(curve) + 50))


def test_an_attempt_that_fails_leaves_no_thread_that_goes_on_sending(toys: Any) -> None:
    toys.add(
        "short.life",
        inputs='steps: int = param(1, help="Steps.")',
        outputs='done: int = param(help="Steps done.")',
        body="""
import atexit, sys, threading
names = lambda: [thread.name for thread in threading.enumerate()]
atexit.register(lambda: print("left:", names(), file=sys.stderr))
ctx.tracker.metrics({"x": 1.0}, 1)
print("at work:", names(), file=sys.stderr)
raise ValueError("no")
""",
    )
    process = toys.start("run", "short.life")
    _, err = process.communicate(timeout=120)
    at_work, left = (next(line for line in err.splitlines() if line.startswith(word)) for word in ("at work", "left"))
    assert "'points'" in at_work and "'points'" not in left


class _Away(Store):
    """A store that goes away as somebody claims."""

    def create(self, path: str, data: bytes) -> bool:
        raise RetryLater("not reachable")


def test_a_run_that_nobody_could_claim_is_taken_back(deployment: settings.Settings) -> None:
    client = tracking.connect(deployment)
    with pytest.raises(RetryLater):
        tracking._claimed(client, _Away(deployment.store_uri), path="claim.json", experiment="0", tags={})
    assert client.search_runs(["0"]) == []


def test_a_claim_on_a_run_that_is_gone_is_replaced_once(deployment: settings.Settings) -> None:
    client = tracking.connect(deployment)
    stale = client.create_run("0").info.run_id
    client.delete_run(stale)
    store = Store(deployment.store_uri)
    store.write_json("claim.json", {"run_id": stale})
    both = threading.Barrier(2)

    class Racing(Store):
        """A store whose first reader goes on when there are two of them."""

        met = False

        def read_json(self, path: str) -> Any:
            found = super().read_json(path)
            if not self.met:
                self.met = True
                both.wait(30)
            return found

    with ThreadPoolExecutor(2) as racers:
        claim = partial(tracking._claimed, client, path="claim.json", experiment="0", tags={})
        found = set(racers.map(lambda _: claim(store=Racing(deployment.store_uri)), range(2)))
    assert len(found) == 1 and stale not in found
    assert {run.info.run_id for run in client.search_runs(["0"])} == found


@pytest.fixture
def mlflow_server(tmp_path: Path, empty_tracker: Path) -> Iterator[Callable[[], Any]]:
    """Start an MLflow server on one database and one port, as often as it was killed."""
    database = tmp_path / "served.db"
    shutil.copy(empty_tracker, database)
    port = _free_port()
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{database}", "--artifacts-destination", f"file://{tmp_path}/served"]
    started: list[subprocess.Popen[bytes]] = []

    def start() -> tuple["subprocess.Popen[bytes]", str]:
        environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        output = subprocess.DEVNULL
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=output, start_new_session=True)
        started.append(process)
        _await_port(port)
        return process, f"http://127.0.0.1:{port}"

    yield start
    for process in started:
        _kill(process)


def test_work_goes_on_while_mlflow_is_away_and_ends_with_75_where_it_must_be_told(
    s3_store: str, toys: Any, mlflow_server: Callable[[], Any]
) -> None:
    toys.add(
        "long.walk",
        inputs='steps: int = param(4, ge=1, help="Steps.")',
        outputs='done: int = param(help="Steps done.")',
        body="""
go = Path(os.environ["GO"])
for step in range(inputs.steps):
    ctx.tracker.metrics({"walk/step": step}, step)
    ctx.tracker.flush()
    ctx.progress(step + 1, inputs.steps)
    (go.parent / f"step-{step}").touch()
    while not go.exists() and step == 1:
        time.sleep(0.05)
return Outputs(done=inputs.steps)
""",
    )
    server, url = mlflow_server()
    go = toys.root / "go"
    environment = {
        "TELECINE_STORE": s3_store,
        "TELECINE_TRACKING_URI": url,
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
        "GO": str(go),
    }
    process = toys.start("run", "long.walk", "--run", "away", **environment)
    _await(lambda: (toys.root / "step-1").exists() or process.poll() is not None)
    assert process.poll() is None, process.communicate()
    _kill(server)
    go.touch()
    _, err = process.communicate(timeout=120)
    assert process.returncode == 75, err
    assert (toys.root / "step-3").exists(), "the steps do not wait for MLflow"
    assert "does not answer" in err.splitlines()[-1]
    mlflow_server()
    again = toys.start("run", "long.walk", "--run", "away", **environment)
    _, err = again.communicate(timeout=120)
    assert again.returncode == 0, err


def _with_server(folder: Path, url: str) -> settings.Settings:
    return settings.from_environment(
        {"TELECINE_HOME": str(folder), "TELECINE_STORE": "s3://bucket/store", "TELECINE_TRACKING_URI": url}
    )


def _kill(process: "subprocess.Popen[bytes]") -> None:
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _await_port(port: int) -> None:
    def answers() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    _await(answers)


def _await(holds: Callable[[], bool], timeout_s: float = 90.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)
