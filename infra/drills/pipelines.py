"""A small real pipeline, from rendered films to a trained model, by ``telecine run`` processes."""

from typing import Any

from deployments import Deployment, Ended

RUN = "pipeline"


class Broke(Exception):
    """A step ended otherwise than with a result."""


def run_pipeline(
    place: Deployment, seed: int, num_steps: int = 6, num_films: int = 2
) -> tuple[dict[str, dict[str, Any]], int]:
    """Result document of each step, and how often one had to be called again after an exit code of 75."""
    steps: dict[str, dict[str, Any]] = {}
    retries = 0

    def step(name: str, **inputs: Any) -> dict[str, Any]:
        nonlocal retries
        done, tried = place.persist(name, inputs, "--run", RUN)
        retries += tried
        steps[name] = _document(name, done)
        outputs: dict[str, Any] = steps[name]["outputs"]
        return outputs

    videos = step("backlot.render", num_films=num_films, num_frames=48, seed=seed)["videos_uri"]
    clips = step("curate.split", videos_uri=videos)["clips_uri"]
    kept = step("curate.filter", clips_uri=clips)["clips_uri"]
    dataset = step("curate.encode", clips_uri=kept, videos_uri=videos)["dataset_uri"]
    step("pretrain.train", dataset_uri=dataset, **TRAINING | {"num_steps": num_steps})
    return steps, retries


TRAINING = {
    "num_steps": 6,
    "batch_size": 4,
    "depth": 1,
    "checkpoint_every_steps": 3,
    "eval_every_steps": 3,
    "eval_draws": 1,
    "num_threads": 1,
}


def run_toy(place: Deployment, seed: int) -> tuple[dict[str, dict[str, Any]], int]:
    """The same for one toy training, where seconds count."""
    inputs = {"seed": seed, "num_steps": 6, "num_items": 3, "file_bytes": 50_000}
    done, retries = place.persist("toy.train", inputs, "--run", RUN)
    return {"toy.train": _document("toy.train", done)}, retries


def run_all(place: Deployment, seed: int) -> tuple[dict[str, dict[str, Any]], int]:
    """Both, one after the other."""
    (toy, retries), (steps, more) = run_toy(place, seed), run_pipeline(place, seed)
    return toy | steps, retries + more


def _document(name: str, done: Ended) -> dict[str, Any]:
    if done.code != 0:
        raise Broke(f"{name}: exit {done.code}: {done.last_line}")
    return done.document
