"""What a flywheel left behind: digests against an undisturbed run, what ``telecine gc`` takes, what is registered."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import evidence
import pipelines
from deployments import Deployment, ended
from flywheels import Flywheel
from http_faults import await_line
from places import HERE, variables
from record import Trial
from telecine import component
from telecine.storage import Store
from telecine.work import attempts, runs

MODEL, ALIAS = "telecine-flywheel", "candidate"
ORPHAN = "toy.train"
COMPARED = ("backlot.render", "curate.split", "curate.filter", "curate.encode", "pretrain.train", "evaluate.sample")
LOAD_TIMEOUT_S = 300.0


def judge(trial: Trial, flywheel: Flywheel, slugs: list[str], params: dict[str, Any]) -> dict[str, list[str]]:
    """What is lost, doubled and torn after runs that were disturbed; collects their garbage."""
    lost: list[str] = []
    doubled: list[str] = []
    calm = Deployment(trial.folder / "calm", trial.folder / "site")
    calm.prepare_tracker()
    with variables(flywheel.place.environment):
        store = Store(flywheel.place.store_uri)
        for index, slug in enumerate(slugs):
            pointers = {pointer.task: pointer for pointer in runs.pointers(store, slug)}
            expected = _calm_digests(calm, params, trial.seed + 100 * index)
            for name in COMPARED:
                document = {"component": name, "key": pointers[name].key}
                if evidence.digests_of(store, document) != expected[name]:
                    lost.append(f"lost: run {index}: {name} has other digests than an undisturbed run")
                doubled += _doubles(flywheel, index, document)
        time.sleep(attempts.LEASE_S + 5.0)  # younger leftovers may still belong to somebody
        lost += _collect(flywheel, store)
        lost += _load(flywheel, trial.folder / "loaded")
        torn = [f"torn: {problem}" for problem in evidence.torn_commits(store)]
    return {"lost": lost, "doubled": doubled, "torn": torn}


def orphan_is_collected(flywheel: Flywheel, trace: Path) -> list[str]:
    """Kill an attempt before any run, and collect garbage: nothing of it may be left."""
    attempt = flywheel.place.start_run(ORPHAN, {"num_steps": 50}, TOY_TRACE=str(trace), TOY_STEP_S="0.2")
    await_line(trace, "step 20")  # gc spares what a task met in the last two seconds
    attempt.send_signal(signal.SIGKILL)
    ended(attempt)
    with variables(flywheel.place.environment):
        store = Store(flywheel.place.store_uri)
        if not list(store.entries(f"work/{ORPHAN}")):
            return ["lost: the attempt that was killed before the run had left nothing to collect"]
        removed, problems = _gc(flywheel)
        left = [entry.path for entry in store.entries(f"work/{ORPHAN}")]
    problems += [f"lost: gc left {path} of an attempt that was killed before the run" for path in left]
    return problems if removed or problems else ["lost: gc says that it removed nothing"]


def living_attempt(flywheel: Flywheel, slug: str, task: str) -> bool:
    """Whether an attempt at a task of a run is at work now."""
    with variables(flywheel.place.environment):
        store = Store(flywheel.place.store_uri)
        pointers = [pointer for pointer in runs.pointers(store, slug) if pointer.task == task]
        return any(
            attempts.is_alive(state)
            for pointer in pointers
            for state in attempts.states(store, f"work/{pointer.component}/{pointer.key}")
        )


def living_run_stays(flywheel: Flywheel, slug: str) -> list[str]:
    """Collect garbage of any age while a run is at work: every commit that it has met must stand, with its bytes."""
    with variables(flywheel.place.environment):
        store = Store(flywheel.place.store_uri)
        paths = [
            f"work/{pointer.component}/{pointer.key}/commit.json"
            for pointer in runs.pointers(store, slug)
            if pointer.decision in ("ran", "reused", "lost")
        ]
        _, problems = _gc(flywheel)
        for path in paths:
            problem, record = evidence.problem_of(store, path)
            if problem or record is None:
                problems.append(f"lost: gc in mid run took from the run: {problem or f'{path} is gone'}")
    return problems if paths else [*problems, "lost: the run had met no commit when its garbage was collected"]


def _doubles(flywheel: Flywheel, index: int, document: dict[str, Any]) -> list[str]:
    children = flywheel.place.children(document["key"])
    where = f"doubled: run {index}: {document['component']}"
    if len(children) != 1:
        return [f"{where} has the MLflow children {children}"]
    return [f"{where}: {name} twice at step {step}" for name, step in flywheel.place.doubled_steps(children[0])]


def _calm_digests(calm: Deployment, params: dict[str, Any], seed: int) -> dict[str, dict[str, str]]:
    """Digests of the same flywheel from a shell, with nothing killed."""
    sizes = {"num_steps": params["train_num_steps"], "num_films": params["render_num_films"]}
    steps, _ = pipelines.run_pipeline(calm, seed, **sizes)
    model = steps["pretrain.train"]["outputs"]["model_uri"]
    sampling = {name.removeprefix("sample_"): value for name, value in params.items() if name.startswith("sample_")}
    sampled = calm.run("evaluate.sample", {"model_uri": model, **sampling})
    steps["evaluate.sample"] = sampled.document
    store = Store(calm.store_uri)
    return {name: evidence.digests_of(store, document) for name, document in steps.items()}


def _collect(flywheel: Flywheel, store: Store) -> list[str]:
    """Collect garbage of any age; what is left must be what effects need, and what is registered must be there."""
    registered = _registered(store)
    _, problems = _gc(flywheel)
    again, more = _gc(flywheel)
    problems += more + [f"lost: gc left {path} to a second call" for path in again]
    problems += [f"lost: after gc {what}" for what in evidence.astray(store, _lasting(store))]
    gone = [path for path in registered if store.head(path) is None]
    problems += [f"lost: gc removed {path}, which is registered" for path in gone]
    return problems + ([] if registered else ["lost: nothing is registered"])


def _gc(flywheel: Flywheel) -> tuple[list[str], list[str]]:
    """Paths that ``telecine gc`` removed, whatever their age, and what was wrong with it."""
    done = flywheel.place.call("gc", "--keep-days", "0", "--json")
    if done.code != 0:
        return [], [f"lost: telecine gc ended with {done.code}: {done.last_line}"]
    return [row["path"] for row in json.loads(done.out)["removed"]], []


def _lasting(store: Store) -> list[str]:
    """Works that are kept for good: those with effects."""
    effective = [name for name in component.names() if component.find(name).effects]
    return [f"work/{name}/{key}" for name in effective for key in store.folders(f"work/{name}") if key != "items"]


def _registered(store: Store) -> list[str]:
    """Files of the models that were registered: those of the trainings that a register task was given."""
    paths: list[str] = []
    for key in store.folders("work/deploy.register"):
        record = store.read_json(f"work/deploy.register/{key}/commit.json")
        if record is not None:
            folder = store.path_of(record["inputs"]["model_uri"])
            paths += [entry.path for entry in store.entries(folder or "")]
    return paths


def _load(flywheel: Flywheel, folder: Path) -> list[str]:
    """Load the registered version in a process of its own and film with it; what was wrong with that."""
    command = [sys.executable, str(HERE / "registered_model.py"), MODEL, ALIAS, str(folder)]
    process = subprocess.Popen(
        command, env=flywheel.place.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    done = ended(process, LOAD_TIMEOUT_S)
    if done.code != 0:
        return [f"lost: the registered version does not load after gc: exit {done.code}: {done.last_line}"]
    found = json.loads(done.out.splitlines()[-1])
    print(f"loaded after gc: {json.dumps(found)}", file=sys.stderr)
    same = found["digest"] == found["registered_digest"]
    return [] if same else [f"lost: the registered version loads with the digest {found['digest']}"]
