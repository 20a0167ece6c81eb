"""A training whose processes are killed with -9 and called again ends as the undisturbed one does, bit for bit."""

import dataclasses
import json
import random
import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any

import evidence
import training_data
import training_moments
from deployments import CODE_RETRY, Deployment, Ended, ended, make_site
from record import Count, Trial
from telecine.storage import Store
from telecine.work import attempts
from training_moments import LAST_MOMENTS, MOMENTS, Training

COMPONENT, RUN = "pretrain.train", "kills"
TRAINING: dict[str, Any] = {
    "num_steps": 150,
    "batch_size": 12,
    "learning_rate": 3e-3,
    "warmup_steps": 4,
    "depth": 3,
    "num_experts": 2,
    "patch_px": 4,
    "checkpoint_every_steps": 5,
    "eval_every_steps": 20,
    "eval_draws": 2,
    "num_threads": 1,
}
SHORT = {"num_steps": 60, "batch_size": 4, "depth": 1}
EVERYWHERE = (*MOMENTS, *MOMENTS[1:4], *LAST_MOMENTS)
KILLS: dict[str, dict[int, tuple[str, ...]]] = {
    "short": {1: ("save", "step")},
    "full": {1: EVERYWHERE, 2: EVERYWHERE},
}
"""Moments of the kills by number of processes."""
CHAIN = (2, 1, 2)
"""Numbers of processes of one training that is stopped twice."""
CHAIN_STEPS, CHAIN_RTOL = 40, 1e-3
GONE_S = 60.0
"""For so long a process that follows may take to notice, while it imports, that nobody leads."""
MAX_UNATTRIBUTED_RATIO = 0.02


@dataclasses.dataclass
class Found:
    """What was met so far."""

    killed: "Counter[str]" = dataclasses.field(default_factory=Counter)
    lost: list[str] = dataclasses.field(default_factory=list)
    doubled: list[str] = dataclasses.field(default_factory=list)
    torn: list[str] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True)
class Calm:
    """The undisturbed training: its deployment, its result document and how long it took until it stepped."""

    place: Deployment
    document: dict[str, Any]
    init_s: float


def training_kills(trial: Trial) -> Count:
    """See the module; in full with one and with two processes, and once with two, one and two in turn."""
    site, found, draw = make_site(trial.folder / "site"), Found(), random.Random(trial.seed)  # noqa: S311 - moments
    kills = KILLS[trial.size]
    chained = CHAIN if trial.size == "full" else ()
    total = sum(len(moments) for moments in kills.values()) + max(0, len(chained) - 1)
    inputs = TRAINING | (SHORT if trial.size == "short" else {}) | {"seed": trial.seed}
    for num_processes, moments in kills.items():
        calm = _calm(trial.folder / f"calm-{num_processes}", site, inputs | {"num_processes": num_processes})
        place = _place(trial.folder / f"shaken-{num_processes}", site)
        given = calm.document["inputs"] | {"dataset_uri": str(training_data.write_dataset(place.home))}
        order = _shuffled(moments, draw)
        for number, moment in enumerate(order, 1):
            if not _kill(place, given, moment, calm.init_s, draw, found, is_last=number == len(order)):
                break
            trial.progress(found.killed.total(), total)
        done = place.run(COMPONENT, given, "--run", RUN)
        _judge(place, done, calm, found, patient=trial.size == "full")
    if chained:
        _chain(trial.folder, site, inputs, chained, draw, found)
        trial.progress(found.killed.total(), total)
    return _count(found)


def _count(found: Found) -> Count:
    good = not (found.lost or found.doubled or found.torn)
    victims = ", ".join(f"{count} {name}" for name, count in sorted(found.killed.items()))
    return Count(
        what=f"kill -9 of the processes of a training at random moments, the call repeated: {victims}; then its losses "
        "and files against the undisturbed training's, bit for bit, MLflow's curve, the ledger, and what gc leaves",
        injected=found.killed.total(),
        lost=len(found.lost),
        doubled=len(found.doubled),
        torn=len(found.torn),
        recovered=found.killed.total() if good else 0,
        findings=(*found.lost, *found.doubled, *found.torn),
    )


def _place(folder: Path, site: Path) -> Deployment:
    place = Deployment(folder, site, environment={"OMP_NUM_THREADS": "1"})
    place.prepare_tracker()
    return place


