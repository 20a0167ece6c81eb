"""### From footage to a registered, sampled model

Renders Backlot films, or takes your folder, cuts it into clips, keeps the good ones, trains a small video model on
them, samples it, registers it in MLflow as `candidate` and writes a report. Work that has been done before, by
anybody, is reused; `telecine explain` says why.
"""

from airflow.sdk import DAG, Param

from telecine.assets import CANDIDATE
from telecine.operators import CloseRun, ComponentOperator, params_for
from telecine_components.backlot.render.spec import COMPONENT as RENDER
from telecine_components.curate.encode.spec import COMPONENT as ENCODE
from telecine_components.curate.filter.spec import COMPONENT as FILTER
from telecine_components.curate.split.spec import COMPONENT as SPLIT
from telecine_components.deploy.register.spec import COMPONENT as REGISTER
from telecine_components.deploy.report.spec import COMPONENT as REPORT
from telecine_components.evaluate.sample.spec import COMPONENT as SAMPLE
from telecine_components.pretrain.train.spec import COMPONENT as TRAIN

VIDEOS = Param(
    None, type=["null", "string"], title="videos", description="Folder of your footage; empty renders Backlot films."
)
STEPS = (RENDER, SPLIT, FILTER, ENCODE, TRAIN, SAMPLE, REGISTER, REPORT)

with DAG(
    "flywheel",
    schedule=None,
    doc_md=__doc__,
    params={"videos_uri": VIDEOS, **params_for(*STEPS)},
    tags=["telecine"],
) as dag:
    render = ComponentOperator(component=RENDER, unless="videos_uri")
    videos_uri = render.or_param("videos_uri", "videos_uri")
    split = ComponentOperator(component=SPLIT, inputs={"videos_uri": videos_uri}, trigger_rule="none_failed")
    select = ComponentOperator(component=FILTER, inputs={"clips_uri": split.out("clips_uri")})
    encode = ComponentOperator(
        component=ENCODE, inputs={"clips_uri": select.out("clips_uri"), "videos_uri": videos_uri}
    )
    train = ComponentOperator(component=TRAIN, inputs={"dataset_uri": encode.out("dataset_uri")})
    sample = ComponentOperator(component=SAMPLE, inputs={"model_uri": train.out("model_uri")})
    model = {
        "dataset_uri": encode.out("dataset_uri"),
        "training_uri": train.out("training_uri"),
    }
    register = ComponentOperator(
        component=REGISTER, inputs={**model, "model_uri": train.out("model_uri")}, outlets=[CANDIDATE]
    )
    report = ComponentOperator(
        component=REPORT,
        inputs={
            **model,
            "clips_uri": select.out("clips_uri"),
            "funnel_uri": select.out("funnel_uri"),
            "samples_uri": sample.out("samples_uri"),
            "registration_uri": register.out("registration_uri"),
        },
    )
    render >> split
    report >> CloseRun().as_teardown()
