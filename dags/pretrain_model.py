"""### From a curated dataset to a registered candidate

Starts whenever `curate_videos` leaves a dataset (asset `curated_dataset`), or by hand on any `dataset_uri`. Trains,
films the fixed prompts and registers the weights in MLflow as `candidate`, which the assets `checkpoint` and
`candidate` tell the next DAGs. Of several datasets that came while a run was going on, the newest is taken; the log of
`pretrain.train` names the others.

`train_recipe` names values to begin with (`telecine describe pretrain.train` lists them); whatever else is given wins.
With `train_sample_every_steps` the model films `train_sample_prompts` while it learns, in MLflow under *samples* of
the run `pretrain.train`. With `model_uri` it goes on from a model, with `train_lora_rank` by a LoRA. A Wan is neither
filmed by `evaluate.sample` nor registered: its autoencoder is not there.
"""

from airflow.sdk import DAG, Param

from telecine.assets import CANDIDATE, CHECKPOINT, DATASET, Newest
from telecine.operators import CloseRun, ComponentOperator, params_for
from telecine_components.deploy.register.spec import COMPONENT as REGISTER
from telecine_components.evaluate.sample.spec import COMPONENT as SAMPLE
from telecine_components.pretrain.train.spec import COMPONENT as TRAIN

DATASET_URI = Param("", type="string", description="Dataset to train on; empty takes the newest that a DAG curated.")
MODEL_URI = Param("", type="string", description="Model to go on from, or a Wan of diffusers; empty begins untrained.")
LEARNED = "ti.xcom_pull(task_ids='pretrain.train')['is_pipeline']"

with DAG(
    "pretrain_model",
    schedule=[DATASET],
    max_active_runs=1,
    doc_md=__doc__,
    params={"dataset_uri": DATASET_URI, "model_uri": MODEL_URI, **params_for(TRAIN, SAMPLE, REGISTER)},
    tags=["telecine"],
) as dag:
    dataset_uri = Newest(DATASET, output="dataset_uri", param="dataset_uri")
    begin = {"dataset_uri": dataset_uri, "model_uri": "{{ params.model_uri }}"}
    train = ComponentOperator(component=TRAIN, inputs=begin, outlets=[CHECKPOINT])
    sample = ComponentOperator(component=SAMPLE, inputs={"model_uri": train.out("model_uri")}, only_if=LEARNED)
    # The dataset is that which the training read: by now there may be a newer one.
    trained = {"model_uri": train.out("model_uri"), "training_uri": train.out("training_uri")}
    register = ComponentOperator(component=REGISTER, inputs=trained, only_if=LEARNED, outlets=[CANDIDATE])
    [sample, register] >> CloseRun().as_teardown()
