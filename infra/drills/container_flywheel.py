"""The flywheel in containers: the bytes that processes make, also where containers, clients and tasks are killed."""

import contextlib
import dataclasses
import json
import os
import random
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil

import container_images
import evidence
import two_demos
from deployments import Deployment, make_site
from mlflow_server import MlflowServer
from places import HERE, free_port
from record import Count, Trial
from telecine import component
from telecine.engines import Engine
from telecine.storage import Store
from telecine.work import attempts, commits, runs

KINDS = ("container", "client", "task")
RUN = "contained"
VICTIMS = ("backlot.render", "curate.split", "curate.filter", "curate.encode", "pretrain.train", "evaluate.sample")
CONF = two_demos.CONF | {"train_num_steps": 40}
NUM_TRIES = 6
TIMEOUT_S, END_S, LOOK_S = 400.0, 60.0, 0.2


@dataclasses.dataclass
class Containers:
    """One home whose tasks run in containers, and what was killed there."""

    place: Deployment
    engine: Engine
    command: Path
    out: Path
    killed: dict[str, str] = dataclasses.field(default_factory=dict)
    findings: list[str] = dataclasses.field(default_factory=list)

    @property
    def run(self) -> str:
        """Slug of the run; empty before it is printed."""
        lines = self.out.read_text().splitlines() if self.out.exists() else []
        return next((line.split()[1] for line in lines if line.startswith("run ")), "")

    def names(self, task: str = "") -> list[str]:
        """Containers of this run, or of one of its tasks, that run now."""
        labels = [f"label=telecine.io/run={self.run}", *([f"label=telecine.io/task={task}"] if task else [])]
        filters = [word for label in labels for word in ("--filter", label)]
        return self.engine.call("ps", "--format", "{{.Names}}", *filters).stdout.split() if self.run else []


def container_flywheel(trial: Trial) -> Count:
    """See the module; short, two components without Airflow, one of whose containers is killed."""
    return _short(trial) if trial.size == "short" else _full(trial)


def _full(trial: Trial) -> Count:
    site = make_site(trial.folder / "site")
    engine = container_images.ensure(("curate", "train"), site)
    two_demos._copy_command(trial.folder)
    demo = trial.folder / two_demos.DEMO
    draw = random.Random(trial.seed)  # noqa: S311 - victims, no secrets
    victims = dict(zip(sorted(draw.sample(VICTIMS, len(KINDS)), key=VICTIMS.index), KINDS, strict=True))
    total = len(KINDS) + 2
    conf = {"CONF": json.dumps(CONF | {"render_seed": trial.seed}), "VIDEOS": ""}
    expected = _by_processes(Deployment(trial.folder / "processes", site, environment=conf), demo)
    trial.progress(1, total)
    ports = {f"TELECINE_{name}_PORT": str(free_port()) for name in ("AIRFLOW", "MLFLOW")}
    place = Deployment(trial.folder / "containers", site, environment=conf | ports | _contained())
    here = Containers(place, engine, demo, trial.folder / "containers.out")
    with _stopped_at_the_end(here):
        num_calls = _to_the_end(here, victims, lambda: trial.progress(1 + len(here.killed), total))
        here.findings += _judge(here, expected)
    trial.progress(total, total)
    return _count(here, f"make demo with TELECINE_RUNNER=container, {len(expected)} tasks, {num_calls} calls of it")


def _short(trial: Trial) -> Count:
    site = make_site(trial.folder / "site")
    engine = container_images.ensure(("curate",), site)
    plain, home = Deployment(trial.folder / "processes", site), trial.folder / "containers"
    server = MlflowServer(trial.folder, home / "mlflow", user="admin", password=secrets.token_urlsafe(16))
    place = Deployment(home, site, environment=server.environment | _contained())
    here = Containers(place, engine, HERE / "contained.py", trial.folder / "containers.out")
    here.out.write_text(f"run {RUN}\n")
    for each in (plain, place):
        each.prepare_tracker()
    _two_steps(trial.seed, Store(plain.store_uri), lambda name, inputs: plain.run(name, inputs, "--run", RUN))
    expected = _made(Store(plain.store_uri), RUN)

    def run(name: str, inputs: dict[str, Any]) -> None:
        _to_the_end(here, {"backlot.render": "container"}, lambda: None, name, json.dumps(inputs), RUN)

    with _stopped_at_the_end(here), server.running(place.environment):
        _two_steps(trial.seed, Store(place.store_uri), run)
        here.findings += _judge(here, expected)
    return _count(here, f"{len(expected)} tasks, each in its image")


def _two_steps(seed: int, store: Store, run: Callable[[str, dict[str, Any]], Any]) -> None:
    """Render films and split them; ``run`` takes a component and its inputs."""
    run("backlot.render", {"num_films": 2, "num_frames": 48, "seed": seed})
    (rendered,) = runs.pointers(store, RUN)
    run("curate.split", {"videos_uri": (rendered.outputs or {})["videos_uri"]})


def _contained() -> dict[str, str]:
    """The runner, and how this process would find engine and images."""
    names = ("TELECINE_CONTAINER_ENGINE", "TELECINE_IMAGE_PREFIX", "TELECINE_IMAGE_TAG")
    return {name: os.environ[name] for name in names if name in os.environ} | {"TELECINE_RUNNER": "container"}


