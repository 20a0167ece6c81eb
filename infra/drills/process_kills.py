"""A running flywheel in which one process after the other is killed with -9; what it ends with is what counts."""

import random
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

import aftermath
import evidence
import pipelines
from deployments import Deployment, ended, make_site
from flywheels import AIRFLOW, DAG_ID, KEPT, Flywheel
from http_faults import reach
from leaks import leaks
from places import BUCKET, SECRET_KEY, SESSION_TOKEN, ObjectServer, s3_environment, variables
from record import Count, Trial
from telecine.errors import InputError
from telecine.slugs import slug
from telecine.storage import Store
from telecine.work import runs

NUM_KILLS = 20
BETWEEN_S = (3.0, 15.0)
KINDS = ("component", "task", "mlflow", "s3", *AIRFLOW)
NUM_EACH = 2
"""How often each kind of process is killed at least; the rest of the kills may meet any."""
MAX_CLEARED = NUM_KILLS
"""So often one run may fail: each kill may use up the last retry of a task."""
SETTLED_STEPS = range(1, 5)
"""Of the short drill: what checkpoints held before the first kill at the latest."""
TIMEOUT_S = 900.0
PARAMS: dict[str, Any] = {
    "render_num_films": 4,
    "render_num_frames": 48,
    **{f"train_{name}": value for name, value in pipelines.TRAINING.items()},
    "train_num_steps": 40,
    "sample_num_steps": 2,
    "sample_prompts": ["a red circle moves left on a blue background"],
    "sample_seeds": [0],
}


def process_kills(trial: Trial) -> Count:
    """See the module; short, kills of a component and the S3 server without Airflow."""
    return _short(trial) if trial.size == "short" else _full(trial)


def _full(trial: Trial) -> Count:
    flywheel = Flywheel(trial.folder / "flywheel", make_site(trial.folder / "site"))
    killed: Counter[str] = Counter()
    cleared: Counter[str] = Counter()
    slugs: list[str] = []
    problems: list[str] = []
    try:
        flywheel.prepare()
        problems += aftermath.orphan_is_collected(flywheel, trial.folder / "trace")
        run = _kill(trial, flywheel, killed, cleared, slugs, problems)
        deadline = time.monotonic() + TIMEOUT_S
        while _goes_on(flywheel, run, cleared) != "success":
            if time.monotonic() > deadline:
                raise TimeoutError(f"the run {run} did not end within {TIMEOUT_S:.0f} s")
            time.sleep(2.0)
        found = aftermath.judge(trial, flywheel, slugs, PARAMS)
        where = leaks("flywheel", flywheel.folder, flywheel.secrets, meant=KEPT)
        problems += [f"lost: {what}" for what in where]
        trial.progress(NUM_KILLS + 1, NUM_KILLS + 1)
    finally:
        flywheel.close()
    lost, doubled, torn = problems + found["lost"], found["doubled"], found["torn"]
    victims = ", ".join(f"{count} {name}" for name, count in sorted(killed.items()))
    times = f"{cleared.total()} clearings of a failed one"
    return Count(
        what=f"kill -9 of random processes of a running flywheel on s3://, {len(slugs)} runs to their end, {times}: "
        f"{victims}; gc of any age before, in mid run and after, then the registered version loaded and sampled",
        injected=killed.total(),
        lost=len(lost),
        doubled=len(doubled),
        torn=len(torn),
        recovered=0 if lost or doubled or torn else killed.total(),
        findings=(*lost, *doubled, *torn),
    )


def _kill(
    trial: Trial,
    flywheel: Flywheel,
    killed: "Counter[str]",
    cleared: "Counter[str]",
    slugs: list[str],
    problems: list[str],
) -> str:
    """Kill what the cards say, at random moments, and collect garbage once meanwhile; Airflow's id of the last run."""
    draw = random.Random(trial.seed)  # noqa: S311 - victims, no secrets
    cards = [*KINDS * NUM_EACH, *draw.choices(KINDS, k=NUM_KILLS - NUM_EACH * len(KINDS))]
    draw.shuffle(cards)
    run = _trigger(flywheel, trial.seed, slugs)
    collected = False
    while cards or not collected:
        pause = time.monotonic() + draw.uniform(*BETWEEN_S)
        while time.monotonic() < pause:
            if not collected and aftermath.living_attempt(flywheel, slugs[-1], "pretrain.train"):
                problems += aftermath.living_run_stays(flywheel, slugs[-1])
                collected = True
            time.sleep(0.5)
        if _goes_on(flywheel, run, cleared) == "success":
            run = _trigger(flywheel, trial.seed, slugs)
        alive = flywheel.victims()
        name = next((card for card in cards if card in alive), None)
        if name is not None and flywheel.kill(name, draw.choice(alive[name])):
            cards.remove(name)
            killed[name] += 1
            trial.progress(killed.total(), NUM_KILLS + 1)
    return run


