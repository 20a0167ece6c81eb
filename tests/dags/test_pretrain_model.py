"""The DAG pretrain_model by itself; test_handover.py runs it in a real Airflow, with a recipe."""

import runpy
from pathlib import Path
from typing import Any

import pytest

from telecine.errors import InputError
from telecine.operators import check_conf


@pytest.fixture
def dag() -> Any:
    return runpy.run_path(str(Path(__file__).parents[2] / "dags" / "pretrain_model.py"))["dag"]


def test_the_model_to_go_on_from_is_a_param(dag: Any) -> None:
    assert dag.params["model_uri"] == "" and dag.params["train_recipe"] == ""
    assert dag.get_task("pretrain.train").inputs["model_uri"] == "{{ params.model_uri }}"


def test_what_cannot_show_what_was_learned_is_neither_filmed_nor_registered(dag: Any) -> None:
    for name in ("evaluate.sample", "deploy.register"):
        task = dag.get_task(name)
        assert task.condition == "ti.xcom_pull(task_ids='pretrain.train')['is_pipeline']"
        task.only_if = "False"  # as the template renders
        assert "does not hold" in task._reason_to_skip({"params": {}})


@pytest.mark.parametrize(
    ("conf", "complaint"),
    [
        ({"train_recipe": "difmoe"}, "Param train_recipe: 'difmoe' is not one of"),
        ({"train_recipes": "diffmoe"}, "no Param 'train_recipes'; did you mean 'train_recipe'?"),
        ({"train_lora_rank": -1}, "Param train_lora_rank"),
    ],
)
def test_a_bad_recipe_is_refused_before_a_run_exists(dag: Any, conf: dict[str, Any], complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        check_conf(dag, conf)
