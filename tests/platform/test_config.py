"""Inputs: declared once, checked everywhere, refused with one sentence that says what to do."""

import dataclasses
from pathlib import Path

import pytest

from telecine import config
from telecine.config import Artifact, param
from telecine.errors import InputError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inputs:
    videos_uri: Artifact = param(help="Footage.")
    threshold: float = param(0.5, gt=0, lt=1, help="Between 0 and 1.")
    num_steps: int = param(10, ge=1, help="Steps.")
    mode: str = param("fast", choices=("fast", "good"), help="How.")
    sizes: tuple[int, ...] = param((1, 2), ge=1, help="Sizes.")
    loop: bool = param(False, help="Again?")
    judge: str = param("", needed_with=("mode", "good"), help="Who says what is good.")


def test_values_become_a_typed_object_and_defaults_fill_the_rest() -> None:
    made = config.build(Inputs, {"videos_uri": "raw", "threshold": 0.25, "sizes": [3]}, owner="curate.split")
    assert made == Inputs(videos_uri=Artifact("raw"), threshold=0.25, sizes=(3,))


def test_an_integer_is_taken_for_a_float_but_not_the_other_way_round() -> None:
    inputs = {"videos_uri": "raw", "threshold": 1}
    with pytest.raises(InputError, match="threshold must be less than 1, got 1.0"):
        config.build(Inputs, inputs, owner="x")
    with pytest.raises(InputError, match="num_steps must be of type int, got 2.0"):
        config.build(Inputs, {"videos_uri": "raw", "num_steps": 2.0}, owner="x")


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"treshold": 0.1}, "curate.split: there is no 'treshold'; did you mean 'threshold'?"),
        (
            {"zzz": 1},
            "curate.split: there is no 'zzz'; known: videos_uri, threshold, num_steps, mode, sizes, loop, judge",
        ),
        ({}, "curate.split: videos_uri must be given; set it with --set videos_uri=…"),
        ({"threshold": 1.5}, "curate.split: threshold must be less than 1, got 1.5"),
        ({"threshold": float("nan")}, "curate.split: threshold must be a finite number, got nan"),
        ({"threshold": 10**400}, "curate.split: threshold must be a finite number, got inf"),
        ({"num_steps": True}, "curate.split: num_steps must be of type int, got True"),
        ({"num_steps": "ten"}, "curate.split: num_steps must be of type int, got 'ten'"),
        ({"mode": "slow"}, "curate.split: mode must be one of ('fast', 'good'), got 'slow'"),
        ({"sizes": [1, 0]}, "curate.split: sizes must be at least 1, got 0"),
        ({"sizes": 3}, "curate.split: sizes must be a list, got 3"),
    ],
)
def test_a_wrong_input_is_refused_in_one_sentence(values: dict[str, object], sentence: str) -> None:
    given = values if values in ({},) else {"videos_uri": "raw", **values}
    with pytest.raises(InputError) as refused:
        config.build(Inputs, given, owner="curate.split")
    assert str(refused.value) == sentence


def test_an_input_that_another_one_needs_is_missed_once_all_are_there() -> None:
    config.check(Inputs, {"mode": "good"}, owner="x")  # a recipe's; a person may give the rest
    config.build(Inputs, {"videos_uri": "raw", "mode": "good", "judge": "ann"}, owner="x")
    with pytest.raises(InputError, match="^x: judge must be given where mode is 'good'$"):
        config.build(Inputs, {"videos_uri": "raw", "mode": "good"}, owner="x")


def test_people_write_toml_machines_write_json(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text("threshold = 0.25\nsizes = [1]\n")
    (tmp_path / "a.json").write_text('{"threshold": 0.75}')
    assert config.load(str(tmp_path / "a.toml")) == {"threshold": 0.25, "sizes": [1]}
    assert config.load(f"file://{tmp_path}/a.json") == {"threshold": 0.75}
    assert config.load('{"num_steps": 3}') == {"num_steps": 3}


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        ("a.toml", "threshold =", "not valid TOML"),
        ("a.toml", f"threshold = {'9' * 5000}", "not valid TOML: Exceeds the limit"),
        ("a.json", "[1]", "expected a JSON object, got list"),
        ("a.json", '{"threshold": %s}' % ("9" * 5000), "not valid JSON: Exceeds the limit"),
        ("a.json", "[" * 100_000, "not valid JSON: maximum recursion depth"),
    ],
)
def test_a_malformed_file_is_named(tmp_path: Path, name: str, text: str, sentence: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=f"{name}: .*{sentence}"):
        config.load(str(tmp_path / name))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a=1", 1),
        ("a=0.5", 0.5),
        ("a=true", True),
        ("a=text", "text"),
        ("a=[1, 2]", [1, 2]),
        ("a=x=y", "x=y"),
        ("a=", ""),
        (f"a={'9' * 5000}", "9" * 5000),
        (f"a={'[' * 100_000}", "[" * 100_000),
    ],
)
def test_a_setting_is_json_where_it_parses_and_text_otherwise(text: str, value: object) -> None:
    assert config.parse_setting(text) == ("a", value)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Odd:
    data_uri: Artifact = param("", keyed=False, help="Data.")
    num_processes: int = param(1, ge=1, keyed=False, help="How it is run.")
    num_steps: int = param(10, help="What is computed.")


def test_an_input_is_keyed_unless_it_says_otherwise_and_an_artifact_always() -> None:
    assert config.is_keyed(Odd, "num_steps") and not config.is_keyed(Odd, "num_processes")
    with pytest.raises(TypeError, match="data_uri is an artifact"):
        config.is_keyed(Odd, "data_uri")
    with pytest.raises(ValueError, match="not keyed must have a default"):
        param(keyed=False, help="How?")
    with pytest.raises(InputError, match="num_processes must be at least 1, got 0"):
        config.build(Odd, {"num_processes": 0}, owner="x")


def test_the_json_schema_carries_type_bounds_choices_and_help() -> None:
    assert config.json_schema(Inputs, "threshold") == {
        "description": "Between 0 and 1.",
        "type": "number",
        "exclusiveMinimum": 0,
        "exclusiveMaximum": 1,
    }
    assert config.json_schema(Inputs, "mode")["enum"] == ["fast", "good"]
    assert config.json_schema(Inputs, "sizes") == {
        "description": "Sizes.",
        "type": "array",
        "items": {"type": "integer", "minimum": 1},
    }
