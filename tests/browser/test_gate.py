"""The human gates, answered on Airflow's own page, by its API, and by silence: that of promote_model and the pairs of
align_model. And what only a scheduler does: start a DAG by an asset, and run a backfill. One file, because its one
Airflow takes long to start.
"""

import json
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from playwright.sync_api import Browser, Page

from telecine import slugs, tracking
from telecine.storage import Store
from telecine.work import runs

DAG = "promote_model"
BRANCHES = ("deploy.promote", "deploy.promote-refused", "deploy.promote-unanswered")


@pytest.fixture(scope="module")
def model(trained: Any) -> str:
    """A registered model of one candidate, which the three runs of this file are about."""
    outputs = trained.outputs
    uris = {"model_uri": outputs.model_uri, "training_uri": outputs.training_uri, "dataset_uri": str(trained.dataset)}
    trained.run("deploy.register", run="gated", model_name="gated", **uris)
    return "gated"


def _branches(states: dict[str, str]) -> dict[str, str]:
    return {task: states[task] for task in BRANCHES}


def _skipped_but(taken: str) -> dict[str, str]:
    return {task: "success" if task == taken else "skipped" for task in BRANCHES}


def test_a_gate_is_answered_on_the_page_and_silence_changes_nothing(
    airflow: Any, page: Page, model: str, tmp_path: Path
) -> None:
    client = tracking.connect(airflow.here)
    airflow.start(DAG, "silent", {"model_name": model, "timeout_s": 1})
    airflow.start(DAG, "answered", {"model_name": model, "timeout_s": 3600})

    silent = airflow.wait(DAG, "silent", lambda states: states["run"] == "success")
    assert _branches(silent) == _skipped_but("deploy.promote-unanswered")
    assert "champion" not in client.get_registered_model(model).aliases
    assert _tags(client, model) == {"decision": "unanswered", "by": "", "previous": ""}

    airflow.log_in(page)
    subject, picture = f"Promote {model} version 1", tmp_path / "gate.png"
    airflow.settle(DAG, "answered", "approve", lambda: airflow.answer(page, subject, "Promote", picture))
    answered = airflow.wait(DAG, "answered", lambda states: states["run"] == "success")
    assert _branches(answered) == _skipped_but("deploy.promote")
    assert str(client.get_model_version_by_alias(model, "champion").version) == "1"
    assert _tags(client, model) == {"decision": "approved", "by": "admin", "previous": ""}
    parents = client.search_runs(
        [client.get_experiment_by_name(DAG).experiment_id], "tags.`platform.airflow_run_id` = 'answered'"
    )
    assert {run.info.status for run in parents} == {"FINISHED"}, "branches not taken are not missing"


def test_a_refusal_is_recorded_and_the_champion_stays(airflow: Any, model: str) -> None:
    client = tracking.connect(airflow.here)
    before = dict(client.get_registered_model(model).aliases)
    airflow.start(DAG, "refused", {"model_name": model, "model_version": "1", "timeout_s": 3600})
    path = f"/api/v2/dags/{DAG}/dagRuns/refused/taskInstances/approve/-1/hitlDetails"
    answer = {"chosen_options": ["Keep the champion"], "params_input": {}}

    airflow.settle(DAG, "refused", "approve", lambda: airflow.ask("PATCH", path, answer))
    states = airflow.wait(DAG, "refused", lambda states: states["run"] == "success")
    assert _branches(states) == _skipped_but("deploy.promote-refused")
    assert dict(client.get_registered_model(model).aliases) == before
    assert _tags(client, model)["decision"] == "refused"


def _tags(client: Any, model: str) -> dict[str, str]:
    tags = client.get_model_version(model, "1").tags
    return {name: tags[f"telecine.promotion_{name}"] for name in ("decision", "by", "previous")}


def test_a_candidate_that_a_dag_registers_starts_the_question_about_it(
    airflow: Any, trained: Any, tiny_training: dict[str, Any]
) -> None:
    training = {f"train_{name}": value for name, value in tiny_training.items()}  # done before, so it is reused
    sample = {"sample_num_steps": 1, "sample_prompts": ["a red square moves right"], "sample_seeds": [0]}
    names = {"dataset_uri": str(trained.dataset), "register_model_name": "told"}
    airflow.start("pretrain_model", "made", training | sample | names)
    (started,) = airflow.runs(DAG, "asset_triggered", bool)
    run = started["dag_run_id"]
    airflow.wait(DAG, run, lambda states: states.get("approve") == "awaiting_input")
    met = {p.task: p for p in runs.pointers(Store(airflow.here.store_uri), slugs.slug(DAG, run))}
    asked = met["deploy.propose"]
    assert (asked.inputs["model_name"], asked.inputs["model_version"]) == ("told", "1")
    path = f"/api/v2/dags/{DAG}/dagRuns/{run}/taskInstances/approve/-1/hitlDetails"
    assert airflow.ask("GET", path)["subject"] == "Promote told version 1 to champion?"


# The pairs of align_model

