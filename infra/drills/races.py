"""Two processes, one address: who wins, what is left, and what a reader and MLflow see of it."""

import dataclasses
import random
from pathlib import Path
from typing import Any

from deployments import Deployment, Ended, ended, make_site
from places import BUCKET, ObjectServer, s3_environment, variables
from record import Count, Trial
from telecine.storage import Store

NUM_PAIRS = {"short": 1, "full": 20}
STEPS = 12


@dataclasses.dataclass(frozen=True)
class Seen:
    """What one pair did."""

    lost: tuple[str, ...]
    doubled: tuple[str, ...]


def racing_pairs(trial: Trial) -> Count:
    """Pairs of ``telecine run`` that meet inside the component, on a local store and over HTTP."""
    site = make_site(trial.folder / "site")
    server = ObjectServer(trial.folder / "objects")
    environment = s3_environment(server.port)
    kinds = {
        "file": Deployment(trial.folder / "file", site),
        "s3": Deployment(trial.folder / "s3", site, store_uri=f"s3://{BUCKET}/races", environment=environment),
    }
    if trial.size == "short":  # else the first pair also races to make the tracker
        for place in kinds.values():
            place.prepare_tracker()
    draw = random.Random(trial.seed)  # noqa: S311 - shapes, no secrets
    pairs = [(kind, number) for number in range(NUM_PAIRS[trial.size]) for kind in kinds]
    lost: list[str] = []
    doubled: list[str] = []
    recovered = 0
    try:
        for index, (kind, number) in enumerate(pairs):
            seen = _race(trial.folder / f"meet-{index}", kinds[kind], kind, number, draw)
            lost += [f"lost: {kind} pair {number}: {problem}" for problem in seen.lost]
            doubled += [f"doubled: {kind} pair {number}: {problem}" for problem in seen.doubled]
            recovered += not (seen.lost or seen.doubled)
            trial.progress(index + 1, len(pairs))
    finally:
        server.kill()
    return Count(
        what=f"{NUM_PAIRS[trial.size]} pairs of telecine run at one address on file:// and as many on s3://",
        injected=len(pairs),
        lost=len(lost),
        doubled=len(doubled),
        recovered=recovered,
        findings=(*lost, *doubled),
    )


def _race(meet: Path, place: Deployment, kind: str, number: int, draw: random.Random) -> Seen:
    meet.mkdir()
    inputs = {
        "seed": number,
        "num_steps": STEPS,
        "num_items": draw.randint(0, 3),
        "file_bytes": draw.randint(1, 200_000),
    }
    pace = [str(round(draw.choice([0.0, 0.0, 0.01, 0.1]), 3)) for _ in range(2)]
    racers = [
        place.start_run(
            "toy.train", inputs, "--run", f"race-{number}", TOY_MEET=str(meet), TOY_MEMBERS="2", TOY_STEP_S=pace[index]
        )
        for index in range(2)
    ]
    results = [ended(racer) for racer in racers]
    if [result.code for result in results] != [0, 0]:
        return Seen(tuple(f"exit {result.code}: {result.last_line}" for result in results if result.code), ())
    return _judge(place, kind, results)


def _judge(place: Deployment, kind: str, results: list[Ended]) -> Seen:
    first, second = (result.document for result in results)
    lost, doubled = [], []
    if (first["outputs"], first["attempt"]) != (second["outputs"], second["attempt"]):
        lost.append("the racers were given different results")
    if sorted([first["decision"], second["decision"]]) != ["lost", "ran"]:
        lost.append(f"decisions {first['decision']} and {second['decision']}")
    left = attempts_left(place, first)
    if left != [first["attempt"]]:
        doubled.append(f"attempts left: {left}, committed: {first['attempt']}")
    children = place.children(first["key"])
    if len(children) != 1:
        doubled.append(f"MLflow children: {children}")
    for child in children[:1]:
        steps = place.steps(child, "train/loss")
        if steps != sorted(set(steps)):
            doubled.append(f"steps of train/loss: {steps}")
        if sorted(set(steps)) != list(range(1, STEPS + 1)):
            lost.append(f"steps of train/loss: {steps}")
    return Seen(tuple(lost), tuple(doubled))


def attempts_left(place: Deployment, document: dict[str, Any]) -> list[str]:
    """Attempts of a work that have files in the store."""
    with variables(place.environment):
        store = Store(place.store_uri)
        return store.folders(f"work/{document['component']}/{document['key']}/attempts")
