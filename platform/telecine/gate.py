"""A question that a DAG puts to a person: answered on Airflow's page, or by silence with the safe option."""

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from airflow.providers.standard.operators.hitl import HITLBranchOperator
from airflow.sdk.exceptions import AirflowSkipException

if TYPE_CHECKING:
    from airflow.sdk import Context

ASK_AGAIN = {"retries": 3, "retry_delay": timedelta(seconds=5)}
"""Airflow 3.3 fails a question that is answered before its scheduler has seen it wait; it is then asked once more."""
ANSWER = "answer"
"""XCom key of ``{"option", "by", "at"}``: what was chosen, by whom (empty: by silence) and when."""


class HumanGate(HITLBranchOperator):
    """Wait for a person without holding a worker, then follow the branch of the option that was chosen.

    Args:
        branches: task id to follow for each option.
        safe: option that is taken when nobody answers in time.
        silent: task id to follow when nobody answered in time; by default that of ``safe``.
        timeout_param: name of the DAG's Param that holds how long to wait, in seconds.
        settled: template that says why nobody needs to be asked; unless it is empty, a run that an asset event has
            started skips the gate. A person who starts a run is asked.
    """

    template_fields = (*HITLBranchOperator.template_fields, "settled")

    def __init__(
        self,
        *,
        branches: dict[str, str],
        safe: str,
        silent: str = "",
        timeout_param: str,
        settled: str = "",
        **kwargs: Any,
    ) -> None:
        arguments = {"options": list(branches), "options_mapping": branches, "defaults": safe}
        super().__init__(**{**arguments, **ASK_AGAIN, **kwargs})
        self.timeout_param = timeout_param
        self.safe = safe
        self.silent = silent
        self.settled = settled

    def execute(self, context: "Context") -> Any:
        """Ask, and give the worker back; or say why nobody is asked, and skip."""
        if self.settled and context["dag_run"].run_type == "asset_triggered":
            raise AirflowSkipException(f"nobody is asked: {self.settled}")
        self.response_timeout = self.wait_for(context)
        return super().execute(context)

    def wait_for(self, context: "Context") -> timedelta:
        """How long this DAG run waits, by its Param."""
        return timedelta(seconds=float(context["params"][self.timeout_param]))

    def execute_complete(self, context: "Context", event: dict[str, Any]) -> Any:
        """Take the answer, leave it for other tasks under :data:`ANSWER`, and branch."""
        answer = answer_of(event)
        context["ti"].xcom_push(ANSWER, answer)
        if self.silent and not answer["by"]:
            self.options_mapping = {**self.options_mapping, self.safe: self.silent}
        return super().execute_complete(context, event)

    def answered(self, name: str) -> str:
        """A part of the answer (``option``, ``by``, ``at``) as a template for another task's inputs."""
        return f"{{{{ ti.xcom_pull(task_ids='{self.task_id}', key='{ANSWER}')['{name}'] }}}}"


def answer_of(event: dict[str, Any]) -> dict[str, str]:
    """What an event of Airflow's says: option, name of the person (empty when time ran out), moment (ISO 8601)."""
    at = event.get("responded_at")
    user = event.get("responded_by_user") or {}
    return {
        "option": (event.get("chosen_options") or [""])[0],
        "by": "" if event.get("timedout") else str(user.get("name") or user.get("id") or ""),
        "at": at.isoformat() if isinstance(at, datetime) else str(at or ""),
    }