def _calm(folder: Path, site: Path, inputs: dict[str, Any]) -> Calm:
    place = _place(folder, site)
    given = inputs | {"dataset_uri": str(training_data.write_dataset(place.home))}
    began = time.time()
    done = place.run(COMPONENT, given, "--run", RUN)
    if done.code != 0:
        raise RuntimeError(f"the undisturbed training ended with {done.code}: {done.last_line}")
    times = _last_attempt(place)["ledger"]["times"]
    init_s = times["born"] - began + times["seconds"]["init"]
    return Calm(place, done.document | {"inputs": given}, init_s)


def _shuffled(moments: tuple[str, ...], draw: random.Random) -> list[str]:
    """In any order, but those after the last step at the end."""
    early = [moment for moment in moments if moment not in LAST_MOMENTS]
    draw.shuffle(early)
    return early + [moment for moment in moments if moment in LAST_MOMENTS]


def _kill(
    place: Deployment,
    inputs: dict[str, Any],
    moment: str,
    init_s: float,
    draw: random.Random,
    found: Found,
    *,
    is_last: bool,
) -> bool:
    """Start an attempt and kill one of its processes at a moment; False where nothing is left to be killed after it.

    A rank that follows has done its part when the model is measured and written, and rank 0 waits for its farewell
    alone. Killed before that it takes rank 0 along, and after it nothing is missing: either is right, if the bytes are.
    So that is the last kill.
    """
    training = Training(
        place.start_run(COMPONENT, inputs, "--run", RUN),
        _work(place),
        init_s=init_s,
        every_steps=inputs["checkpoint_every_steps"],
        num_steps=inputs["num_steps"],
    )
    if not training.reach(moment, draw):
        done = ended(training.process)
        found.lost.append(f"lost: an attempt ended with {done.code} before the moment {moment!r}: {done.last_line}")
        return False
    others = training_moments.followers(training.process)
    at_the_end = moment == "final"
    rank = draw.randrange(inputs["num_processes"]) if others and (is_last or not at_the_end) else 0
    training_moments.kill(others[rank - 1] if rank else training.process.pid)
    found.killed[f"rank {rank} of {inputs['num_processes']} ({moment})"] += 1
    done = ended(training.process)
    expected = [CODE_RETRY, *([0] if at_the_end else [])] if rank else [-signal.SIGKILL]
    if done.code not in expected:
        found.lost.append(f"lost: rank {rank} killed ({moment}): exit {done.code}, expected {expected}: {done.err}")
    left = training_moments.left_after(place.home, GONE_S)
    found.lost += [f"lost: rank {rank} killed ({moment}): process {pid} is left" for pid in left]
    found.torn += [f"torn: after {moment}: {problem}" for problem in evidence.torn_commits(Store(place.store_uri))]
    return not list(_work(place).glob("*/commit.json"))


def _judge(place: Deployment, done: Ended, calm: Calm, found: Found, *, patient: bool) -> None:
    """Compare what the disturbed training ended with."""
    if done.code != 0:
        found.lost.append(f"lost: the last call ended with {done.code}: {done.last_line}")
        return
    store = Store(place.store_uri)
    document, expected = _training(done.document), _training(calm.document)
    if document["history"] != expected["history"]:
        found.lost.append("lost: the history of losses differs from the undisturbed training's")
    if evidence.digests_of(store, done.document) != evidence.digests_of(Store(calm.place.store_uri), calm.document):
        found.lost.append("lost: the digests differ from the undisturbed training's")
    _judge_curve(place, done.document["key"], document["history"], found)
    _judge_ledger(place, found, has_many=patient)
    found.lost += [f"lost: process {pid} is left" for pid in training_moments.left_after(place.home, 5.0)]
    found.lost += _orphans(place, store, done.document["key"], patient=patient)
    found.torn += [f"torn: {problem}" for problem in evidence.torn_commits(store)]


def _judge_curve(place: Deployment, key: str, history: dict[str, Any], found: Found) -> None:
    children = place.children(key)
    if len(children) != 1:
        found.doubled.append(f"doubled: the MLflow children are {children}")
        return
    found.doubled += [f"doubled: {name} twice at step {step}" for name, step in place.doubled_steps(children[0])]
    for name in ("train/loss", "train/grad_norm", "eval/loss"):
        if [list(point) for point in place.series(children[0], name)] != history[name]:
            found.lost.append(f"lost: MLflow's {name} is not the training's")


