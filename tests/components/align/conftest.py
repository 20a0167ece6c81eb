"""Films of a tiny model, collected and labelled once for everybody who only reads them."""

import dataclasses
from typing import Any

import pytest

PROMPTS = [
    "a red square moves right on a blue background",
    "a green circle moves left on a yellow background",
    "two pink triangles move up on a cyan background",
]
COLLECT: dict[str, Any] = {"prompts": PROMPTS, "num_seeds": 4, "num_steps": 3, "max_pairs": 4, "num_threads": 1}
TUNE: dict[str, Any] = {
    "num_steps": 6,
    "batch_size": 4,
    "warmup_steps": 1,
    "checkpoint_every_steps": 2,
    "num_threads": 1,
}


@dataclasses.dataclass(frozen=True)
class Round:
    """One round on a tiny model: what each component gave."""

    trained: Any
    films: Any
    labels: Any
    tuned: Any


@pytest.fixture(scope="session")
def first_round(trained: Any) -> Round:
    """Collect, label by the oracle, tune."""
    model_uri = trained.outputs.model_uri
    films = trained.run("align.collect", model_uri=model_uri, reference_uri=model_uri, **COLLECT)
    labels = trained.run("align.label", films_uri=films.films_uri)
    tuned = trained.run(
        "align.tune", model_uri=model_uri, films_uri=films.films_uri, labels_uri=labels.labels_uri, **TUNE
    )
    return Round(trained, films, labels, tuned)


@pytest.fixture
def collect_inputs() -> dict[str, Any]:
    """Inputs of the collection."""
    return dict(COLLECT)


@pytest.fixture
def tune_inputs() -> dict[str, Any]:
    """Inputs of the tuning."""
    return dict(TUNE)
