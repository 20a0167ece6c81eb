"""logging_vs_mlflow: what a training step pays for 20 metrics, against ``mlflow.log_metric`` for each of them.

A leg is a loop of computing and logging, and then whatever it takes until every point is on the server. What it adds to
a step is the wall time of both, less that of the computing alone, over the number of steps: a thread that sends
beside the loop is charged for. The tracker is an MLflow server on this machine; every leg writes a run of its own.
"""

import dataclasses
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import mlflow
import torch
from mlflow import MlflowClient
from mlflow.entities import Metric

import mlflow_local
from intervals import spread
from rows import Comparison, Trial
from telecine.tracking import RunTracker

if TYPE_CHECKING:
    from mlflow.utils.async_logging.run_operations import RunOperations

TARGET = 20.0
NUM_METRICS = 20
NUM_STEPS = {"short": {"ours": 60, "others": 3}, "full": {"ours": 1500, "others": 25}}
"""Ours takes more, so that its thread sends while the loop runs; what counts is a step."""
LEGS_PER_RUN = 2
SIZE = 256
PRODUCTS = 8

Log = Callable[[Mapping[str, float], int], None]


@dataclasses.dataclass(frozen=True)
class Way:
    """How to log a step, and how to wait until all is stored."""

    log: Log
    finish: Callable[[], None] = lambda: None


@dataclasses.dataclass(frozen=True)
class Leg:
    """Seconds a step: added by logging and by waiting at the end, added within the loop, inside the median call.

    ``problem`` is empty where the server holds every point once, with its step and value.
    """

    added_s: float
    added_in_loop_s: float
    call_s: float
    problem: str


def logging_vs_mlflow(trial: Trial) -> Comparison:
    """Legs of all ways in turn."""
    steps = NUM_STEPS[trial.size]
    num_rounds = LEGS_PER_RUN * trial.num_runs
    legs: dict[str, list[Leg]] = {name: [] for name in WAYS}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    trial.progress(0, num_rounds)
    try:
        with mlflow_local.server(trial.folder / "server") as url:
            mlflow.set_tracking_uri(url)
            client = MlflowClient(url)
            for number in range(-1, num_rounds):  # the first round is not counted
                for name in list(WAYS) if number % 2 else reversed(list(WAYS)):
                    num_steps = steps["ours"] if name == "ours" else steps["others"]
                    found = leg(client, WAYS[name], num_steps)
                    if number >= 0:
                        legs[name].append(found)
                trial.progress(number + 1, num_rounds)
    finally:
        torch.set_num_threads(threads)
    return compared(legs)


def leg(client: MlflowClient, make: Callable[[MlflowClient, str], Way], num_steps: int) -> Leg:
    """See the module; plain computing is measured before and after, over as many steps: a machine's speed drifts."""
    run_id = client.create_run("0").info.run_id
    way, calls_s = make(client, run_id), []
    before_s = _seconds(compute, num_steps)
    began = time.perf_counter()
    for step in range(num_steps):
        compute()
        logged = values(step)
        called = time.perf_counter()
        way.log(logged, step)
        calls_s.append(time.perf_counter() - called)
    in_loop = time.perf_counter()
    way.finish()
    finished = time.perf_counter()
    computing_s = (before_s + _seconds(compute, num_steps)) / 2
    loop_s, added_s = in_loop - began - computing_s, finished - began - computing_s
    problem = missing(client, run_id, num_steps)
    return Leg(added_s / num_steps, loop_s / num_steps, statistics.median(calls_s), problem)


def compute() -> None:
    """Some milliseconds of a training step: products that leave Python's lock to others."""
    x = torch.ones(SIZE, SIZE)
    for _ in range(PRODUCTS):
        x = (x @ x).clamp_(0.0, 1.0)


def values(step: int) -> dict[str, float]:
    """What a step logs."""
    return {f"train/metric_{number:02d}": (number + 1) / (step + 1) for number in range(NUM_METRICS)}


def missing(client: MlflowClient, run_id: str, num_steps: int) -> str:
    """What the server does not hold as it was logged, in words; empty where it holds all of it."""
    for name in values(0):
        found = sorted((point.step, point.value) for point in client.get_metric_history(run_id, name))
        expected = [(step, values(step)[name]) for step in range(num_steps)]
        if found != expected:
            return f"{name} has {len(found)} points of {num_steps}, or others than were logged"
    return ""


