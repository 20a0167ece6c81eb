"""The pipeline through a proxy that breaks requests, and the store that is gone for a while."""

import json
import random
import signal
import subprocess
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import evidence
import pipelines
from deployments import CODE_RETRY, Deployment, ended, make_site
from fault_proxy import FaultProxy, Plan
from places import BUCKET, ObjectServer, s3_environment, variables
from record import Count, Trial
from telecine.storage import Store
from telecine.work.digests import Digests

HOURS = 5
PLANS = {
    "500": Plan({"500": 0.25}),
    "503 slow down": Plan({"503": 0.25}),
    "cut replies": Plan({"cut_reply": 0.12}),
    "cut requests": Plan({"cut_request": 0.2}),
    "replies lost": Plan({"reply_lost": 0.12}),
    "doubled puts": Plan({"doubled_now": 0.3}),
    "late doubled puts": Plan({"doubled_late": 0.3}),
    "stale listings": Plan({"stale": 0.7}),
    "slow replies": Plan({"slow": 0.1}),
    "clock ahead": Plan({"503": 0.05}, skew=timedelta(hours=HOURS)),
    "clock behind": Plan({"503": 0.05}, skew=-timedelta(hours=HOURS)),
    "everything": Plan(
        dict.fromkeys(("500", "503", "cut_reply", "cut_request", "reply_lost", "doubled_now", "stale", "slow"), 0.04)
    ),
}
SHORT = ("everything", "stale listings", "clock behind")


def s3_faults(trial: Trial) -> Count:
    """Run the pipeline under each fault; its digests have to be those of an undisturbed run.

    Under a clock that is wrong two machines race besides, and garbage is collected.
    """
    site, server = make_site(trial.folder / "site"), ObjectServer(trial.folder / "objects")
    run = pipelines.run_toy if trial.size == "short" else pipelines.run_all
    names = SHORT if trial.size == "short" else tuple(PLANS)
    proxy = FaultProxy(server.port, trial.seed)
    problems: dict[str, list[str]] = {kind: [] for kind in ("lost", "doubled", "torn", "revived")}
    injected = recovered = retries = 0

    def place(name: str) -> Deployment:
        uri = f"s3://{BUCKET}/{name.replace(' ', '-')}"
        environment = s3_environment(proxy.server_port) | {"TELECINE_STORE_RETRY_S": "3"}
        made = Deployment(trial.folder / name, site, store_uri=uri, environment=environment)
        made.prepare_tracker()
        return made

    try:
        reference = place("undisturbed")
        expected = _digests(reference, server, run(reference, trial.seed)[0])
        for index, name in enumerate(names):
            proxy.plan, before = PLANS[name], proxy.injected.total()
            here = place(name)
            try:
                steps, tried = run(here, trial.seed)
            except pipelines.Broke as broke:
                steps, tried = {}, 0
                problems["lost"].append(f"lost: {name}: {broke}")
            proxy.plan = Plan()
            done = proxy.injected.total() - before
            injected, retries = injected + done, retries + tried
            if steps:
                found = _judge(here, server, steps, expected, late="doubled_late" in PLANS[name].rates)
                if PLANS[name].skew:
                    proxy.plan = Plan(skew=PLANS[name].skew)
                    found["lost"] += _race_and_collect(here, server, trial.folder / f"{name} trace", trial.seed + 1)
                    proxy.plan = Plan()
                for kind, them in found.items():
                    problems[kind] += [f"{kind}: {name}: {problem}" for problem in them]
                recovered += 0 if found["lost"] or found["doubled"] or found["torn"] else done
            trial.progress(index + 1, len(names))
    finally:
        proxy.close()
        server.kill()
    kinds = ", ".join(f"{count} {name}" for name, count in sorted(proxy.injected.items()))
    return Count(
        what=f"the pipeline through a fault proxy, {len(names)} mixtures of faults, {retries} calls repeated: {kinds}; "
        f"{len(problems.pop('revived'))} records of pruned checkpoints made again by late copies, which readers refuse",
        injected=injected,
        recovered=recovered,
        findings=tuple(finding for them in problems.values() for finding in them),
        **{kind: len(them) for kind, them in problems.items()},
    )


