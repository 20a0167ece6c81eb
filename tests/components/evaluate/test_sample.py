"""evaluate.sample: films that a person can watch, the same every time."""

import json
from pathlib import Path
from typing import Any

import av
import pytest
from PIL import Image

from telecine.errors import InputError

PROMPTS = ["a red square moves right", "a blue square moves right"]


def sample(trained: Any, **inputs: Any) -> Path:
    values = {"model_uri": trained.outputs.model_uri, "prompts": PROMPTS, "seeds": [0, 1], "num_steps": 3}
    outputs = trained.run("evaluate.sample", **(values | {"num_threads": 1} | inputs))
    return Path(outputs.samples_uri.removeprefix("file://"))


def test_there_is_one_film_per_prompt_and_seed_as_large_as_in_training(trained: Any) -> None:
    folder = sample(trained)
    document = json.loads((folder / "samples.json").read_text())
    assert [(film["prompt"], film["seed"]) for film in document["films"]] == [
        (prompt, seed) for seed in (0, 1) for prompt in PROMPTS
    ]
    assert (document["num_frames"], document["height_px"], document["width_px"]) == (2, 8, 8)
    for film in document["films"]:
        with av.open(str(folder / film["file"])) as container:
            stream = container.streams.video[0]
            assert (stream.codec_context.name, stream.width, stream.height) == ("h264", 32, 32)
            assert len(list(container.decode(stream))) == 2
    with Image.open(folder / "contact_sheet.png") as sheet:
        assert sheet.height > 4 * 16


def test_sampling_again_gives_the_same_bytes(trained: Any) -> None:
    first = {path.name: path.read_bytes() for path in sample(trained).iterdir()}
    second = {path.name: path.read_bytes() for path in sample(trained, force=True).iterdir()}
    assert first == second


def test_the_films_are_in_mlflow(trained: Any) -> None:
    from telecine import tracking

    folder = sample(trained)
    commit = json.loads((folder.parent.parent.parent / "commit.json").read_text())
    files = tracking.connect(trained.deployment).list_artifacts(commit["mlflow_run_id"], "samples")
    assert {Path(file.path).name for file in files} == {path.name for path in folder.iterdir()}


def test_a_lora_films_as_merged_weights_do_and_turned_off_as_the_weights_beside_it(
    trained: Any, with_lora: Any, tiny_training: dict[str, Any]
) -> None:
    tuning = tiny_training | {"num_steps": 24, "lora_rank": 2, "learning_rate": 5e-3, "merge_lora": True}
    base = {"dataset_uri": str(trained.dataset), "model_uri": trained.outputs.model_uri}
    merged = trained.run("pretrain.train", **base, **tuning)

    def films(**inputs: Any) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in sample(trained, **inputs).glob("*.mp4")}

    beside, plain = films(model_uri=with_lora.model_uri), films()
    assert beside == films(model_uri=merged.model_uri)
    assert plain == films(model_uri=with_lora.model_uri, lora_scale=0)
    half = films(model_uri=with_lora.model_uri, lora_scale=0.5)
    assert beside != plain and half not in (beside, plain)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"height_px": 9}, "height_px must be a positive multiple of 4"),
        ({"prompts": []}, "prompts and seeds must name at least one film"),
        ({"num_steps": 0}, "num_steps must be at least 1"),
        ({"lora_scale": -0.5}, "lora_scale must be at least 0"),
    ],
)
def test_values_that_cannot_work_are_refused(trained: Any, given: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        sample(trained, **given)


def test_a_folder_that_is_no_model_is_refused(trained: Any) -> None:
    with pytest.raises(InputError, match=r"no trained_on\.json"):
        sample(trained, model_uri=str(trained.dataset))
