"""Two ``make demo`` at once on one machine and one store: each in a home of its own, and both in the same home."""

import contextlib
import dataclasses
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil

import evidence
import pipelines
from deployments import Deployment, Ended, make_site
from places import BUCKET, REPOSITORY, ObjectServer, s3_environment, variables
from record import Count, Trial
from telecine import component
from telecine.storage import Store
from telecine.work import attempts, commits, runs

LOOK_S = 0.1
TIMEOUT_S, STOP_TIMEOUT_S = 900.0, 60.0
TURNS = {
    "short": (("own", "file"),),
    "full": (("own", "file"), ("own", "s3"), ("same", "file"), ("same", "s3")),
}
STOP_AFTER = {"short": "curate.split", "full": ""}
"""Short, both demos are interrupted once both have done this task: a whole pair takes minutes."""
CODE_INTERRUPTED = 130
CONF: dict[str, Any] = {
    "render_num_films": 2,
    "render_num_frames": 48,
    **{f"train_{name}": value for name, value in pipelines.TRAINING.items()},
    "sample_num_steps": 2,
    "sample_prompts": ["a red circle moves left on a blue background"],
    "sample_seeds": [0],
}
DATABASE = (".db", ".db-wal", ".db-shm", ".db-journal")
DEMO = Path("infra", "local", "demo.py")
ONE_BY_DESIGN = "/mlflow/mlflow.db"
"""What two demos of one home share: it is one deployment, with one MLflow."""


@dataclasses.dataclass(frozen=True)
class Demo:
    """One demo, and what its processes had open at any time.

    Attributes:
        ports: TCP ports to which any of them listened.
        databases: SQLite files that its Airflow, or anything below it, had open.
    """

    process: "subprocess.Popen[bytes]"
    place: Deployment
    out: Path
    ports: set[int] = dataclasses.field(default_factory=set)
    databases: set[str] = dataclasses.field(default_factory=set)

    @property
    def ended(self) -> Ended:
        """How it ended and what it said."""
        return Ended(self.process.returncode, self.out.read_text(), self.out.with_suffix(".err").read_text())

    @property
    def run(self) -> str:
        """The slug that it printed; empty where it came to none."""
        return next((line.split()[1] for line in self.ended.out.splitlines() if line.startswith("run ")), "")


def two_demos(trial: Trial) -> Count:
    """See the module; short, in homes of their own on a local store alone, and not to their ends."""
    site, server = make_site(trial.folder / "site"), ObjectServer(trial.folder / "objects")
    _copy_command(trial.folder)
    turns, last = TURNS[trial.size], STOP_AFTER[trial.size]
    expected: dict[str, dict[str, str]] = {}
    findings: list[str] = []
    ports: set[int] = set()
    recovered = 0
    try:
        for index, (homes, kind) in enumerate(turns):
            demos, uri = _run(trial, site, server, homes, kind)
            with variables(s3_environment(server.port)):
                found = [*_ends(demos, last), *_apart(demos, homes)] or _judge(Store(uri), demos, expected, homes, last)
            findings += [f"{what}: {homes} home, {kind}: {rest}" for what, rest in found]
            recovered += not found
            ports |= {port for demo in demos for port in demo.ports}
            trial.progress(index + 1, len(turns))
    finally:
        server.kill()
    counts = {name: sum(line.startswith(name) for line in findings) for name in ("lost", "doubled", "torn")}
    pairs = ", ".join(f"{homes} home on {kind}://" for homes, kind in turns)
    what = f"two make demo at once on one store ({pairs}); in one home MLflow's database is one by design; "
    what += f"{len(ports)} listening ports seen"
    what += f"; interrupted after {last}" if last else ""
    return Count(what=what, injected=len(turns), recovered=recovered, findings=tuple(findings), **counts)


def _run(trial: Trial, site: Path, server: ObjectServer, homes: str, kind: str) -> tuple[list[Demo], str]:
    """Two demos of one request at once, to their ends, watched; and their store."""
    folder = trial.folder / f"{homes}-{kind}"
    environment = {"CONF": json.dumps(CONF | {"render_seed": trial.seed}), "VIDEOS": ""}
    environment |= s3_environment(server.port) if kind == "s3" else {}
    uri = f"s3://{BUCKET}/demos-{homes}" if kind == "s3" else f"file://{folder}/store"
    names = ("one", "two") if homes == "own" else ("both", "both")
    demos = []
    try:
        for index, name in enumerate(names):
            place = Deployment(folder / name, site, store_uri=uri, environment=environment)
            demos.append(_start(place, trial.folder / DEMO, folder / f"demo-{index}.out"))
        deadline = time.monotonic() + TIMEOUT_S
        while any(demo.process.poll() is None for demo in demos) and time.monotonic() < deadline:
            for demo in demos:
                _look(demo)
            if STOP_AFTER[trial.size] and all(_has_done(demo, uri, STOP_AFTER[trial.size]) for demo in demos):
                break
            time.sleep(LOOK_S)
        for demo in demos:
            demo.process.terminate()  # as Ctrl-C, also where a shell made that ignored; nothing to one that ended
        for demo in demos:
            with contextlib.suppress(subprocess.TimeoutExpired):
                demo.process.wait(STOP_TIMEOUT_S)
    finally:
        for demo in demos:
            _end(demo)
    return demos, uri


def _copy_command(folder: Path) -> None:
    """A copy of the command and of the DAGs, beside that of the code: what somebody edits meanwhile changes neither."""
    for source in (DEMO.parent, Path("dags")):
        shutil.copytree(REPOSITORY / source, folder / source, ignore=shutil.ignore_patterns("__pycache__"))