def _count(here: Containers, how: str) -> Count:
    found = {name: sum(line.startswith(name) for line in here.findings) for name in ("lost", "doubled", "torn")}
    killed = ", ".join(f"{kind} of {task}" for task, kind in here.killed.items())
    return Count(
        what=f"{how}, compared with the process runner's keys and digests; kill -9 of {killed}",
        injected=len(here.killed),
        recovered=0 if here.findings else len(here.killed),
        findings=tuple(here.findings),
        **found,
    )


def _by_processes(place: Deployment, demo: Path) -> dict[str, dict[str, Any]]:
    """What each task of the flywheel makes in the process runner."""
    out, command = place.home.with_suffix(".out"), [sys.executable, str(demo)]
    with out.open("w") as output:
        done = subprocess.run(
            command, env=place.environment, cwd=place.home, stdout=output, stderr=output, timeout=TIMEOUT_S
        )
    if done.returncode != 0:
        raise RuntimeError(f"the flywheel failed in the process runner:\n{out.read_text()[-2000:]}")
    store = Store(place.store_uri)
    return _made(store, runs.names(store)[0])


def _made(store: Store, run: str) -> dict[str, dict[str, Any]]:
    """Key and digests of every task's commit; names alone for what is done anew, with places and numbers of its own."""
    made: dict[str, dict[str, Any]] = {}
    for pointer in runs.pointers(store, run):
        digests = evidence.digests_of(store, {"component": pointer.component, "key": pointer.key})
        if component.find(pointer.component).effects:
            made[pointer.task] = {"outputs": sorted(digests)}
        else:
            made[pointer.task] = {"key": pointer.key, "outputs": digests}
    return made


def _to_the_end(here: Containers, victims: dict[str, str], killed: Callable[[], None], *arguments: str) -> int:
    """Call the command until it ends well, killing meanwhile; returns how often it was called."""
    for call in range(1, NUM_TRIES + 1):
        with here.out.open("a") as output:
            process = subprocess.Popen(
                [sys.executable, str(here.command), *arguments],
                env=here.place.environment,
                cwd=here.place.home,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        deadline = time.monotonic() + TIMEOUT_S
        while process.poll() is None:
            if time.monotonic() > deadline:
                os.killpg(process.pid, signal.SIGKILL)
                raise TimeoutError(f"it did not end within {TIMEOUT_S:.0f} s:\n{here.out.read_text()[-2000:]}")
            for task, kind in victims.items():
                if task not in here.killed and _works(here, task) and _kill(here, process.pid, task, kind):
                    here.killed[task] = kind
                    killed()
            time.sleep(LOOK_S)
        if process.returncode == 0:
            return call
    raise RuntimeError(f"it did not end well in {NUM_TRIES} calls:\n{here.out.read_text()[-2000:]}")


def _works(here: Containers, task: str) -> bool:
    """Whether an attempt of this task is at work in its container: it has reported progress, or is about to."""
    if len(here.names(task)) != 1:
        return False
    store = Store(here.place.store_uri)
    pointers = [pointer for pointer in runs.pointers(store, here.run) if pointer.task == task]
    states = [s for p in pointers for s in attempts.states(store, f"work/{p.component}/{p.key}") if "ended" not in s]
    return bool(states)


def _kill(here: Containers, demo: int, task: str, kind: str) -> bool:
    """Kill with -9 and look that nothing lives on; whether there was something to kill."""
    name = "".join(here.names(task))
    if kind == "container":
        return here.engine.call("kill", "--signal", "KILL", name).returncode == 0
    family = psutil.Process(demo).children(recursive=True)
    client = next((process for process in family if f"--name={name}" in process.cmdline()), None)
    if client is None:
        return False
    if kind == "client":
        client.kill()
        return True
    airflow = [process for process in family if os.getsid(process.pid) == os.getsid(client.pid) and process != client]
    for process in [psutil.Process(demo), *airflow]:
        process.kill()
    deadline = time.monotonic() + END_S
    while here.names():
        if time.monotonic() > deadline:
            here.findings.append(f"doubled: the container of {task} lives on without its task")
            break
        time.sleep(LOOK_S)
    return True


def _judge(here: Containers, expected: dict[str, dict[str, Any]]) -> list[str]:
    """Everything there once, whole, and equal to what processes made; no container left."""
    store = Store(here.place.store_uri)
    found = [f"torn: {problem}" for problem in evidence.torn_commits(store)]
    made = _made(store, here.run)
    found += [f"lost: {task} came out different" for task in expected if made.get(task) != expected[task]]
    for pointer in runs.pointers(store, here.run):
        num_commits = len(commits.history(store, f"work/{pointer.component}/{pointer.key}/commit.json"))
        children = here.place.children(pointer.key)
        if (num_commits, len(children)) != (1, 1):
            found.append(f"doubled: {pointer.task} has {num_commits} commits and {len(children)} MLflow runs")
        found += [
            f"doubled: {pointer.task} logged {step}" for run in children for step in here.place.doubled_steps(run)
        ]
    label = ["--filter", f"label=telecine.io/run={here.run}"]
    left = here.engine.call("ps", "--all", "--format", "{{.Names}}", *label).stdout.split()
    return found + [f"doubled: the container {name} is left" for name in left]


@contextlib.contextmanager
def _stopped_at_the_end(here: Containers) -> Iterator[None]:
    """Whatever happens, no server and no container of this drill outlives it."""
    try:
        yield
    finally:
        pages = here.command.parent / "pages.py"
        if pages.exists():
            command = [sys.executable, str(pages), "down"]
            subprocess.run(command, env=here.place.environment, cwd=here.place.home, check=False, stdout=sys.stderr)
        for name in here.names():
            here.engine.call("rm", "--force", "--volumes", name)
