"""A running flywheel in which one process after the other is killed with -9; what it ends with is what counts."""

import random
import signal
import time
from collections import Counter
from typing import Any

import aftermath
import evidence
import pipelines
from deployments import Deployment, ended, make_site
from flywheels import AIRFLOW, DAG_ID, Flywheel
from http_faults import await_line
from places import BUCKET, ObjectServer, s3_environment, variables
from record import Count, Trial
from telecine.storage import Store
from telecine.work import runs

NUM_KILLS = 20
BETWEEN_S = (3.0, 15.0)
KINDS = ("component", "task", "mlflow", "s3", *AIRFLOW)
NUM_EACH = 2
"""How often each kind of process is killed at least; the rest of the kills may meet any."""
TIMEOUT_S = 900.0
PARAMS: dict[str, Any] = {
    "render_num_films": 2,
    "render_num_frames": 48,
    **{f"train_{name}": value for name, value in pipelines.TRAINING.items()},
    "train_num_steps": 40,
    "sample_num_steps": 2,
    "sample_prompts": ["a red circle moves left on a blue background"],
    "sample_seeds": [0],
}


def process_kills(trial: Trial) -> Count:
    """See the module; short, two kills of a component and the S3 server without Airflow."""
    return _short(trial) if trial.size == "short" else _full(trial)


def _full(trial: Trial) -> Count:
    flywheel = Flywheel(trial.folder / "flywheel", make_site(trial.folder / "site"))
    killed: Counter[str] = Counter()
    slugs: list[str] = []
    problems: list[str] = []
    try:
        flywheel.prepare()
        problems += aftermath.orphan_is_collected(flywheel, trial.folder / "trace")
        run = _kill(trial, flywheel, killed, slugs, problems)
        deadline = time.monotonic() + TIMEOUT_S
        while _goes_on(flywheel, run) != "success":
            if time.monotonic() > deadline:
                raise TimeoutError(f"the run {run} did not end within {TIMEOUT_S:.0f} s")
            time.sleep(2.0)
        found = aftermath.judge(trial, flywheel, slugs, PARAMS)
        trial.progress(NUM_KILLS + 1, NUM_KILLS + 1)
    finally:
        flywheel.close()
    lost, doubled, torn = problems + found["lost"], found["doubled"], found["torn"]
    victims = ", ".join(f"{count} {name}" for name, count in sorted(killed.items()))
    return Count(
        what=f"kill -9 of random processes of a running flywheel on s3://, {len(slugs)} runs to their end: {victims}; "
        "gc of any age before, in mid run and after, then the registered version loaded and sampled",
        injected=killed.total(),
        lost=len(lost),
        doubled=len(doubled),
        torn=len(torn),
        recovered=0 if lost or doubled or torn else killed.total(),
        findings=(*lost, *doubled, *torn),
    )


def _kill(trial: Trial, flywheel: Flywheel, killed: "Counter[str]", slugs: list[str], problems: list[str]) -> str:
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
        if _goes_on(flywheel, run) == "success":
            run = _trigger(flywheel, trial.seed, slugs)
        alive = flywheel.victims()
        name = next((card for card in cards if card in alive), None)
        if name is not None:
            cards.remove(name)
            flywheel.kill(name, draw.choice(alive[name]))
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
    slugs.append(runs.slug(DAG_ID, run))
    return run


def _goes_on(flywheel: Flywheel, run: str) -> str:
    """State of a run; a failed one is cleared, as a person would."""
    path = f"dags/{DAG_ID}/dagRuns/{run}"
    state = str(flywheel.call("GET", path)["state"])
    if state == "failed":
        flywheel.call("POST", f"{path}/clear", {"dry_run": False, "only_failed": True})
    return state


def _short(trial: Trial) -> Count:
    """One component and the S3 server killed in mid run, each once, and the call repeated as Airflow does."""
    site, server = make_site(trial.folder / "site"), ObjectServer(trial.folder / "objects")
    environment = s3_environment(server.port) | {"TELECINE_STORE_RETRY_S": "10"}
    place = Deployment(trial.folder / "home", site, store_uri=f"s3://{BUCKET}/kills", environment=environment)
    place.prepare_tracker()
    trace = trial.folder / "trace"
    inputs = {"num_steps": 12, "num_items": 2, "seed": trial.seed}
    try:
        first = place.start_run("toy.train", inputs, TOY_TRACE=str(trace), TOY_STEP_S="0.2")
        await_line(trace, "step 4")
        server.restart(0.5)
        trial.progress(1, 2)
        await_line(trace, "step 8")
        first.send_signal(signal.SIGKILL)
        ended(first)
        done = place.run("toy.train", inputs, TOY_TRACE=str(trace))
        trial.progress(2, 2)
        with variables(environment):
            torn = evidence.torn_commits(Store(place.store_uri))
    finally:
        server.kill()
    lines = trace.read_text().split()
    lost = [] if done.code == 0 else [f"lost: exit {done.code}: {done.last_line}"]
    twice = [] if lines.count("item") == 2 else [f"doubled: items were made again: {lines}"]
    bad = bool(lost or twice or torn)
    what = "kill -9 of the S3 server and of the component in mid run, the call repeated as Airflow does"
    return Count(
        what=what,
        injected=2,
        lost=len(lost),
        doubled=len(twice),
        torn=len(torn),
        recovered=0 if bad else 2,
        findings=(*lost, *twice, *torn),
    )