def _digests(place: Deployment, server: ObjectServer, steps: dict[str, dict[str, Any]]) -> dict[str, dict[str, str]]:
    with variables(s3_environment(server.port)):
        store = Store(place.store_uri)
        return {name: evidence.digests_of(store, document) for name, document in steps.items()}


def _judge(
    place: Deployment,
    server: ObjectServer,
    steps: dict[str, dict[str, Any]],
    expected: dict[str, dict[str, str]],
    *,
    late: bool,
) -> dict[str, list[str]]:
    """What a run left behind, read past the proxy.

    A copy of the request that committed a checkpoint can arrive after the checkpoint was pruned, and make its record
    again. That is counted as revived and not as torn where a reader refuses the record.
    """
    found = _digests(place, server, steps)
    lost = [f"{name} has other digests" for name in expected if found[name] != expected[name]]
    doubled = []
    with variables(s3_environment(server.port)):
        store = Store(place.store_uri)
        revived = evidence.refused_checkpoints(store, Digests(place.home)) if late else []
        torn = [problem for problem in evidence.torn_commits(store) if problem.split(" ")[0] not in revived]
        for name in steps:
            works = [key for key in store.folders(f"work/{name}") if key != "items"]
            if works != [steps[name]["key"]]:
                doubled.append(f"{name} has the addresses {works}")
    for name, document in steps.items():
        children = place.children(document["key"])
        if len(children) != 1:
            doubled.append(f"{name} has the MLflow children {children}")
        doubled += [f"{name}: {metric} twice at step {step}" for metric, step in place.doubled_steps(children[0])]
        seen = place.steps(children[0], "train/loss")
        if name.endswith("train") and sorted(set(seen)) != list(range(1, 7)):
            lost.append(f"{name} has the steps {seen}")
    return {"lost": lost, "doubled": doubled, "torn": torn, "revived": revived}


SKEW_STEPS = 12
GC_SPARES_S = 3.0
"""What a task met so lately, gc does not touch."""
WORK_DEPTH = 4
"""Parts of the path of a work's commit."""


def _race_and_collect(place: Deployment, server: ObjectServer, trace: Path, seed: int) -> list[str]:
    """What goes wrong with ages: of a rival on another machine, and of what gc may take.

    The skew is five hours, so whoever reads a machine's clock takes the living for dead, or keeps what should go.
    """
    inputs = {"num_steps": SKEW_STEPS, "num_items": 1, "seed": seed}
    pace = {"TOY_TRACE": str(trace), "TOY_STEP_S": "0.5"}
    racers = [place.start_run("toy.train", inputs, "--run", "far", machine="elsewhere", **pace)]
    await_line(trace, "step 2")
    racers.append(place.start_run("toy.train", inputs, "--run", "near", **pace))
    problems = _living(place, "far")
    problems += gc(place, "0")
    results = [ended(racer) for racer in racers]
    if [result.code for result in results] != [0, 0]:
        return [*problems, *(f"a racer ended with {result.code}: {result.last_line}" for result in results)]
    first, second = (result.document for result in results)
    if sorted([first["decision"], second["decision"]]) != ["lost", "ran"]:
        problems.append(f"the racers {first['decision']} and {second['decision']}")
    problems += place.untold(first["key"], SKEW_STEPS)
    works = _works(place, server)
    problems += gc(place, "0.1")
    problems += [f"gc took {path}, which is young" for path in sorted(works - _works(place, server))]
    time.sleep(GC_SPARES_S)
    problems += gc(place, "0")
    return problems + [f"gc left {path}" for path in sorted(_works(place, server))]


def _living(place: Deployment, run: str) -> list[str]:
    asked = place.call("status", run, "--json")
    task: dict[str, Any] = json.loads(asked.out)["tasks"][0] if asked.code == 0 else {"state": asked.last_line}
    age_s = task.get("heartbeat_age_s")
    good = task["state"] == "running" and age_s is not None and abs(age_s) < 60
    return [] if good else [f"an attempt at work on another machine is told as {task['state']}, {age_s} s old"]


