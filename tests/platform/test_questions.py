"""What a person asks of a finished run: answered at once, readable, and shown in docs/commands as it is.

``TELECINE_CAPTURE=1`` writes the captures anew.
"""

import http.client
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from telecine import settings
from telecine.monitor import exporter
from telecine.monitor.nvml import Reader
from telecine.storage import Store

DOCS = Path(__file__).parent.parent.parent / "docs" / "commands"
MAX_S = 2.0
MAX_IMPORTS = 20
"""A machine on which the bare import of the command line is slow may take this many times as long."""

LINE = """
import json, os, sys
from pathlib import Path
from telecine import cli

made = Path(os.environ["TELECINE_HOME"]) / "result.json"

def call(name, **inputs):
    assert cli.main(["run", name, "--run", "demo", "--inputs", json.dumps(inputs), "--result", str(made)]) == 0
    return json.loads(made.read_text())["outputs"]

videos = call("backlot.render", num_films=3, num_frames=48)["videos_uri"]
clips = call("curate.split", videos_uri=videos)["clips_uri"]
clips = call("curate.filter", clips_uri=clips)["clips_uri"]
dataset = call("curate.encode", clips_uri=clips, videos_uri=videos)["dataset_uri"]
train = call("pretrain.train", dataset_uri=dataset, num_steps=150, batch_size=4, depth=1, eval_draws=1)
model = {"model_uri": train["model_uri"], "training_uri": train["training_uri"], "dataset_uri": dataset}
call("deploy.register", **model)
"""

ASKED = {
    "status": ["status", "demo"],
    "explain": ["explain", "demo"],
    "logs": ["logs", "demo", "curate.encode"],
    "lineage": ["lineage", "telecine-flywheel@candidate"],
    "lineage-forward": ["lineage", "film_0002.mp4"],
    "gc": ["gc", "--dry-run"],
    "gpu": ["gpu"],
    "doctor": ["doctor"],
}

SCRUBBED = (
    (r"free at \S+", "free at ~/.telecine"),
    (r"put \S+/bin first on PATH", "put ~/telecine/.venv/bin first on PATH"),
    (r"\d+(\.\d+)? GiB", "64 GiB"),
    (r"\d+ x .+, 64 GiB", "16 x a processor, 64 GiB"),
    (r" at /\S+/bin/airflow", " at ~/telecine/.venv/bin/airflow"),
    (r"work/pretrain.train/[0-9a-f]{32}", "work/pretrain.train/0123456789abcdef0123456789abcdef"),
    (r"\d+\.\d MiB", "0.4 MiB"),
    (r"(file|sqlite):///+\S*?/home\b", r"\1://~/.telecine"),
    (r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d", "2026-01-01 12:00:00"),
    (r"\d{8}t\d{6}-[0-9a-f]{8}", "20260101t120000-01234567"),
    (r"\b(MLflow|key|code) [0-9a-f]{12}\b", r"\1 0123456789ab"),
    (r"\bkey=[0-9a-f]{32}\b", "key=0123456789abcdef0123456789abcdef"),
    (r"\b[0-9a-f]{12}(?=  \d+ train)", "0123456789ab"),
    (r"digest [0-9a-f]{12}\b", "digest 0123456789ab"),
    (r" +\d+\.\d s\b", "    1.0 s"),
    (r"committed \d+ (s|min) ago", "committed 1 min ago"),
    (r"host=\S+ pid=\d+", "host=workstation pid=4711"),
)


class Finished:
    """A run of real components that has ended, and one of them seen at work by a scrape."""

    def __init__(self, home: Path, seen: str) -> None:
        self.home, self.seen = home, seen
        self.environment = os.environ | settings.from_environment({"TELECINE_HOME": str(home)}).environment()

    def ask(self, *arguments: str) -> tuple[str, float]:
        """What ``telecine`` answers, and the seconds that took, its start included."""
        started = time.perf_counter()
        command = [sys.executable, "-P", "-m", "telecine.cli", *arguments]
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=60)
        seconds = time.perf_counter() - started
        assert done.returncode == 0, done.stderr
        return done.stdout, seconds


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """A flywheel run, as a shell makes it, with an exporter that watches."""
    home = tmp_path_factory.mktemp("finished") / "home"
    finished = Finished(home, "")
    server = exporter.serve(Store(finished.environment["TELECINE_STORE"]), port=0, fresh_s=0.2)
    line = subprocess.Popen(
        [sys.executable, "-P", "-c", LINE], env=finished.environment, stderr=subprocess.PIPE, text=True
    )
    while line.poll() is None:
        if "telecine_attempt_step_time_seconds{" in (text := _scrape(server.port)):
            finished.seen = text
            break
        time.sleep(0.2)
    _, err = line.communicate(timeout=300)
    server.close()
    assert line.returncode == 0, err
    return finished