def _start(place: Deployment, demo: Path, out: Path) -> Demo:
    command = [sys.executable, str(demo)]
    with out.open("w") as stdout, out.with_suffix(".err").open("w") as stderr:
        process = subprocess.Popen(command, env=place.environment, cwd=place.home, stdout=stdout, stderr=stderr)
    return Demo(process, place, out)


def _has_done(demo: Demo, uri: str, task: str) -> bool:
    """Whether a demo's run has settled a task; asked of a local store, many times a second."""
    return bool(demo.run) and any(
        pointer.task == task and pointer.decision in runs.SETTLED for pointer in runs.pointers(Store(uri), demo.run)
    )


def _look(demo: Demo) -> None:
    """Note what the demo's processes have open now."""
    with contextlib.suppress(psutil.Error):
        tree = psutil.Process(demo.process.pid).children(recursive=True)
        airflow: set[int] = set()
        for process in tree:
            with contextlib.suppress(psutil.Error):
                if process.ppid() in airflow or "dags test" in " ".join(process.cmdline()):
                    airflow.add(process.pid)  # what comes before only copies or migrates a database, one at a time
                    files = [file.path for file in process.open_files() if file.path.endswith(DATABASE)]
                    demo.databases.update(files)
                listening = [c for c in process.net_connections("tcp") if c.status == psutil.CONN_LISTEN]
                demo.ports.update(connection.laddr.port for connection in listening)


def _end(demo: Demo) -> None:
    """Kill what is left of a demo, if it did not end by itself."""
    if demo.process.poll() is None:
        with contextlib.suppress(psutil.Error):
            for process in psutil.Process(demo.process.pid).children(recursive=True):
                with contextlib.suppress(psutil.Error):
                    process.kill()
        demo.process.kill()
        demo.process.wait()


def _ends(demos: list[Demo], last: str) -> list[tuple[str, str]]:
    """Both end with 0, or as an interrupted demo does, each with a run of its own."""
    code = CODE_INTERRUPTED if last else 0
    bad = [demo.ended for demo in demos if demo.process.returncode != code or not demo.run]
    found = [("lost", f"exit {each.code}: {each.last_line or each.out[-200:]}") for each in bad]
    if not found and demos[0].run == demos[1].run:
        found.append(("doubled", f"both have the run {demos[0].run}"))
    return found


def _apart(demos: list[Demo], homes: str) -> list[tuple[str, str]]:
    """No port and no database belongs to both; and the look at them really met databases."""
    one, two = demos
    found = [("doubled", f"both listen to the port {port}") for port in sorted(one.ports & two.ports)]
    allowed = f"{one.place.home}{ONE_BY_DESIGN}" if homes == "same" else None
    shared = {path for path in one.databases & two.databases if not (allowed and path.startswith(allowed))}
    found += [("doubled", f"both have the database {path} open") for path in sorted(shared)]
    for number, demo in enumerate(demos):
        if not any("airflow" in Path(path).name for path in demo.databases):
            found.append(("lost", f"demo {number} was never seen with Airflow's database: {sorted(demo.databases)}"))
    return found


def _judge(
    store: Store, demos: list[Demo], expected: dict[str, dict[str, str]], homes: str, last: str
) -> list[tuple[str, str]]:
    """Attempts apart, and one commit per address that both runs point to, with the digests of every other turn."""
    found = [("torn", problem) for problem in evidence.torn_commits(store)]
    one, two = ({pointer.task: pointer for pointer in runs.pointers(store, demo.run)} for demo in demos)
    if last:  # what came after it was cut off
        one, two = ({name: each[name] for name in each if name in _up_to(each, last)} for each in (one, two))
    if set(one) != set(two) or not one:
        return [*found, ("lost", f"the runs have other tasks: {sorted(one)} and {sorted(two)}")]
    for name, pointer in one.items():
        prefix = f"work/{pointer.component}/{pointer.key}"
        found += _attempts(store, prefix, [demo.run for demo in demos])
        if component.find(pointer.component).effects:
            continue  # registers and reports for each run
        other = two[name]
        if (pointer.key, pointer.attempt, pointer.outputs) != (other.key, other.attempt, other.outputs):
            found.append(("doubled", f"{name}: the runs point to {pointer.attempt} and {other.attempt}"))
        decisions = sorted([pointer.decision, other.decision])
        if decisions not in (["ran", "reused"], ["lost", "ran"]):
            found.append(("doubled", f"{name}: the runs say {decisions}"))
        if len(commits.history(store, f"{prefix}/commit.json")) != 1:
            found.append(("doubled", f"{name} was committed more than once"))
        children = demos[0].place.children(pointer.key) if homes == "same" else ["one"]
        if len(children) != 1:
            found.append(("doubled", f"{name} has the MLflow children {children}"))
        digests = evidence.digests_of(store, {"component": pointer.component, "key": pointer.key})
        if expected.setdefault(name, digests) != digests:
            found.append(("lost", f"{name} has other digests than in an earlier turn"))
    return found


def _up_to(tasks: dict[str, runs.Pointer], last: str) -> set[str]:
    """The tasks of a run that began no later than one of them."""
    return {name for name, pointer in tasks.items() if pointer.started <= tasks[last].started}


def _attempts(store: Store, prefix: str, slugs: list[str]) -> list[tuple[str, str]]:
    """Every attempt folder belongs to exactly one of the runs, and those of attempts that lost are gone."""
    owners = {state["attempt"]: state["run"] for state in attempts.states(store, prefix)}
    committed = {record["attempt"] for record in commits.history(store, f"{prefix}/commit.json")}
    folders = set(store.folders(f"{prefix}/attempts"))
    found = [
        ("doubled", f"{prefix}: the attempt {name} is of no run") for name in folders if owners.get(name) not in slugs
    ]
    return found + [("doubled", f"{prefix}: {name} is left and not committed") for name in sorted(folders - committed)]
