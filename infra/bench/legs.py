"""The two ways to make a model of Backlot films: ``make demo``, and a shell that calls one component after another."""

import dataclasses
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import timeline
from telecine import settings, tracking
from telecine.storage import Store
from telecine.work import commits, runs
from timeline import Cut, Line

REPOSITORY = Path(__file__).resolve().parents[2]
FOREIGN = ("TELECINE_", "AWS_", "MLFLOW_", "AIRFLOW_", "PYTHONPATH", "VIDEOS", "CONF")
SCRIPT_RUN = "script"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Leg:
    """One way, gone once.

    Attributes:
        run: slug of the run in the store of its home.
        seconds: wall time, preparation of databases included.
        parts: seconds of each part of it; what is missing from ``seconds`` is unexplained.
        load: this machine's load average when it began.
    """

    home: Path
    run: str
    seconds: float
    parts: dict[str, float]
    load: float

    @property
    def preparation_s(self) -> float:
        """Seconds that only the first run in a home takes."""
        return sum(self.parts.get(part, 0.0) for part in timeline.PREPARATION)

    @property
    def store(self) -> Store:
        """Where everything of it lies."""
        return Store(f"file://{self.home}/store")

    def pointers(self) -> list[runs.Pointer]:
        """Its tasks in the order in which they ended."""
        return runs.pointers(self.store, self.run)

    def records(self) -> dict[str, dict[str, Any]]:
        """The commit of each task."""
        return {pointer.task: _record(self.store, pointer) for pointer in self.pointers()}

    @property
    def component_s(self) -> float:
        """Seconds inside components, by their commits; what ran side by side counts once."""
        return timeline.union_s(timeline.span(record) for record in self.records().values())

    @property
    def pointed_s(self) -> float:
        """The same by the run's pointers, which count MLflow and the commit as work of the component."""
        return timeline.union_s((each.started - each.seconds, each.started) for each in self.pointers())


def demo(home: Path, conf: Mapping[str, Any]) -> Leg:
    """``make demo`` in a new home; raises :class:`RuntimeError` with its last words if it fails."""
    load, clock, began = os.getloadavg()[0], time.monotonic(), time.time()
    command = [sys.executable, str(REPOSITORY / "infra" / "local" / "demo.py")]
    said = _run(command, _environment(home) | {"CONF": json.dumps(conf), "PYTHONUNBUFFERED": "1"})
    ended, seconds = time.time(), time.monotonic() - clock
    run = next(line.text for line in said if line.text.startswith("run ")).split()[1]
    leg = Leg(home=home, run=run, seconds=seconds, parts={}, load=load)
    log = timeline.airflow_lines((home / "logs" / f"{run}.log").read_text())
    cuts = timeline.of_demo(said, log, leg.records(), ended)
    return dataclasses.replace(leg, parts=timeline.parts(began, cuts))


def script(home: Path, example: Leg) -> Leg:
    """The components of a demo in a new home, one ``telecine run`` after another, on the inputs that the DAG gave.

    The shell is at its best: all calls belong to one run, whose MLflow parent is made once.
    """
    load, prepared_s = os.getloadavg()[0], _prepare_tracker(home)
    clock, began = time.monotonic(), time.time()
    cuts: list[Cut] = []
    moved: dict[str, str] = {}
    store = Store(f"file://{home}/store")
    for pointer in example.pointers():
        inputs = {name: moved.get(v, v) if isinstance(v, str) else v for name, v in pointer.inputs.items()}
        result = home / f"{pointer.task}.json"
        said = _run(_telecine_run(pointer, inputs, result), _environment(home))
        ended = time.time()
        document = json.loads(result.read_text())
        record = commits.read(store, f"work/{pointer.component}/{document['key']}/commit.json")
        assert record is not None, "its process ended well"
        cuts += timeline.of_process(said, record, ended)
        moved |= {uri: document["outputs"][name] for name, uri in _uris(pointer).items()}
    parts = {timeline.MLFLOW_DATABASE: prepared_s} | timeline.parts(began, cuts)
    seconds = prepared_s + time.monotonic() - clock
    return Leg(home=home, run=SCRIPT_RUN, seconds=seconds, parts=parts, load=load)


def _telecine_run(pointer: runs.Pointer, inputs: dict[str, Any], result: Path) -> list[str]:
    command = [sys.executable, "-P", "-m", "telecine.cli", "run", pointer.component]
    command += ["--inputs", json.dumps(inputs), "--result", str(result)]
    return [*command, "--run", SCRIPT_RUN, "--task", pointer.task]


def _uris(pointer: runs.Pointer) -> dict[str, str]:
    """The artifacts among a task's outputs."""
    return {name: str(value) for name, value in (pointer.outputs or {}).items() if name.endswith("_uri")}


def _prepare_tracker(home: Path) -> float:
    """Make MLflow's database in a new home, as the first use does; its seconds without those of MLflow's import."""
    tracking.connect(settings.from_environment({"TELECINE_HOME": str(home.with_name(f"{home.name}-warm"))}))
    clock = time.monotonic()
    tracking.connect(settings.from_environment({"TELECINE_HOME": str(home)}))
    return time.monotonic() - clock


def _record(store: Store, pointer: runs.Pointer) -> dict[str, Any]:
    record = commits.read(store, f"work/{pointer.component}/{pointer.key}/commit.json")
    if record is None or pointer.decision != "ran":
        raise timeline.NotUnderstood(f"{pointer.task} should have run in its empty home, and was {pointer.decision}")
    return record


def _run(command: list[str], environment: dict[str, str]) -> list[Line]:
    """Run a process to its end; every line that it says, with the moment."""
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    )
    assert process.stdout is not None
    said = [Line(time.time(), line.rstrip()) for line in process.stdout]
    if process.wait() != 0:
        last = "\n".join(line.text for line in said[-20:])
        raise RuntimeError(f"{' '.join(command[1:5])} ended with {process.returncode}:\n{last}")
    return said


def _environment(home: Path) -> dict[str, str]:
    """This environment without anybody's own deployment, and with a home."""
    mine = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}
    return mine | {"TELECINE_HOME": str(home)}