def gc(place: Deployment, keep_days: str) -> list[str]:
    """Collect garbage; what was wrong with that."""
    done = place.call("gc", "--keep-days", keep_days)
    return [] if done.code == 0 else [f"telecine gc ended with {done.code}: {done.last_line}"]


def _works(place: Deployment, server: ObjectServer) -> set[str]:
    """Commits of works that stand, read past the proxy; no component here has effects."""
    with variables(s3_environment(server.port)):
        return {path for path in evidence.commits_in(Store(place.store_uri)) if len(path.split("/")) == WORK_DEPTH}


OUTAGE_S = {"short": 4.0, "full": 60.0}
RETRY_S = {"short": "1", "full": "30"}


def store_outage(trial: Trial) -> Count:
    """Take the store away in mid run: the call ends with 75, and after it is back the same call goes on.

    What it ends with, in the store and in MLflow, is what an undisturbed run ends with.
    """
    site, server = make_site(trial.folder / "site"), ObjectServer(trial.folder / "objects")
    proxy = FaultProxy(server.port, trial.seed)
    environment = s3_environment(proxy.server_port) | {"TELECINE_STORE_RETRY_S": RETRY_S[trial.size]}
    place = Deployment(trial.folder / "home", site, store_uri=f"s3://{BUCKET}/outage", environment=environment)
    place.prepare_tracker()
    trace = trial.folder / "trace"
    inputs = {"num_steps": 24, "num_items": 3, "checkpoint_every_steps": 2, "seed": trial.seed}
    at = random.Random(trial.seed).randint(5, 9)  # noqa: S311 - a moment, no secret
    problems: list[str] = []
    try:
        process = place.start_run("toy.train", inputs, TOY_TRACE=str(trace), TOY_STEP_S="0.2")
        await_line(trace, f"step {at}")
        port = proxy.server_port
        proxy.close()
        time.sleep(OUTAGE_S[trial.size])
        proxy = FaultProxy(server.port, trial.seed, port=port)
        problems += _expect(ended(process), CODE_RETRY, "the call that was running")
        trial.progress(1, 2)
        done = place.run("toy.train", inputs, TOY_TRACE=str(trace))
        problems += _expect(done, 0, "the call after it is back")
        if done.code == 0:
            calm = Deployment(trial.folder / "calm", site)
            calm.prepare_tracker()
            expected = evidence.digests_of(Store(calm.store_uri), calm.run("toy.train", inputs).document)
            found = _digests(place, server, {"toy.train": done.document})["toy.train"]
            problems += [] if found == expected else ["it ended at other digests than an undisturbed run"]
            problems += place.untold(done.document["key"], inputs["num_steps"])
        trial.progress(2, 2)
    finally:
        proxy.close()
        server.kill()
    lines = trace.read_text().split("\n")
    doubled = [f"item {index} was made twice" for index in range(3) if lines.count(f"item {index}") != 1]
    kept = [step for step in range(1, at - 1) if lines.count(f"step {step}") != 1]
    doubled += [f"steps {kept} were done again though a checkpoint held them"] if kept else []
    return Count(
        what=f"the store refuses connections for {OUTAGE_S[trial.size]:.0f} s in mid run: exit 75, then it goes on",
        injected=1,
        lost=len(problems),
        doubled=len(doubled),
        recovered=int(not problems and not doubled),
        findings=(*problems, *doubled),
    )


def _expect(done: Any, code: int, what: str) -> list[str]:
    return [] if done.code == code else [f"{what}: exit {done.code}, expected {code}: {done.last_line}"]


def await_line(path: Path, line: str, timeout_s: float = 240.0) -> None:
    """Wait until a file has a line."""
    deadline = time.monotonic() + timeout_s
    while not _has(path, line):
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {timeout_s:.0f} s for {line!r}")
        time.sleep(0.02)


