"""deploy.register against a real MLflow on SQLite."""

import json
from pathlib import Path
from typing import Any

import pytest

from telecine import tracking
from telecine.errors import InputError
from telecine_models.pipeline import TelecinePipeline


def register(trained: Any, **inputs: Any) -> Any:
    outputs = trained.outputs
    values = {"model_uri": outputs.model_uri, "training_uri": outputs.training_uri, "dataset_uri": str(trained.dataset)}
    return trained.run("deploy.register", **(values | inputs))


def test_the_version_belongs_to_the_training_run_and_has_the_alias(trained: Any) -> None:
    outputs = register(trained)
    client = tracking.connect(trained.deployment)
    version = client.get_model_version_by_alias("telecine-flywheel", "candidate")
    assert str(version.version) == outputs.model_version
    run = client.get_run(str(version.run_id))
    assert run.data.tags["platform.component"] == "pretrain.train"
    assert version.tags["telecine.licences"] == "CC0-1.0: 12"
    assert version.tags["telecine.consents"] == "synthetic: 12"
    assert version.tags["telecine.num_sources"] == "3"
    assert f"{trained.outputs.eval_loss:.4f}" in str(version.description)


def test_the_source_is_a_pipeline_of_hardlinks_in_the_runs_artifacts(trained: Any) -> None:
    outputs = register(trained)
    client = tracking.connect(trained.deployment)
    version = client.get_model_version("telecine-flywheel", outputs.model_version)
    artifacts = str(client.get_run(str(version.run_id)).info.artifact_uri)
    assert str(version.source).startswith(artifacts)
    source = Path(str(version.source).removeprefix("file://"))
    committed = Path(trained.outputs.model_uri.removeprefix("file://"))
    for file in (path for path in committed.rglob("*") if path.is_file()):
        assert (source / file.relative_to(committed)).samefile(file)
    assert TelecinePipeline.from_pretrained(source).transformer.config.num_layers == 2


def test_registering_the_same_weights_again_returns_the_version_that_stands(trained: Any) -> None:
    first = register(trained)
    second = register(trained, force=True)
    from_another_run = register(trained, run="another", force=True)
    assert first.model_version == second.model_version == from_another_run.model_version
    client = tracking.connect(trained.deployment)
    assert len(client.search_model_versions("name = 'telecine-flywheel'")) == 1


def test_the_record_says_what_the_weights_are_and_names_no_place(trained: Any) -> None:
    text = Path(register(trained).registration_uri.removeprefix("file://")).read_text()
    document = json.loads(text)
    assert document["licences"] == {"CC0-1.0": 12}
    assert document["component"] == "pretrain.train"
    assert len(document["model_digest"]) == 64
    assert str(trained.deployment.home) not in text


def test_a_name_that_the_registry_cannot_hold_is_refused(trained: Any) -> None:
    with pytest.raises(InputError, match="model_name must be letters"):
        register(trained, model_name="a/b")
