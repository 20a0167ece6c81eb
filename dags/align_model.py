"""### From a trained model to one that does better what its captions say

Each round films prompts with the model, has the films labelled by Backlot's oracle or by you (under *Required
Actions*), tunes the model on them by reward-weighted regression, and compares the result with the base model on
held-out prompts. The model of a round begins the next. The task `outcome` says which model came out and why: that of
the round with the highest reward if the interval of its win rate against the base model lies above one half, else the
base model; the interval is a 95 % one for all rounds at once. A model that came out better is registered under
`model_name` as `candidate`, so that `promote_model` asks about it. MLflow's parent run shows `round/reward` and
`round/win_rate` over the rounds. Unanswered questions leave the model as it is. Of several checkpoints that came while
a run was going on, the newest is taken; the log of `base_model` names the others.
"""

from airflow.sdk import DAG, Param, TaskGroup

from telecine.alignment import BaseModel, Outcome, PairQuestions
from telecine.assets import CANDIDATE, CHECKPOINT
from telecine.operators import CloseRun, ComponentOperator, params_for
from telecine_components.align.collect.spec import COMPONENT as COLLECT
from telecine_components.align.label.spec import COMPONENT as LABEL
from telecine_components.align.tune.spec import COMPONENT as TUNE
from telecine_components.deploy.register.spec import COMPONENT as REGISTER
from telecine_components.evaluate.compare.spec import COMPONENT as COMPARE

STEPS = params_for(COLLECT, LABEL, TUNE, COMPARE)
DECIDED = ("collect_round", "label_labeller", "label_answers", "label_answered_by", "compare_num_rounds")
PARAMS = {
    "model_uri": Param(
        None,
        type=["null", "string"],
        description="Folder of the model to begin with; empty: the candidate.",
    ),
    "model_name": Param("telecine-flywheel", type="string", minLength=1, description="Registered model."),
    "rounds": Param(2, type="integer", minimum=1, maximum=3, description="Rounds of collect, label, tune, compare."),
    "labeller": Param("oracle", enum=["oracle", "human"], description="Who judges the films."),
    "answer_timeout_s": Param(
        86400, type="integer", minimum=0, description="Seconds to wait for a person; silence tunes nothing."
    ),
}
ASK = {"labeller_param": "labeller", "timeout_param": "answer_timeout_s", "batch_param": "tune_batch_size"}

with DAG(
    "align_model",
    schedule=[CHECKPOINT],
    doc_md=__doc__,
    params={**PARAMS, **{name: param for name, param in STEPS.items() if name not in DECIDED}},
    tags=["telecine"],
) as dag:
    base = BaseModel()
    base_uri = base.found("model_uri")
    against = {"reference_uri": base_uri, "num_rounds": base.found("num_rounds")}
    with TaskGroup("round_1"):
        collect_1 = ComponentOperator(
            component=COLLECT, inputs={"model_uri": base_uri, "reference_uri": base_uri, "round": 1}
        )
        ask_1 = PairQuestions(task_id="ask", collect=collect_1, **ASK)
        films = {"films_uri": collect_1.out("films_uri")}
        by = {"answers": ask_1.given("answers"), "answered_by": ask_1.given("by")}
        label_1 = ComponentOperator(component=LABEL, inputs={**films, **by, "labeller": "{{ params.labeller }}"})
        learn = {**films, "labels_uri": label_1.out("labels_uri")}
        tune_1 = ComponentOperator(component=TUNE, inputs={**learn, "model_uri": base_uri})
        compare_1 = ComponentOperator(component=COMPARE, inputs={"model_uri": tune_1.out("model_uri"), **against})
    with TaskGroup("round_2"):
        before = {"model_uri": tune_1.out("model_uri")}
        collect_2 = ComponentOperator(
            component=COLLECT, inputs={**before, "reference_uri": base_uri, "round": 2}, only_if="params.rounds >= 2"
        )
        ask_2 = PairQuestions(task_id="ask", collect=collect_2, **ASK)
        films = {"films_uri": collect_2.out("films_uri")}
        by = {"answers": ask_2.given("answers"), "answered_by": ask_2.given("by")}
        label_2 = ComponentOperator(component=LABEL, inputs={**films, **by, "labeller": "{{ params.labeller }}"})
        learn = {**films, "labels_uri": label_2.out("labels_uri")}
        tune_2 = ComponentOperator(component=TUNE, inputs={**learn, **before})
        compare_2 = ComponentOperator(component=COMPARE, inputs={"model_uri": tune_2.out("model_uri"), **against})
    with TaskGroup("round_3"):
        before = {"model_uri": tune_2.out("model_uri")}
        collect_3 = ComponentOperator(
            component=COLLECT, inputs={**before, "reference_uri": base_uri, "round": 3}, only_if="params.rounds >= 3"
        )
        ask_3 = PairQuestions(task_id="ask", collect=collect_3, **ASK)
        films = {"films_uri": collect_3.out("films_uri")}
        by = {"answers": ask_3.given("answers"), "answered_by": ask_3.given("by")}
        label_3 = ComponentOperator(component=LABEL, inputs={**films, **by, "labeller": "{{ params.labeller }}"})
        learn = {**films, "labels_uri": label_3.out("labels_uri")}
        tune_3 = ComponentOperator(component=TUNE, inputs={**learn, **before})
        compare_3 = ComponentOperator(component=COMPARE, inputs={"model_uri": tune_3.out("model_uri"), **against})
    compare_1 >> collect_2
    compare_2 >> collect_3
    outcome = Outcome(
        base=base,
        tunes=[tune_1, tune_2, tune_3],
        compares=[compare_1, compare_2, compare_3],
        questions=[ask_1, ask_2, ask_3],
    )
    better = {"model_uri": outcome.found("model_uri"), "training_uri": outcome.found("tuning_uri")}
    register = ComponentOperator(
        component=REGISTER,
        inputs={**better, "model_name": "{{ params.model_name }}"},
        only_if="ti.xcom_pull(task_ids='outcome', key='is_better')",
        outlets=[CANDIDATE],
    )
    register >> CloseRun(per_round=COMPARE).as_teardown()