def reach(start: Callable[[], "subprocess.Popen[str]"], trace: Path, line: str) -> "subprocess.Popen[str]":
    """The attempt that wrote a line: one that ends with 75 before is followed by another, as Airflow does."""
    while True:
        attempt = start()
        while attempt.poll() is None and not _has(trace, line):
            time.sleep(0.02)
        if _has(trace, line):
            return attempt
        done = ended(attempt)
        if done.code != CODE_RETRY:
            raise RuntimeError(f"it ended with {done.code} before {line!r}: {done.last_line}")


def _has(path: Path, line: str) -> bool:
    return path.exists() and line in path.read_text().split("\n")


def zombie_attempt(trial: Trial) -> Count:
    """Stop an attempt in mid training, let a successor commit, wake it up: it yields, and nothing has changed."""
    site, server = make_site(trial.folder / "site"), ObjectServer(trial.folder / "objects")
    uris = {"file": "", "s3": f"s3://{BUCKET}/zombie"}
    draw = random.Random(trial.seed)  # noqa: S311 - moments, no secrets
    turns = [(kind, draw.choice([3, 5, 7, 9])) for kind in uris for _ in range({"short": 1, "full": 5}[trial.size])]
    turns = turns if trial.size == "full" else [("file", 3)]  # a step takes a second
    lost: list[str] = []
    doubled: list[str] = []
    bad = 0
    try:
        for index, (kind, at) in enumerate(turns):
            place = Deployment(
                trial.folder / f"{kind}-{index}", site, store_uri=uris[kind], environment=s3_environment(server.port)
            )
            place.prepare_tracker()
            problems = _wake(place, trial.folder / f"trace-{index}", trial.seed + index, at)
            lost += [f"lost: {kind} at step {at}: {problem}" for problem in problems["lost"]]
            doubled += [f"doubled: {kind} at step {at}: {problem}" for problem in problems["doubled"]]
            bad += any(problems.values())
            trial.progress(index + 1, len(turns))
    finally:
        server.kill()
    return Count(
        what=f"{len(turns)} attempts stopped in mid training that wake up after a successor has committed",
        injected=len(turns),
        lost=len(lost),
        doubled=len(doubled),
        recovered=len(turns) - bad,
        findings=(*lost, *doubled),
    )


PAUSE_S = 0.4
"""From a step's end into the next one: a process that is stopped in a write to SQLite locks everybody out."""


def _wake(place: Deployment, trace: Path, seed: int, at: int) -> dict[str, list[str]]:
    inputs = {"num_steps": 12, "num_items": 2, "seed": seed}
    zombie = place.start_run("toy.train", inputs, "--run", "zombie", TOY_TRACE=str(trace), TOY_STEP_S="1")
    await_line(trace, f"step {at}")
    time.sleep(PAUSE_S)
    zombie.send_signal(signal.SIGSTOP)
    successor = place.run("toy.train", inputs, "--run", "zombie")
    if successor.code != 0:
        zombie.kill()
        return {"lost": [f"the successor ended with {successor.code}: {successor.last_line}"], "doubled": []}
    before = _state(place, successor.document)
    zombie.send_signal(signal.SIGCONT)
    woken = ended(zombie)
    after = _state(place, successor.document)
    lost = [f"{name} changed from {before[name]} to {after[name]}" for name in before if before[name] != after[name]]
    if woken.code != 0 or woken.document["decision"] != "lost":
        lost.append(f"the zombie ended with {woken.code}: {woken.last_line}")
    doubled = [f"{metric} twice at step {step}" for metric, step in place.doubled_steps(after["children"][0])]
    return {"lost": lost + after["torn"], "doubled": doubled}


def _state(place: Deployment, document: dict[str, Any]) -> dict[str, Any]:
    """Everything that a zombie may not change."""
    prefix = f"work/{document['component']}/{document['key']}"
    children = place.children(document["key"])
    with variables(place.environment):
        store = Store(place.store_uri)
        steps = [path.split("/")[-2] for path in evidence.commits_in(store) if f"{prefix}/checkpoints/" in path]
        return {
            "commit": store.read(f"{prefix}/commit.json"),
            "checkpoints": steps,
            "torn": evidence.torn_commits(store),
            "children": children,
            "metrics": place.steps(children[0], "train/loss"),
        }