def _seconds(work: Callable[[], None], times: int) -> float:
    began = time.perf_counter()
    for _ in range(times):
        work()
    return time.perf_counter() - began


def _ours(client: MlflowClient, run_id: str) -> Way:
    tracker = RunTracker(client, run_id, run_id)
    return Way(tracker.metrics, tracker.complete)


def _log_metric(_: MlflowClient, run_id: str) -> Way:
    def log(values: Mapping[str, float], step: int) -> None:
        for name, value in values.items():
            mlflow.log_metric(name, value, step=step, synchronous=True, run_id=run_id)

    return Way(log)


def _log_metrics(_: MlflowClient, run_id: str) -> Way:
    def log(values: Mapping[str, float], step: int) -> None:
        mlflow.log_metrics(dict(values), step=step, synchronous=True, run_id=run_id)

    return Way(log)


def _log_batch(client: MlflowClient, run_id: str) -> Way:
    def log(values: Mapping[str, float], step: int) -> None:
        moment = int(time.time() * 1000)
        client.log_batch(run_id, metrics=[Metric(name, value, moment, step) for name, value in values.items()])

    return Way(log)


def _asynchronous(_: MlflowClient, run_id: str) -> Way:
    begun: list[RunOperations] = []

    def log(values: Mapping[str, float], step: int) -> None:
        operations = mlflow.log_metrics(dict(values), step=step, synchronous=False, run_id=run_id)
        assert operations is not None, "it returns them where it is asynchronous"
        begun.append(operations)

    def finish() -> None:
        for operations in begun:
            operations.wait()

    return Way(log, finish)


WAYS: dict[str, Callable[[MlflowClient, str], Way]] = {
    "ours": _ours,
    "log_metric": _log_metric,
    "log_metrics": _log_metrics,
    "log_batch": _log_batch,
    "asynchronous log_metrics": _asynchronous,
}


def compared(legs: dict[str, list[Leg]]) -> Comparison:
    """The row; it claims no ratio where a point is missing or doubled, or where what ours adds is lost in noise."""
    problems = [f"{name}: {found.problem}" for name, each in legs.items() for found in each if found.problem]
    if not _mean(legs["ours"], "added_s") > 0:
        problems.append("ours added no time, so the steps' own time was not measured well; measure on a quiet machine")
    pairs = list(zip(legs["ours"], legs["log_metric"], strict=True))
    gate = f"differs: {problems[0]}" if problems else "equal"
    stands, ratio, sure = not problems, _ratio(pairs), spread(_ratio, pairs)
    return Comparison(
        what=(
            f"milliseconds that logging {NUM_METRICS} metrics adds to a step, the wait until all are stored included, "
            "against mlflow.log_metric for each on a server of this machine"
        ),
        ours=1000 * _mean(legs["ours"], "added_s"),
        peer=1000 * _mean(legs["log_metric"], "added_s"),
        ratio=ratio if stands else None,
        low=sure.low if stands else None,
        high=sure.high if stands else None,
        limit="what the server takes to store a point, which is the same on both sides; of a step itself, an append",
        target=f"the peer's over ours >= {TARGET:.0f}",
        holds=stands and ratio >= TARGET,
        runs=len(pairs),
        quality_gate=gate,
        details={
            "what_low_and_high_are": sure.kind,
            "microseconds_a_step": {name: _line(found) for name, found in legs.items()},
        },
    )


def _ratio(pairs: Sequence[tuple[Leg, Leg]]) -> float:
    return sum(peer.added_s for _, peer in pairs) / sum(ours.added_s for ours, _ in pairs)


def _mean(legs: Sequence[Leg], name: str) -> float:
    return statistics.fmean(getattr(each, name) for each in legs)


def _line(legs: Sequence[Leg]) -> dict[str, Any]:
    names = {"added_s": "added, storing included", "added_in_loop_s": "added within the loop", "call_s": "in the call"}
    return {shown: 1e6 * _mean(legs, name) for name, shown in names.items()}
