"""``telecine lineage`` over toy components: both directions, held-out clips, generations, and what is unclear."""

import json
from typing import Any

import pytest

from telecine.work import sources

ENCODE = """
rows = []
for clip in inputs.clips:
    name, split = clip.split("=")
    source = name.partition("#")[0]
    clip_id = f"{ord(source[0]):02x}" * 4 + name[-1] * 8
    digest = f"{source[-1]}0123456789{len(source)}".ljust(64, "0")
    rights = {"licence": "CC0-1.0", "consent": "given"}
    rows.append({"clip_id": clip_id, "source": f"{source}.mp4", "source_digest": digest, "split": split, **rights})
ctx.declare_sources(rows)
(ctx.dir / "data.txt").write_text(" ".join(inputs.clips))
return Outputs(dataset_uri="data.txt")
"""
TRAIN = """
texts = [ctx.fetch(uri).read_text() for uri in (inputs.dataset_uri, inputs.base_uri) if uri]
(ctx.dir / "model.txt").write_text("\\n".join(texts))
return Outputs(model_uri="model.txt")
"""


@pytest.fixture
def line(toys: Any) -> Any:
    """A little line: encode clips, train, perhaps from another model, and register by number."""
    toys.add(
        "data.encode",
        inputs="clips: tuple[str, ...] = param(help='name#number=split of each clip.')",
        outputs='dataset_uri: Artifact = param(help="Data.")',
        body=ENCODE,
    )
    toys.add(
        "model.train",
        inputs='dataset_uri: Artifact = param(help="Data.")\nbase_uri: Artifact = param("", help="A model.")',
        outputs='model_uri: Artifact = param(help="Weights.")',
        body=TRAIN,
    )
    toys.add(
        "model.register",
        effects=True,
        inputs='model_uri: Artifact = param(help="W.")\nmodel_version: str = param(help="V.")',
        outputs='model_name: str = param(help="N.")\nmodel_version: str = param(help="V.")',
        body='return Outputs(model_name="toy", model_version=inputs.model_version)',
    )
    return toys


def _model(line: Any, version: str, *clips: str, base: str = "") -> str:
    """Encode, train and register; returns the weights' URI."""
    run = ("--run", f"run-{version}")
    data = line.run("data.encode", *run, clips=list(clips))["outputs"]["dataset_uri"]
    model = line.run("model.train", *run, dataset_uri=data, base_uri=base)["outputs"]["model_uri"]
    line.run("model.register", *run, model_uri=model, model_version=version)
    return str(model)


def _ask(line: Any, what: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(line.call("lineage", what, "--json")[0])
    return found


def test_a_model_leads_back_to_its_files_and_a_clip_forward_to_its_models(line: Any) -> None:
    model = _model(line, "1", "sea#1=train", "sea#2=train", "fog#3=val")
    _model(line, "2", "sky#4=train", "hill#5=val")
    back = _ask(line, "toy:1")
    assert [step["component"] for step in back["steps"]] == ["model.register", "model.train", "data.encode"]
    assert {(f["source"], f["clips"]["train"], f["clips"]["val"]) for f in back["files"]} == {
        ("sea.mp4", 2, 0),
        ("fog.mp4", 0, 1),
    }
    assert {file["licence"] for file in back["files"]} == {"CC0-1.0"}
    assert _ask(line, model)["files"] == _ask(line, "run-1")["files"] == back["files"]
    assert _ask(line, "models:/toy/1")["files"] == back["files"]
    forward = _ask(line, "73" * 4 + "1" * 8)
    assert forward["kind"] == "clip" and [entry["split"] for entry in forward["trainings"]] == ["train"]
    assert [(entry["model_version"], entry["split"]) for entry in forward["models"]] == [("1", "train")]


def test_what_was_held_out_was_only_measured_on(line: Any) -> None:
    _model(line, "1", "sea#1=train", "fog#3=val")
    seen = _ask(line, "fog.mp4")
    assert [entry["split"] for entry in (*seen["datasets"], *seen["trainings"], *seen["models"])] == ["val"] * 3
    assert "toy version 1  was only measured on it" in line.call("lineage", "fog.mp4")[0]


def test_a_model_has_seen_what_its_ancestor_learned_from(line: Any) -> None:
    first = _model(line, "1", "sea#1=train", "fog#3=val")
    _model(line, "2", "sky#4=train", "sea#1=val", base=first)
    versions = {entry["model_version"]: entry["split"] for entry in _ask(line, "sea.mp4")["models"]}
    assert versions == {"1": "train", "2": "train"}
    assert {f["source"] for f in _ask(line, "toy:2")["files"]} == {"sea.mp4", "fog.mp4", "sky.mp4"}


def test_work_that_was_redone_keeps_the_lineage_of_what_was_given_away(line: Any) -> None:
    model = _model(line, "1", "sea#1=train")
    line.run("data.encode", "--force", clips=["sea#1=train"])
    assert [step["component"] for step in _ask(line, model)["steps"]] == ["model.train", "data.encode"]
    assert [entry["model_version"] for entry in _ask(line, "sea.mp4")["models"]] == ["1"]


UNCLEAR = {
    "toy:7": "model toy version 7 was not made here; the versions are 1\n",
    "toy@champion": "model toy has no alias 'champion'; its versions here are 1\n",
    "other:1": "no model 'other' was registered from file://",
    "nothing": "'nothing' is no model, run, artifact, clip or source file of this store; give name@alias",
    "737373": "'737373' is the beginning of 2 clips: 7373737311111111, 7373737344444444; give more of it\n",
    "a012345": "'a012345' names 2 different files; ask by one of their digests: a01234567893, a01234567895\n",
    "/nowhere/x": "'/nowhere/x' lies outside file://",
}


def test_what_is_unknown_or_unclear_is_one_sentence(line: Any) -> None:
    _model(line, "1", "sea#1=train", "sea#4=val", "mocca#2=train")
    for what, sentence in UNCLEAR.items():
        out, err = line.call("lineage", what, code=78)
        assert out == "" and err.count("\n") == 1 and err.startswith(f"telecine: {sentence}")
    assert _ask(line, "a01234567893")["title"] == "file sea.mp4, digest a01234567893", "a beginning is enough"


def test_sources_are_equal_bytes_for_equal_rows_and_wrong_rows_are_refused(tmp_path: Any) -> None:
    rows = [dict.fromkeys(sources.FIELDS, text) for text in ("b", "a", "b")]
    for name, given in (("one", rows), ("two", rows[::-1])):
        sources.write(tmp_path / name, given)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    assert (tmp_path / "one").read_text().count("\n") == 2
    with pytest.raises(ValueError, match="must have the fields clip_id, source, .*, got clip_id"):
        sources.write(tmp_path / "three", [{"clip_id": "a"}])