def _judge_ledger(place: Deployment, found: Found, *, has_many: bool) -> None:
    """The last attempt's ledger has to account for all attempts, from the first one's birth to its own end.

    What an attempt did after its last heartbeat nobody knows: it is queue. Of a few short attempts that may be all of
    their steps, so that no lost work is known; of many it is not.
    """
    states = _attempts(place)
    total = states[-1]["ledger"]["total"]
    whole_s = states[-1]["beat"] - states[0]["started"]
    if abs(sum(total.values()) - whole_s) > MAX_UNATTRIBUTED_RATIO * whole_s:
        found.lost.append(f"lost: the ledger accounts for {sum(total.values()):.1f} of {whole_s:.1f} s")
    if total["unattributed"] > MAX_UNATTRIBUTED_RATIO * whole_s:
        found.lost.append(f"lost: the ledger leaves {total['unattributed']:.1f} of {whole_s:.1f} s unattributed")
    if has_many and not total["lost_work"] > 0:
        found.lost.append("lost: the ledger knows of no lost work")


def _orphans(place: Deployment, store: Store, key: str, *, patient: bool) -> list[str]:
    """What is left of the killed attempts after ``telecine gc``; what a clock or a write left may have to grow old."""
    if patient:
        time.sleep(attempts.LEASE_S + 5.0)
    collected = place.call("gc", "--keep-days", "1")
    if collected.code != 0:
        return [f"lost: telecine gc ended with {collected.code}: {collected.last_line}"]
    young = () if patient else ("clock/", "#")
    expected = (training_data.SHARD, *young)
    left = evidence.astray(store, [f"work/{COMPONENT}/{key}"])
    return [f"lost: after gc {what}" for what in left if not any(mark in what for mark in expected)]


def _chain(
    folder: Path, site: Path, inputs: dict[str, Any], sizes: tuple[int, ...], draw: random.Random, found: Found
) -> None:
    """Stop one training with SIGTERM and go on with another number of processes, which may differ by rounding alone.

    The model is dense: experts choose among the tokens of one rank, so their number of ranks changes what is computed.
    """
    dense = inputs | {"num_experts": 0, "num_steps": CHAIN_STEPS}
    calm = _calm(folder / "calm-chain", site, dense | {"num_processes": 1})
    place = _place(folder / "chain", site)
    given = dense | {"dataset_uri": str(training_data.write_dataset(place.home))}
    for num_processes in sizes[:-1]:
        process = place.start_run(COMPONENT, given | {"num_processes": num_processes}, "--run", RUN)
        training = Training(
            process,
            _work(place),
            init_s=calm.init_s,
            every_steps=given["checkpoint_every_steps"],
            num_steps=CHAIN_STEPS,
        )
        if training.reach("prune", draw):
            process.send_signal(signal.SIGTERM)
            found.killed[f"SIGTERM to {num_processes}"] += 1
        done = ended(process)
        if done.code != CODE_RETRY or "Traceback" in done.err:
            found.lost.append(f"lost: SIGTERM to {num_processes}: exit {done.code}: {done.err}")
    done = place.run(COMPONENT, given | {"num_processes": sizes[-1]}, "--run", RUN)
    if done.code != 0:
        found.lost.append(f"lost: the last of {sizes} ended with {done.code}: {done.last_line}")
        return
    keys = [name for name in Store(place.store_uri).folders(f"work/{COMPONENT}") if name != "items"]
    found.doubled += [f"doubled: the addresses {keys}"] if len(keys) != 1 else []
    ours, theirs = (dict(_training(each)["history"]["train/loss"]) for each in (done.document, calm.document))
    apart = max(abs(ours.get(step, 0.0) - loss) / loss for step, loss in theirs.items())
    if ours.keys() != theirs.keys() or apart > CHAIN_RTOL:
        found.lost.append(f"lost: {sizes} processes in turn: losses differ by {apart:.1e}, limit {CHAIN_RTOL:.0e}")
    if (executed := _executed(place)) != CHAIN_STEPS:
        found.doubled.append(f"doubled: {executed} steps were done for {CHAIN_STEPS}, though every stop was saved")


def _training(document: dict[str, Any]) -> dict[str, Any]:
    path = Path(document["outputs"]["training_uri"].removeprefix("file://"))
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def _executed(place: Deployment) -> int:
    """Optimiser steps of all attempts together."""
    return sum(int(state["progress"]["values"].get("executed", 0)) for state in _attempts(place))


def _attempts(place: Deployment) -> list[dict[str, Any]]:
    """Last states of all attempts, the oldest first."""
    states = [json.loads(path.read_text()) for path in _work(place).glob("*/beats/*.json")]
    return sorted(states, key=lambda state: float(state["started"]))


def _last_attempt(place: Deployment) -> dict[str, Any]:
    return _attempts(place)[-1]


def _work(place: Deployment) -> Path:
    return place.home / "store" / "work" / COMPONENT
