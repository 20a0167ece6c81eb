"""What a loop of alignment begins and ends with, and what its question shows, by themselves."""

import json
import runpy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowFailException

from telecine.alignment import PICTURE, _body, judged
from telecine.assets import CANDIDATE, CHECKPOINT
from telecine.storage import Store


def figures(reward: float, win_rate: float, low: float, high: float) -> dict[str, float]:
    rates = {"win_rate": win_rate, "win_rate_low": low, "win_rate_high": high}
    return {"reward_reference": 0.3, "reward": reward, **rates}


BETTER, EVEN, WORSE = figures(0.5, 0.7, 0.55, 0.8), figures(0.4, 0.55, 0.45, 0.6), figures(0.2, 0.3, 0.2, 0.4)


@pytest.mark.parametrize(
    ("rounds", "kept", "words"),
    [
        ([], 0, ""),
        ([BETTER], 1, "better: win rate 0.70 [0.55, 0.80] over the base; the model of round 1 is kept"),
        ([BETTER, WORSE], 1, "round 1, the best by reward, is better"),
        ([EVEN, BETTER, WORSE], 2, "the model of round 2 is kept"),
        ([EVEN], 0, "not better: win rate 0.55 [0.45, 0.60] over the base; the base model stays"),
        ([WORSE], 0, "round 1, the best by reward, is worse"),
    ],
)
def test_a_model_is_kept_only_where_it_beats_the_base(rounds: list[dict[str, float]], kept: int, words: str) -> None:
    number, said = judged(rounds)
    assert number == kept
    assert words in "; ".join(said)


def test_a_caption_writes_no_markdown_into_the_question() -> None:
    pairs = {"pair_01": {"prompt": "a | b\n[click](https://elsewhere) <img src=x>"}}
    text = _body(pairs, {PICTURE: "`pairs.png`", "pair-01.mp4": "`pair-01.mp4`"}, "file:///films")
    assert r"| pair_01 | a \| b \[click\]\(https://elsewhere\) \<img src=x\> | `pair-01.mp4` |" in text.splitlines()
    assert "signed" not in text
    signed = _body(pairs, {PICTURE: "[p](http://s/p?X-Amz-Signature=0)", "pair-01.mp4": "[f](f)"}, "s3://b/films")
    assert "The films lie in `s3://b/films`; a signed link into it lives at most 60 minutes." in signed


# The DAG's own tasks


class Xcom:
    """What earlier tasks left, and what this one leaves."""

    def __init__(self, left: dict[tuple[str, str], Any]) -> None:
        self.left = left

    def xcom_pull(self, *, task_ids: str, key: str) -> Any:
        return self.left.get((task_ids, key))

    def xcom_push(self, key: str, value: Any) -> None:
        self.left[("pushed", key)] = value


@pytest.fixture(scope="module")
def dag() -> Any:
    return runpy.run_path(str(Path(__file__).parents[2] / "dags" / "align_model.py"))["dag"]


def context(left: dict[tuple[str, str], Any], **params: Any) -> dict[str, Any]:
    run = SimpleNamespace(dag_id="align_model", run_id="r")
    return {"ti": Xcom(left), "params": params, "dag_run": run}


@pytest.mark.parametrize(
    ("round_1", "ending"),
    [
        (BETTER, {"model_uri": "tuned", "is_better": True, "tuning_uri": "report"}),
        (EVEN, {"model_uri": "base", "is_better": False, "tuning_uri": ""}),
    ],
)
def test_only_a_model_that_is_better_is_registered(
    dag: Any, deployment: Any, round_1: dict[str, float], ending: dict[str, Any]
) -> None:
    compared = {("round_1.evaluate.compare", name): value for name, value in round_1.items()}
    tuned = {("round_1.align.tune", "model_uri"): "tuned", ("round_1.align.tune", "tuning_uri"): "report"}
    left = {("base_model", "model_uri"): "base", **tuned, **compared}
    outcome = dag.get_task("outcome").execute(context(left, rounds=1))
    assert {name: outcome[name] for name in ending} == ending
    register = dag.get_task("deploy.register")
    assert (register.inputs["model_uri"].key, register.inputs["training_uri"].key) == ("model_uri", "tuning_uri")
    assert register.only_if == "{{ ti.xcom_pull(task_ids='outcome', key='is_better') }}"
    assert register.outlets == [CANDIDATE]


def test_a_loop_begins_with_the_newest_checkpoint_and_names_those_it_passes_over(dag: Any) -> None:
    events = [SimpleNamespace(extra={"model_uri": uri}, timestamp=at) for uri, at in (("new", 2), ("old", 1))]
    started = context({}, rounds=2) | {"triggering_asset_events": {CHECKPOINT: events}}
    found = dag.get_task("base_model").execute(started)
    assert found == {"model_uri": "new", "origin": "asset event", "num_rounds": 2}
    assert started["ti"].left == {("pushed", "superseded_model_uri"): ["old"]}
    given = dag.get_task("base_model").execute(started | {"params": {"model_uri": "mine", "rounds": 1}})
    assert (given["model_uri"], given["num_rounds"]) == ("mine", 1)


def test_every_comparison_is_as_wide_as_the_rounds_of_which_the_best_is_taken(dag: Any) -> None:
    for number in (1, 2, 3):
        asked = dag.get_task(f"round_{number}.evaluate.compare").inputs["num_rounds"]
        assert (asked.operator.task_id, asked.key) == ("base_model", "num_rounds")


def test_a_person_is_not_asked_for_answers_that_are_too_few_to_learn_from(dag: Any, deployment: Any) -> None:
    store = Store(deployment.store_uri)
    store.write("films/pairs.json", json.dumps([{"prompt": "a square", "a": "1", "b": "2"}]).encode())
    question = dag.get_task("round_1.ask")
    question.films_uri, question.preview_uri = store.uri_of("films"), store.uri_of("preview")
    params = {"labeller": "human", "answer_timeout_s": 60, "tune_batch_size": 3}
    with pytest.raises(AirflowFailException, match="tune_batch_size must be at most the 2 films of 1 pairs, got 3"):
        question.execute(context({}, **params))