ALIGN = "align_model"
TINY = {
    "rounds": 1,
    "labeller": "human",
    "collect_num_prompts": 2,
    "collect_num_seeds": 2,
    "collect_num_steps": 1,
    "collect_max_pairs": 2,
    "tune_num_steps": 1,
    "tune_batch_size": 2,
    "compare_num_prompts": 8,
    "compare_num_seeds": 1,
    "compare_num_steps": 1,
}
PAGE_MS = 60_000
SEEN = {
    "pairs.png": "[...document.images].some(image => image.src.startsWith('blob:') && image.naturalWidth > 0)",
    "pair-01.mp4": "[...document.querySelectorAll('video')].some(v => v.readyState >= 2 && v.videoWidth > 0)",
}
"""What MLflow's page shows once the file is there: a picture, a film that can play."""


def test_a_person_sees_the_films_answers_on_the_page_and_the_round_learns_from_it(
    airflow: Any, trained: Any, page: Page, chromium: Browser, tmp_path: Path
) -> None:
    def compare() -> None:
        airflow.question(page, "Which film is better?")
        submit = page.get_by_role("button", name="Submit", exact=True)
        submit.wait_for()
        shown = {name: page.get_by_role("link", name=name).get_attribute("href") for name in SEEN}
        _choose(page, "pair_01", "A")
        _choose(page, "pair_02", "B")
        page.screenshot(path=tmp_path / "question.png")
        _watch(chromium, airflow.mlflow, shown, tmp_path)
        airflow.press(page, submit)

    airflow.start(ALIGN, "compared", TINY | {"model_uri": trained.outputs.model_uri})
    airflow.log_in(page)
    airflow.settle(ALIGN, "compared", "round_1.ask", compare)
    states = airflow.wait(ALIGN, "compared", lambda states: states["run"] == "success")
    assert {task for task, state in states.items() if task.startswith("round_1.") and state != "success"} == set()
    slug = slugs.slug(ALIGN, "compared")
    met = {pointer.task: pointer for pointer in runs.pointers(Store(airflow.here.store_uri), slug)}
    label = met["round_1.align.label"]
    assert (label.inputs["answers"], label.inputs["answered_by"]) == (["A", "B"], "admin")
    preferences = json.loads(_local(label.outputs["preferences_uri"]).read_text())
    assert [pair["answer"] for pair in preferences["pairs"]] == ["A", "B"]
    rows = {row["sample_id"]: row for row in pq.read_table(_local(label.outputs["labels_uri"])).to_pylist()}
    given = [(rows[pair["a"]]["reward"], rows[pair["b"]]["reward"]) for pair in preferences["pairs"]]
    assert given == [(1.0, 0.0), (0.0, 1.0)]
    assert {(row["labeller"], row["labelled_by"]) for row in rows.values()} == {("human", "admin")}


def _choose(page: Page, pair: str, answer: str) -> None:
    """Take an answer from the list of a field of the form."""
    page.click(f"#element_{pair}")
    page.get_by_role("option", name=answer, exact=True).click()


def _watch(chromium: Browser, mlflow: tuple[str, str, str], shown: dict[str, str], folder: Path) -> None:
    """Follow the links of the question as a person does who has MLflow's login."""
    url, name, password = mlflow
    context = chromium.new_context(
        viewport={"width": 1200, "height": 900}, http_credentials={"username": name, "password": password}
    )
    context.set_default_timeout(PAGE_MS)
    for file, expression in SEEN.items():
        tab = context.new_page()
        assert shown[file].startswith(f"{url}/#/experiments/") and shown[file].endswith(f"/artifacts/pairs/{file}")
        tab.goto(shown[file])
        tab.wait_for_function(expression)
        tab.screenshot(path=folder / f"{file}.png")
    context.close()


def _local(uri: str) -> Path:
    return Path(uri.removeprefix("file://"))


# A backfill of curate_videos

MONTHS = ("2026-11", "2026-10", "2026-09", "2026-08", "2026-07")
"""One for each try to make the backfill."""


def test_a_backfill_gives_each_day_of_its_range_the_footage_of_that_day(airflow: Any, tmp_path: Path) -> None:
    airflow.unpause("curate_videos")
    conf = json.dumps({"videos_uri": f"{tmp_path}/{{day}}"})
    for month in MONTHS:
        days = (f"{month}-18", f"{month}-19")
        for number, day in enumerate(days, 1):
            (tmp_path / day).mkdir()
            for name in range(number):
                (tmp_path / day / f"{name}.mp4").write_text(f"no video: {day} {name}")  # nothing to encode is soon told
        period = ("--from-date", days[0], "--to-date", days[1])
        if airflow.call("backfill", "create", "--dag-id", "curate_videos", *period, "--dag-run-conf", conf):
            break
        airflow.cancel_backfills("curate_videos")
    of_days = partial(_of_days, days)
    made = airflow.runs(
        "curate_videos",
        "backfill",
        lambda found: len(of_days(found)) == 2 and all(run["state"] in ("failed", "success") for run in of_days(found)),
    )
    seen = {}
    for run in of_days(made):
        slug = slugs.slug("curate_videos", run["dag_run_id"])
        met = {p.task: p for p in runs.pointers(Store(airflow.here.store_uri), slug)}
        split, select = met["curate.split"], met["curate.filter"]
        seen[split.inputs["videos_uri"]] = (run["logical_date"][:10], split.outputs["num_bad_files"])
        assert (select.decision, select.exit_code) == ("failed", 78), "no clip is left of these files"
    assert seen == {str(tmp_path / day): (day, number) for number, day in enumerate(days, 1)}


def _of_days(days: tuple[str, str], found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [run for run in found if run["logical_date"][:10] in days]
