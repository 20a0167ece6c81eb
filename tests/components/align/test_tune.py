"""align.tune: weights that follow the rewards, training that resumes to the same bytes, a model that samples."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from telecine.errors import InputError, RetryLater
from telecine_components.training.losses import reward_weights
from telecine_components.training.pipelines import load_pipeline
from telecine_models.pipeline import TelecinePipeline


def local(uri: str) -> Path:
    return Path(uri.removeprefix("file://"))


def bytes_of(uri: str) -> dict[str, bytes]:
    folder = local(uri)
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def inputs_of(round_: Any, tune_inputs: dict[str, Any]) -> dict[str, Any]:
    uris = {"model_uri": round_.trained.outputs.model_uri, "films_uri": round_.films.films_uri}
    return {**uris, "labels_uri": round_.labels.labels_uri, **tune_inputs}


def test_the_tuned_model_samples_and_differs_from_the_one_it_began_with(first_round: Any) -> None:
    assert bytes_of(first_round.tuned.model_uri).keys() == bytes_of(first_round.trained.outputs.model_uri).keys()
    assert bytes_of(first_round.tuned.model_uri) != bytes_of(first_round.trained.outputs.model_uri)
    pipeline = TelecinePipeline.from_pretrained(local(first_round.tuned.model_uri))
    pipeline.set_progress_bar_config(disable=True)  # type: ignore[no-untyped-call]
    film = pipeline("a red square moves right", num_frames=2, height_px=8, width_px=8, num_steps=2)
    assert film.shape == (1, 2, 8, 8, 3)


def test_the_report_says_what_the_weights_were_and_what_they_promise(first_round: Any) -> None:
    document = json.loads(local(first_round.tuned.tuning_uri).read_text())
    assert len(document["films"]) == first_round.tuned.num_films == first_round.films.num_films
    mean = sum(film["weight"] for film in document["films"].values()) / len(document["films"])
    assert mean == pytest.approx(1.0)
    assert first_round.tuned.reward_weighted > first_round.tuned.reward_of_films
    assert first_round.tuned.reward_of_films == pytest.approx(first_round.labels.label_reward)
    assert 0 < first_round.tuned.effective_ratio < 1
    assert [step for step, _ in document["history"]["train/loss"]] == list(range(1, 7))


@pytest.mark.parametrize("scale", [0.0, 1.0])
def test_a_lora_is_part_of_the_weights_that_are_tuned(
    first_round: Any, with_lora: Any, tune_inputs: dict[str, Any], scale: float
) -> None:
    nothing = {"num_steps": 1, "learning_rate": 1e-12, "lora_scale": scale}
    values = inputs_of(first_round, tune_inputs) | {"model_uri": with_lora.model_uri} | nothing
    folder = local(first_round.trained.run("align.tune", **values).model_uri)
    begun_with = load_pipeline(local(with_lora.model_uri), lora_scale=scale).transformer
    tuned = TelecinePipeline.from_pretrained(folder).transformer
    torch.testing.assert_close(tuned.state_dict(), begun_with.state_dict(), atol=1e-6, rtol=0)
    assert not (folder / "lora").exists(), "or whoever loads it would add it once more"


def test_a_high_temperature_weighs_all_films_alike_and_a_low_one_few(
    first_round: Any, tune_inputs: dict[str, Any]
) -> None:
    ratios = []
    for temperature in (1e-3, 1e6):
        values = inputs_of(first_round, tune_inputs) | {"temperature": temperature, "num_steps": 1}
        ratios.append(first_round.trained.run("align.tune", **values).effective_ratio)
    assert ratios[0] < 0.5
    assert ratios[1] == pytest.approx(1.0)


def test_weights_ignore_what_captions_have_in_common() -> None:
    captions = ["easy", "hard", "easy", "hard"]
    weights = reward_weights([0.9, 0.1, 0.7, 0.0], captions, temperature=0.1)
    shifted = reward_weights([0.9, 5.1, 0.7, 5.0], captions, temperature=0.1)
    assert weights == pytest.approx(shifted)
    assert weights[0] / weights[2] == pytest.approx(2.718281828**2)
    assert weights[0] + weights[2] == pytest.approx(2.0) == pytest.approx(weights[1] + weights[3])


def test_a_person_s_answer_counts_within_its_pair_and_not_against_another_of_the_caption(
    first_round: Any, tune_inputs: dict[str, Any], collect_inputs: dict[str, Any]
) -> None:
    model_uri = first_round.trained.outputs.model_uri
    values = collect_inputs | {"prompts": collect_inputs["prompts"][:1]}
    films = first_round.trained.run("align.collect", model_uri=model_uri, reference_uri=model_uri, **values)
    answers = {"labeller": "human", "answers": ["A", "same"], "answered_by": "maria"}
    labels = first_round.trained.run("align.label", films_uri=films.films_uri, **answers)
    uris = {"model_uri": model_uri, "films_uri": films.films_uri, "labels_uri": labels.labels_uri}
    tuned = first_round.trained.run("align.tune", **uris, **(tune_inputs | {"num_steps": 1}))
    given = json.loads(local(tuned.tuning_uri).read_text())["films"].values()
    assert sorted((film["reward"], round(film["weight"], 6)) for film in given) == [(0, 0), (0.5, 1), (0.5, 1), (1, 2)]


def wait_for_checkpoint(root: Path, before: set[str], child: "subprocess.Popen[bytes]") -> None:
    """Until work that is not in ``before`` has its first checkpoint."""
    deadline = time.monotonic() + 120
    while not any(path.parts[-4] not in before for path in root.glob("*/checkpoints/*/commit.json")):
        assert child.poll() is None, "the tuning ended before it could be stopped"
        assert time.monotonic() < deadline
        time.sleep(0.002)


def test_a_tuning_that_is_stopped_goes_on_to_the_bytes_of_an_undisturbed_one(
    first_round: Any, tune_inputs: dict[str, Any]
) -> None:
    values = inputs_of(first_round, tune_inputs) | {"num_steps": 40}
    deployment = first_round.trained.deployment
    before = {path.name for path in (deployment.home / "store/work/align.tune").iterdir()}
    script = (
        "import json, sys; from telecine import component, settings; from telecine.execution import Call, execute\n"
        "found = component.find('align.tune')\n"
        "call = Call(component=found, inputs=found.parse(json.loads(sys.argv[1])), run='stopped', task='align.tune',"
        " settings=settings.from_environment())\n"
        "try:\n    execute(call)\nexcept Exception as error:\n    sys.exit(getattr(error, 'exit_code', 1))\n"
    )
    child = subprocess.Popen(
        [sys.executable, "-P", "-c", script, json.dumps(values)], env=os.environ | deployment.environment()
    )
    wait_for_checkpoint(deployment.home / "store/work/align.tune", before, child)
    child.terminate()
    assert child.wait(120) == RetryLater.exit_code
    resumed = first_round.trained.run("align.tune", **values)
    whole = first_round.trained.run("align.tune", force=True, **values)
    assert bytes_of(resumed.model_uri) == bytes_of(whole.model_uri)
    assert bytes_of(resumed.tuning_uri) == bytes_of(whole.tuning_uri)


def test_a_batch_larger_than_the_labelled_films_is_refused(first_round: Any, tune_inputs: dict[str, Any]) -> None:
    values = inputs_of(first_round, tune_inputs) | {"batch_size": 13}
    with pytest.raises(InputError, match="batch_size must be at most the 12 labelled films, got 13"):
        first_round.trained.run("align.tune", **values)


def test_a_folder_that_is_no_model_is_refused(first_round: Any, tune_inputs: dict[str, Any]) -> None:
    values = inputs_of(first_round, tune_inputs) | {"model_uri": str(first_round.trained.dataset)}
    with pytest.raises(InputError, match=r"no trained_on\.json"):
        first_round.trained.run("align.tune", **values)


def test_a_tuned_model_is_registered_with_the_rights_of_what_its_base_was_trained_on(first_round: Any) -> None:
    from telecine import tracking
    from telecine.storage import Store
    from telecine.work import garbage

    tuned = {"model_uri": first_round.tuned.model_uri, "training_uri": first_round.tuned.tuning_uri}
    outputs = first_round.trained.run("deploy.register", model_name="tuned", **tuned)
    version = tracking.connect(first_round.trained.deployment).get_model_version_by_alias("tuned", "candidate")
    assert str(version.version) == outputs.model_version == "1"
    assert (version.tags["telecine.component"], version.tags["telecine.licences"]) == ("align.tune", "CC0-1.0: 12")
    assert version.description == (
        f"Tuned by rewards on 12 films, 6 steps. Mean reward of the films {first_round.tuned.reward_of_films:.4f}, "
        f"weighted {first_round.tuned.reward_weighted:.4f}."
    )
    work = tuned["model_uri"].partition("/store/")[2].partition("/attempts/")[0]
    report = garbage.collect(Store(first_round.trained.deployment.store_uri), keep_days=0, dry_run=True)
    assert work.startswith("work/align.tune/") and work not in {row["path"] for row in report["removed"]}


def test_loss_and_reward_are_in_mlflow(first_round: Any) -> None:
    from telecine import tracking

    client = tracking.connect(first_round.trained.deployment)
    folder = local(first_round.tuned.model_uri).parent.parent.parent
    run_id = json.loads((folder / "commit.json").read_text())["mlflow_run_id"]
    assert [point.step for point in client.get_metric_history(run_id, "train/loss")] == list(range(1, 7))
    figures = client.get_run(run_id).data.metrics
    assert figures["reward/mean"] == pytest.approx(first_round.tuned.reward_of_films)