def test_a_trainer_at_work_shows_its_loss_and_its_speed(finished: Finished) -> None:
    who = '{component="pretrain.train",run="demo",task="pretrain.train"}'
    shown = ("loss", "step_time_seconds", "data_wait_seconds", "samples_per_second", "progress_ratio", "eta_seconds")
    assert [name for name in shown if f"telecine_attempt_{name}{who} " not in finished.seen] == []


@pytest.mark.parametrize("name", ASKED)
def test_an_answer_comes_at_once(finished: Finished, name: str) -> None:
    command = [sys.executable, "-P", "-c", "import telecine.cli"]
    started = time.perf_counter()
    subprocess.run(command, env=finished.environment, check=True)
    bare_s = time.perf_counter() - started
    _, seconds = finished.ask(*ASKED[name])
    text, json_seconds = finished.ask(*ASKED[name], "--json")
    json.loads(text)
    print(f"telecine {' '.join(ASKED[name])}: {seconds:.2f} s, --json {json_seconds:.2f} s, bare import {bare_s:.2f} s")
    assert max(seconds, json_seconds) < max(MAX_S, MAX_IMPORTS * bare_s)


@pytest.mark.parametrize("name", [name for name in ASKED if name not in ("doctor", "gpu")])
def test_the_documents_show_what_a_person_sees(finished: Finished, name: str) -> None:
    _compare(name, finished.ask(*ASKED[name])[0])


def test_the_documents_show_a_machine_without_a_gpu(finished: Finished) -> None:
    if Reader().sample().state == "ready":
        assert finished.ask("gpu")[0].startswith("driver ")
    else:
        _compare("gpu", finished.ask("gpu")[0])


def test_the_documents_show_every_check_of_doctor(finished: Finished) -> None:
    """What a machine has is its own affair; that a check is missing from the document is not."""
    text = finished.ask("doctor")[0]
    if os.environ.get("TELECINE_CAPTURE"):
        _compare("doctor", text)
    assert _checks((DOCS / "doctor.txt").read_text()) == _checks(text)


def _checks(text: str) -> list[str]:
    return re.findall(r"^(?:ok|note|bad) +(\S+)", text, re.MULTILINE)


def _compare(name: str, text: str) -> None:
    shown = f"$ telecine {' '.join(ASKED[name])}\n{scrubbed(text)}"
    file = DOCS / f"{name}.txt"
    if os.environ.get("TELECINE_CAPTURE"):
        file.write_text(shown)
    assert file.read_text() == shown, "run this test with TELECINE_CAPTURE=1 and look at the difference"


def scrubbed(text: str) -> str:
    """The text without what differs from one run and machine to the next."""
    for pattern, replacement in SCRUBBED:
        text = re.sub(pattern, replacement, text, flags=re.MULTILINE)
    return "".join(f"{line.rstrip()}\n" for line in text.splitlines())


def _scrape(port: int) -> str:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", "/metrics")
    text = connection.getresponse().read().decode()
    connection.close()
    return text
