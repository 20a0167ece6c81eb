"""### From a candidate to the champion, by a person's word

Starts whenever a DAG registers a candidate, or by hand on any version. Shows the figures of the version beside the
champion's, films it, and asks under *Required Actions*. Approved, the alias `champion` moves to it, which is what
`make serve` serves; refused or unanswered in time, nothing changes. Either way MLflow and `promotion.json` say who
decided, when, and which version was champion before: promoting that version again is the rollback. An approval fails
where the champion has moved since the question was asked. Nobody is asked again about a version that is the champion or
was decided about, unless a person starts the DAG by hand. Of several candidates that came while a question stood, the
newest is asked about, of whichever model; the next question names the others, and the log of `deploy.propose` does.
"""

from airflow.sdk import DAG, Param

from telecine.assets import CANDIDATE, CHAMPION, Triggering
from telecine.gate import HumanGate
from telecine.operators import CloseRun, ComponentOperator
from telecine_components.deploy.promote.spec import COMPONENT as PROMOTE
from telecine_components.deploy.propose.spec import COMPONENT as PROPOSE
from telecine_components.evaluate.sample.spec import COMPONENT as SAMPLE

PARAMS = {
    "model_name": Param("telecine-flywheel", type="string", minLength=1, description="Registered model."),
    "model_version": Param("", type="string", description="Version to promote; empty is the alias candidate."),
    "timeout_s": Param(
        86400, type="integer", minimum=1, description="Seconds to wait for an answer; silence changes nothing."
    ),
}
BODY = """{{ ti.xcom_pull(task_ids='deploy.propose')['card'] }}

Films of this very version: `{{ ti.xcom_pull(task_ids='evaluate.sample')['samples_uri'] }}/contact_sheet.png`, and in
MLflow under *samples* of the run `evaluate.sample`. Silence keeps the champion as it is.
{%- set names = ti.xcom_pull(task_ids='deploy.propose', key='superseded_model_name') or [] -%}
{%- set versions = ti.xcom_pull(task_ids='deploy.propose', key='superseded_model_version') or [] %}
{% for name in names %}
* Passed over: {{ name }} version {{ versions[loop.index0] }}; start this DAG by hand to be asked about it.
{%- endfor %}"""

with DAG(
    "promote_model", schedule=[CANDIDATE], doc_md=__doc__, params=PARAMS, max_active_runs=1, tags=["telecine"]
) as dag:
    propose = ComponentOperator(
        component=PROPOSE,
        inputs={name: Triggering(CANDIDATE, name, name) for name in ("model_name", "model_version")},
    )
    sample = ComponentOperator(component=SAMPLE, inputs={"model_uri": propose.out("model_source")})
    gate = HumanGate(
        task_id="approve",
        subject="Promote {{ ti.xcom_pull(task_ids='deploy.propose')['model_name'] }} version "
        "{{ ti.xcom_pull(task_ids='deploy.propose')['model_version'] }} to champion?",
        body=BODY,
        branches={"Promote": "deploy.promote", "Keep the champion": "deploy.promote-refused"},
        safe="Keep the champion",
        silent="deploy.promote-unanswered",
        settled="{{ ti.xcom_pull(task_ids='deploy.propose')['settled'] }}",
        timeout_param="timeout_s",
    )
    decided = {
        "model_name": propose.out("model_name"),
        "model_version": propose.out("model_version"),
        "asked_champion": propose.out("champion_version"),
        "decided_by": gate.answered("by"),
        "decided_at": gate.answered("at"),
    }
    promote = ComponentOperator(component=PROMOTE, inputs={**decided, "decision": "approved"}, outlets=[CHAMPION])
    refused = ComponentOperator(component=PROMOTE, role="refused", inputs={**decided, "decision": "refused"})
    unanswered = ComponentOperator(component=PROMOTE, role="unanswered", inputs={**decided, "decision": "unanswered"})
    sample >> gate >> [promote, refused, unanswered]
    [promote, refused, unanswered] >> CloseRun().as_teardown()
