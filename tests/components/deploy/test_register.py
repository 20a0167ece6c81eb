"""deploy.register against a real MLflow on SQLite."""

import dataclasses
import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from telecine import settings, tracking
from telecine.errors import InputError
from telecine.work.digests import Digests
from telecine_components.deploy.register import registry
from telecine_components.deploy.register.registry import DIGEST_TAG
from telecine_components.deploy.register.run import training_sources
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


def test_racing_registrars_of_the_same_weights_leave_one_version(trained: Any) -> None:
    client = tracking.connect(trained.deployment)
    tags = {DIGEST_TAG: "d" * 64}

    def race(_: int) -> registry.Registered:
        source = f"file://{trained.deployment.home}/mlflow/artifacts"
        return registry.register(
            client, name="raced", alias="candidate", source=source, run_id="", tags=tags, description=""
        )

    with ThreadPoolExecutor(6) as racers:
        versions = list(racers.map(race, range(6)))
    standing = client.search_model_versions("name = 'raced'")
    assert [str(version.version) for version in standing] == [versions[0].version]
    assert {version.version for version in versions} == {versions[0].version}
    assert str(client.get_model_version_by_alias("raced", "candidate").version) == versions[0].version


def test_a_person_with_another_mlflow_over_the_same_store_registers_what_was_trained_there(
    trained: Any, tmp_path: Path, empty_tracker: Path
) -> None:
    mine = settings.from_environment(
        {"TELECINE_HOME": str(tmp_path / "home"), "TELECINE_STORE": trained.deployment.store_uri}
    )
    (mine.home / "mlflow").mkdir(parents=True)
    shutil.copy(empty_tracker, mine.home / "mlflow" / "mlflow.db")
    register(dataclasses.replace(trained, deployment=mine), alias="mine")
    client = tracking.connect(mine)
    version = client.get_model_version_by_alias("telecine-flywheel", "mine")
    assert client.get_run(str(version.run_id)).data.tags["platform.component"] == "deploy.register"
    assert not tracking.knows(client, tracking_run_of(trained))
    tracking.finish(client, tracking_run_of(trained))  # nothing to do, and no error


def tracking_run_of(trained: Any) -> str:
    theirs = tracking.connect(trained.deployment)
    version = theirs.get_model_version("telecine-flywheel", register(trained).model_version)
    return str(version.run_id)


def test_the_record_says_what_the_weights_are_and_names_no_place(trained: Any) -> None:
    text = Path(register(trained).registration_uri.removeprefix("file://")).read_text()
    document = json.loads(text)
    assert document["licences"] == {"CC0-1.0": 12}
    assert document["component"] == "pretrain.train"
    assert len(document["model_digest"]) == 64
    assert str(trained.deployment.home) not in text


def test_the_dataset_is_the_one_that_the_training_read(trained: Any, tmp_path: Path) -> None:
    told = [_registered(register(trained, dataset_uri=uri)) for uri in ("", str(trained.dataset))]
    shutil.copytree(trained.dataset, tmp_path / "copy")
    told.append(_registered(register(trained, dataset_uri=str(tmp_path / "copy"))))
    assert {document["dataset_digest"] for document in told} == {Digests(tmp_path).tree(trained.dataset)}
    assert {document["num_sources"] for document in told} == {3}


def test_a_dataset_that_the_model_never_saw_gives_it_no_rights(trained: Any, tmp_path: Path) -> None:
    rows = pq.read_table(trained.dataset / "index.parquet").to_pylist()
    pq.write_table(pa.Table.from_pylist([row | {"licence": "CC-BY-4.0"} for row in rows]), tmp_path / "index.parquet")
    with pytest.raises(InputError, match="dataset_uri must be what .* was trained on"):
        register(trained, dataset_uri=str(tmp_path))


def test_weights_that_went_on_from_others_saw_what_those_saw(
    trained: Any, tiny_training: dict[str, Any], tmp_path: Path
) -> None:
    rows = pq.read_table(trained.dataset / "index.parquet").to_pylist()
    changed = [row | {"licence": "CC-BY-4.0", "sample_id": f"other-{row['sample_id']}"} for row in rows]
    other = tmp_path / "other"
    other.mkdir()
    pq.write_table(pa.Table.from_pylist(changed), other / "index.parquet")
    rank = {"lora_rank": 2, "merge_lora": True}
    values = {**tiny_training, **rank, "num_steps": 2}
    tuned = trained.run("pretrain.train", dataset_uri=str(other), model_uri=trained.outputs.model_uri, **values)
    document = _registered(
        register(trained, model_uri=tuned.model_uri, training_uri=tuned.training_uri, dataset_uri="")
    )
    assert document["licences"] == {"CC-BY-4.0": 12, "CC0-1.0": 12} and "base_model" not in document
    copy = shutil.copytree(trained.outputs.model_uri.removeprefix("file://"), tmp_path / "base")
    (copy / "README.md").write_text("Other bytes, or the work that the first tuning did would be met again.")
    tuned = trained.run("pretrain.train", dataset_uri=str(other), model_uri=str(copy), **values)
    document = _registered(
        register(trained, run="another", model_uri=tuned.model_uri, training_uri=tuned.training_uri, dataset_uri="")
    )
    assert document["licences"] == {"CC-BY-4.0": 12} and document["base_model"] == str(copy)


def test_a_sample_that_came_under_two_licences_counts_under_each(trained: Any, tmp_path: Path) -> None:
    index = trained.dataset / "index.parquet"
    rows = [row | {"licence": "proprietary"} for row in pq.read_table(index).to_pylist()]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "index.parquet")
    for order in ([index, tmp_path / "index.parquet"], [tmp_path / "index.parquet", index]):
        found = training_sources(order)
        assert found["licences"] == {"CC0-1.0": 12, "proprietary": 12} and found["consents"] == {"synthetic": 12}


def test_a_lora_is_registered_with_the_weights_beside_it(trained: Any, with_lora: Any) -> None:
    uris = {"model_uri": with_lora.model_uri, "training_uri": with_lora.training_uri}
    outputs = register(trained, **uris, model_name="with-lora")
    version = tracking.connect(trained.deployment).get_model_version("with-lora", outputs.model_version)
    source = Path(str(version.source).removeprefix("file://"))
    made = Path(with_lora.model_uri.removeprefix("file://"))
    assert (source / "lora/lora.safetensors").samefile(made / "lora/lora.safetensors")
    assert version.tags["telecine.licences"] == "CC0-1.0: 12", "both trainings saw the same films"


def test_weights_from_elsewhere_need_a_dataset(trained: Any, tmp_path: Path) -> None:
    folder = shutil.copytree(trained.outputs.model_uri.removeprefix("file://"), tmp_path / "model")
    with pytest.raises(InputError, match="no work of this store says what .* was trained on; give dataset_uri"):
        register(trained, run="elsewhere", model_uri=str(folder), dataset_uri="")
    assert register(trained, model_uri=str(folder), model_name="elsewhere").model_version == "1"


def test_a_report_that_is_none_is_refused(trained: Any, tmp_path: Path) -> None:
    (tmp_path / "report.json").write_text("{}")
    with pytest.raises(InputError, match=r"training_uri must be training.json of pretrain.train or tuning.json of"):
        register(trained, training_uri=str(tmp_path / "report.json"))


def _registered(outputs: Any) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(Path(outputs.registration_uri.removeprefix("file://")).read_text())
    return document


def test_a_name_that_the_registry_cannot_hold_is_refused(trained: Any) -> None:
    with pytest.raises(InputError, match="model_name must be letters"):
        register(trained, model_name="a/b")