def _trigger(flywheel: Flywheel, seed: int, slugs: list[str]) -> str:
    """Start the next run, on films that no run before had; returns Airflow's id of it."""
    run = f"drill-{len(slugs)}"
    deadline = time.monotonic() + 120
    while not any(dag["dag_id"] == DAG_ID for dag in flywheel.call("GET", "dags")["dags"]):
        if time.monotonic() > deadline:
            raise TimeoutError(f"Airflow did not read {DAG_ID}.py")
        time.sleep(1.0)
    flywheel.call("PATCH", f"dags/{DAG_ID}", {"is_paused": False})
    conf = PARAMS | {"render_seed": seed + 100 * len(slugs)}
    flywheel.call("POST", f"dags/{DAG_ID}/dagRuns", {"dag_run_id": run, "logical_date": None, "conf": conf})
    slugs.append(slug(DAG_ID, run))
    return run


def _goes_on(flywheel: Flywheel, run: str, cleared: "Counter[str]") -> str:
    """State of a run; a failed one is cleared, as a person would, unless that would be in vain."""
    path = f"dags/{DAG_ID}/dagRuns/{run}"
    state = str(flywheel.call("GET", path)["state"])
    if state == "failed":
        _check_curable(flywheel, run, cleared)
        flywheel.call("POST", f"{path}/clear", {"dry_run": False, "only_failed": True})
    return state


def _check_curable(flywheel: Flywheel, run: str, cleared: "Counter[str]") -> None:
    """Count a clearing; raise where a task was refused, which no kill explains, or where the clearings do not end."""
    cleared[run] += 1
    with variables(flywheel.place.environment):
        met = runs.pointers(Store(flywheel.place.store_uri), slug(DAG_ID, run))
    refused = [f"{pointer.task}: {pointer.error}" for pointer in met if pointer.exit_code == InputError.exit_code]
    if refused or cleared[run] > MAX_CLEARED:
        raise RuntimeError(f"the run {run} failed for the {cleared[run]}. time: {'; '.join(refused) or 'see its log'}")


def _itself(attempt: "subprocess.Popen[str]", start: Callable[[], "subprocess.Popen[str]"]) -> "subprocess.Popen[str]":
    """An attempt that runs, or one that follows it."""
    return attempt if attempt.poll() is None else start()


def _short(trial: Trial) -> Count:
    """The S3 server and two attempts on different machines killed in mid run, and the call repeated as Airflow does.

    No lease has run out when the last attempt begins: what it finds of the others may belong to the living.
    """
    site, server = make_site(trial.folder / "site"), ObjectServer(trial.folder / "objects")
    environment = s3_environment(server.port) | {"TELECINE_STORE_RETRY_S": "60"}
    place = Deployment(trial.folder / "home", site, store_uri=f"s3://{BUCKET}/kills", environment=environment)
    place.prepare_tracker()
    trace = trial.folder / "trace"
    inputs = {"num_steps": 12, "num_items": 2, "seed": trial.seed}
    try:
        for number, (machine, at) in enumerate((("one", 4), ("two", 9))):
            start = partial(
                place.start_run, "toy.train", inputs, machine=machine, TOY_TRACE=str(trace), TOY_STEP_S="0.2"
            )
            attempt = reach(start, trace, f"step {at}")
            if number == 0:
                server.restart(0.5)
                trial.progress(1, 3)
                attempt = reach(partial(_itself, attempt, start), trace, "step 6")
            attempt.send_signal(signal.SIGKILL)
            ended(attempt)
            trial.progress(number + 2, 3)
        done = place.run("toy.train", inputs, TOY_TRACE=str(trace))
        untold = [] if done.code else place.untold(done.document["key"], inputs["num_steps"])
        lost = [f"lost: exit {done.code}: {done.last_line}"] if done.code else [f"lost: {what}" for what in untold]
        with variables(environment):
            torn = evidence.torn_commits(Store(place.store_uri))
    finally:
        server.kill()
    folders = {"home": place.home, "store": server.folder}
    keys = {"secret key": SECRET_KEY, "session token": SESSION_TOKEN}
    lost += [f"lost: {what}" for name, folder in folders.items() for what in leaks(name, folder, keys)]
    lines = trace.read_text().split("\n")
    twice = [f"item {index}" for index in range(2) if lines.count(f"item {index}") != 1]
    twice += [f"step {step}" for step in SETTLED_STEPS if lines.count(f"step {step}") != 1]
    doubled = [f"doubled: {what} was done {lines.count(what)} times" for what in twice]
    bad = bool(lost or doubled or torn)
    what = (
        "kill -9 of the S3 server and of the component, on two machines, in mid run; the call repeated as Airflow does"
    )
    return Count(
        what=what,
        injected=3,
        lost=len(lost),
        doubled=len(doubled),
        torn=len(torn),
        recovered=0 if bad else 3,
        findings=(*lost, *doubled, *torn),
    )
