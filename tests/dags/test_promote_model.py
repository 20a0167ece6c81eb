"""The DAG promote_model and its gate by themselves; tests/browser/test_gate.py runs them in a real Airflow."""

import runpy
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jinja2
import pytest
from airflow.models.hitl import HITLDetail
from airflow.sdk import DAG
from airflow.sdk.exceptions import AirflowSkipException
from airflow.utils.types import DagRunType

from telecine.errors import InputError
from telecine.gate import HumanGate, answer_of
from telecine.operators import check_conf

NOW = datetime(2026, 11, 22, 10, tzinfo=UTC)
BRANCHES = {"deploy.promote", "deploy.promote-refused", "deploy.promote-unanswered"}


@pytest.fixture(scope="module")
def dag() -> Any:
    return runpy.run_path(str(Path(__file__).parents[2] / "dags" / "promote_model.py"))["dag"]


def test_only_the_branch_of_an_approval_may_move_the_alias(dag: Any) -> None:
    decisions = {task: dag.get_task(task).inputs["decision"] for task in BRANCHES}
    assert decisions == {
        "deploy.promote": "approved",
        "deploy.promote-refused": "refused",
        "deploy.promote-unanswered": "unanswered",
    }
    gate = dag.get_task("approve")
    assert gate.downstream_task_ids == BRANCHES
    assert [option for option, task in gate.options_mapping.items() if task == "deploy.promote"] == ["Promote"]
    assert gate.defaults == ["Keep the champion"]
    assert {gate.silent, gate.options_mapping["Keep the champion"]} == BRANCHES - {"deploy.promote"}


def test_what_is_promoted_is_the_very_version_that_was_shown(dag: Any) -> None:
    for task in BRANCHES:
        version = dag.get_task(task).inputs["model_version"]
        assert (version.operator.task_id, version.key) == ("deploy.propose", "model_version")
    assert dag.get_task("evaluate.sample").inputs["model_uri"].key == "model_source"
    assert dag.get_task("approve").upstream_task_ids == {"evaluate.sample"}


def test_the_question_names_the_candidates_that_it_passes_over(dag: Any) -> None:
    left = {"superseded_model_name": ["one", "two"], "superseded_model_version": ["3", "1"]}
    shown = {"deploy.propose": {"card": "The card."}, "evaluate.sample": {"samples_uri": "s3://films"}}

    def body(left: dict[str, Any]) -> str:
        ti = SimpleNamespace(xcom_pull=lambda task_ids, key="": left.get(key) if key else shown[task_ids])
        return str(jinja2.Template(dag.get_task("approve").body).render(ti=ti))

    passed = [line for line in body(left).splitlines() if "Passed over" in line]
    assert [line.partition(";")[0] for line in passed] == [
        "* Passed over: one version 3",
        "* Passed over: two version 1",
    ]
    assert body({}).rstrip().endswith("Silence keeps the champion as it is.")


@pytest.mark.parametrize(
    ("conf", "complaint"),
    [
        ({"timeout_s": 0}, "0 is less than the minimum of 1"),
        ({"timeout": 5}, "no Param 'timeout'; did you mean 'timeout_s'?"),
        ({"model_name": ""}, "Param model_name"),
        ({"model_version": 3}, "3 is not of type 'string'"),
    ],
)
def test_a_bad_param_is_refused_before_anybody_is_asked(dag: Any, conf: dict[str, Any], complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        check_conf(dag, conf)


def detail(option: str, by: dict[str, str] | None) -> HITLDetail:
    """An answered question as Airflow keeps it."""
    return HITLDetail(chosen_options=[option], responded_at=NOW, responded_by=by, params_input={})


@pytest.mark.parametrize(
    ("by", "timedout", "name"),
    [
        ({"id": "7", "name": "ada"}, False, "ada"),
        ({"id": "7", "name": ""}, False, "7"),
        (None, True, ""),
    ],
)
def test_an_answer_says_what_by_whom_and_when(by: dict[str, str] | None, timedout: bool, name: str) -> None:
    event = detail("Promote", by).as_resume_event_payload(timedout=timedout)
    assert answer_of(event) == {"option": "Promote", "by": name, "at": "2026-11-22T10:00:00+00:00"}


def gate(**more: Any) -> HumanGate:
    with DAG("asking", schedule=None):
        return HumanGate(
            task_id="ask", subject="?", branches={"Yes": "go", "No": "stay"}, safe="No", timeout_param="t_s", **more
        )


def test_a_gate_waits_as_long_as_its_param_says_and_takes_the_safe_option() -> None:
    asking = gate()
    assert asking.defaults == ["No"]
    assert asking.wait_for({"params": {"t_s": 90}}) == timedelta(seconds=90)
    assert asking.answered("by") == "{{ ti.xcom_pull(task_ids='ask', key='answer')['by'] }}"


def test_a_gate_asks_nobody_about_what_is_settled_unless_a_person_started_it() -> None:
    asking = gate(settled="version 3 is the champion already")
    with pytest.raises(AirflowSkipException, match="nobody is asked: version 3 is the champion already"):
        asking.execute({"dag_run": SimpleNamespace(run_type=DagRunType.ASSET_TRIGGERED)})
    for name, run_type in (("version 3 is the champion already", DagRunType.MANUAL), ("", DagRunType.ASSET_TRIGGERED)):
        with pytest.raises(KeyError, match="t_s"):  # on its way to ask, it looks how long it may wait
            gate(settled=name).execute({"dag_run": SimpleNamespace(run_type=run_type), "params": {}})


def test_the_gate_knows_what_is_settled_and_two_gates_never_stand_at_once(dag: Any) -> None:
    asking = dag.get_task("approve")
    assert "['settled']" in asking.settled and "settled" in asking.template_fields
    assert dag.max_active_runs == 1
    for task in BRANCHES:
        asked = dag.get_task(task).inputs["asked_champion"]
        assert (asked.operator.task_id, asked.key) == ("deploy.propose", "champion_version")


def test_a_safe_option_that_does_not_exist_fails_when_the_dag_is_parsed() -> None:
    with DAG("asking", schedule=None), pytest.raises(ValueError, match="should be a subset of options"):
        HumanGate(task_id="ask", subject="?", branches={"Yes": "go"}, safe="Later", timeout_param="t_s")
