"""Recipes: named values of inputs, below what a person gives and above the defaults, checked and in no address."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from telecine import component
from telecine.component import Component
from telecine.errors import InputError
from telecine.operators import ComponentOperator, check_conf, params_for

Letters = Callable[..., dict[str, Any]]
TRAIN = "pretrain.train"


@pytest.fixture
def loud(toys: Any, letters: Letters) -> Path:
    """The toy that repeats a text, with a recipe; returns the recipes' folder."""
    folder: Path = toys.package / "text" / "repeat" / "recipes"
    folder.mkdir()
    (folder / "loud.toml").write_text('# Says it three times.\ntext = "A"\ntimes = 3\n')
    return folder


def dry(toys: Any, *arguments: str) -> dict[str, Any]:
    """The inputs that a call comes to."""
    out, _ = toys.call("run", "text.repeat", "--dry-run", *arguments)
    inputs: dict[str, Any] = json.loads(out)
    return inputs


def test_a_default_gives_way_to_a_recipe_a_recipe_to_inputs_and_inputs_to_a_setting(toys: Any, loud: Path) -> None:
    assert dry(toys) == {"text": "a", "times": 2}
    assert dry(toys, "--recipe", "loud") == {"text": "A", "times": 3}
    given = ("--recipe", "loud", "--inputs", '{"times": 4}')
    assert dry(toys, *given) == {"text": "A", "times": 4}
    assert dry(toys, *given, "--set", "times=5") == {"text": "A", "times": 5}


def test_a_file_of_one_s_own_is_a_recipe_too(toys: Any, loud: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text('text = "m"\n')
    assert dry(toys, "--recipe", str(tmp_path / "mine.toml")) == {"text": "m", "times": 2}


def test_a_recipe_s_name_is_in_no_address_and_describe_lists_it(toys: Any, loud: Path) -> None:
    by_recipe = json.loads(toys.call("run", "text.repeat", "--recipe", "loud")[0])
    by_hand = json.loads(toys.call("run", "text.repeat", "--set", "text=A", "--set", "times=3")[0])
    assert (by_recipe["decision"], by_hand["decision"]) == ("ran", "reused")
    assert by_recipe["key"] == by_hand["key"]
    assert "recipes:\n  loud: Says it three times.\n" in toys.call("describe", "text.repeat")[0]


@pytest.mark.parametrize(
    ("recipe", "sentence"),
    [
        ("lout", "text.repeat: there is no recipe 'lout'; did you mean 'loud'?"),
        ("zzzz", "text.repeat: there is no recipe 'zzzz'; known: loud; a file of your own ends in .toml"),
        ("gone.toml", "text.repeat: no file 'gone.toml'; expected a recipe's name or a .toml file"),
        ("wrong", "text.repeat, recipe wrong: there is no 'time'; did you mean 'times'?"),
        ("small", "text.repeat, recipe small: times must be at least 1, got 0"),
        ("torn", "torn.toml: not valid TOML: "),
    ],
)
def test_a_recipe_that_cannot_work_is_one_line_and_exit_78(toys: Any, loud: Path, recipe: str, sentence: str) -> None:
    for name, text in (("wrong", "time = 1"), ("small", "times = 0"), ("torn", "times =")):
        if recipe == name:
            (loud / f"{name}.toml").write_text(text)
    out, err = toys.call("run", "text.repeat", "--recipe", recipe, "--set", "times=1", code=78)
    assert out == "" and err.count("\n") == 1
    assert sentence in err


def test_a_component_without_recipes_says_so() -> None:
    with pytest.raises(InputError, match=r"curate\.split: there is no recipe 'x'; it has none"):
        component.find("curate.split").recipe("x")


# In a DAG


@pytest.fixture
def train() -> Component:
    return component.find(TRAIN)


def resolved(train: Component, conf: dict[str, Any]) -> dict[str, Any]:
    """The values that a task comes to where a run was started with ``conf``."""
    params = {name: param.value for name, param in params_for(train).items()} | conf
    operator = ComponentOperator(component=train, inputs={"dataset_uri": "data"})
    context: Any = {"params": params, "dag_run": SimpleNamespace(conf=conf)}
    return operator._values(context)


def test_in_a_dag_a_recipe_lies_under_the_conf_and_over_the_defaults(train: Component) -> None:
    recipe = train.recipe("diffmoe")
    assert resolved(train, {})["num_experts"] == 0
    found = resolved(train, {"train_recipe": "diffmoe", "train_depth": 2})
    assert found == resolved(train, {}) | recipe | {"depth": 2, "dataset_uri": "data"}
    assert dataclasses.asdict(train.parse(found))["num_experts"] == recipe["num_experts"] == 16
    default = next(field.default for field in dataclasses.fields(train.inputs) if field.name == "depth")
    assert recipe["depth"] != default
    assert resolved(train, {"train_recipe": "diffmoe", "train_depth": default})["depth"] == default, "a person said so"


def test_the_trigger_form_sends_all_defaults_and_does_not_take_the_recipe_back(train: Component) -> None:
    form = json.loads(json.dumps({name: param.value for name, param in params_for(train).items()}))
    found = resolved(train, form | {"train_recipe": "diffmoe", "train_num_steps": 7})
    assert found == resolved(train, {}) | train.recipe("diffmoe") | {"num_steps": 7}


def test_an_unknown_recipe_is_refused_before_a_run_exists(train: Component) -> None:
    params = params_for(train)
    assert params["train_recipe"].schema["enum"] == ["", *train.recipes]
    from airflow.sdk import DAG

    with DAG("x", schedule=None, params=params) as dag, pytest.raises(InputError, match="Param train_recipe: 'difmoe'"):
        check_conf(dag, {"train_recipe": "difmoe"})


@pytest.mark.parametrize("name", sorted(component.find(TRAIN).recipes))
def test_every_recipe_is_taken_by_its_component_and_says_in_a_line_what_it_is_for(train: Component, name: str) -> None:
    assert train.parse({"dataset_uri": "x"} | train.recipe(name))
    assert train.recipes[name].read_text().startswith("# ")
