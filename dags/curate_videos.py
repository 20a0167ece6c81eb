"""### From footage to a curated dataset, a day's footage at a time

Cuts a folder of videos into clips, keeps the good ones and encodes them into training shards: the asset
`curated_dataset`. The footage is the Param `videos_uri` or else the Airflow Variable `telecine_footage`, a folder or an
`s3://` prefix. `{day}` in it stands for the day of the run: the run of each night takes the folder of the day that
ended, and a backfill takes every day of its range. Clips that were cut before, by anybody, are not cut again.
"""

from datetime import UTC, datetime

from airflow.sdk import DAG, CronDataIntervalTimetable, Param

from telecine.assets import DATASET
from telecine.operators import CloseRun, ComponentOperator, params_for
from telecine_components.curate.encode.spec import COMPONENT as ENCODE
from telecine_components.curate.filter.spec import COMPONENT as FILTER
from telecine_components.curate.split.spec import COMPONENT as SPLIT

DAY = "(data_interval_start or dag_run.run_after).strftime('%Y-%m-%d')"
FOOTAGE = "(params.videos_uri or var.value.get('telecine_footage', ''))"
VIDEOS = Param(
    "",
    type="string",
    title="videos",
    description="Folder or s3:// prefix of your footage, {day} for the day; empty: the Variable telecine_footage.",
)

with DAG(
    "curate_videos",
    schedule=CronDataIntervalTimetable("@daily", timezone="UTC"),
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=2,
    doc_md=__doc__,
    params={"videos_uri": VIDEOS, **params_for(SPLIT, FILTER, ENCODE)},
    tags=["telecine"],
) as dag:
    videos_uri = f"{{{{ {FOOTAGE}.replace('{{day}}', {DAY}) }}}}"
    split = ComponentOperator(component=SPLIT, inputs={"videos_uri": videos_uri})
    select = ComponentOperator(component=FILTER, inputs={"clips_uri": split.out("clips_uri")})
    encode = ComponentOperator(
        component=ENCODE,
        inputs={"clips_uri": select.out("clips_uri"), "videos_uri": videos_uri},
        outlets=[DATASET],
    )
    encode >> CloseRun().as_teardown()
