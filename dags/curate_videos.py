"""### From footage to a curated dataset, a day's footage at a time

Finds the clips of a folder of videos, keeps the good ones, one of each that look the same and as many of each kind as
are wanted, captions them, cuts them out into shards of mp4 files and encodes them into training samples: the asset
`curated_dataset`. A report shows what was kept and why not.

The footage is the Param `videos_uri` or else the Airflow Variable `telecine_footage`, a folder or an `s3://` prefix,
and below it the Param `prefix`, where one is given: a run takes one such part. `{day}` in either stands for the day of
the run: the run of each night takes the folder of the day that ended, and a backfill takes every day of its range.
Clips that were cut before, by anybody, are not cut again. Copies are looked for within the run's footage, and among the
kept clips of the manifests that the Param `earlier_uri` names: say those of the nights before.
"""

from datetime import UTC, datetime

from airflow.sdk import DAG, CronDataIntervalTimetable, Param

from telecine.assets import DATASET
from telecine.operators import CloseRun, ComponentOperator, params_for
from telecine_components.caption.write.spec import COMPONENT as CAPTION
from telecine_components.curate.balance.spec import COMPONENT as BALANCE
from telecine_components.curate.cut.spec import COMPONENT as CUT
from telecine_components.curate.dedup.spec import COMPONENT as DEDUP
from telecine_components.curate.encode.spec import COMPONENT as ENCODE
from telecine_components.curate.filter.spec import COMPONENT as FILTER
from telecine_components.curate.report.spec import COMPONENT as REPORT
from telecine_components.curate.split.spec import COMPONENT as SPLIT

DAY = "(data_interval_start or dag_run.run_after).strftime('%Y-%m-%d')"
FOOTAGE = "(params.videos_uri or var.value.get('telecine_footage', ''))"
PART = f"([{FOOTAGE}.rstrip('/'), params.prefix.strip('/')] | select | join('/') if {FOOTAGE} else '')"
VIDEOS = Param(
    "",
    type="string",
    title="videos",
    description="Folder or s3:// prefix of your footage, {day} for the day; empty: the Variable telecine_footage.",
)
PREFIX = Param(
    "",
    type="string",
    title="prefix",
    description="Part of the footage to take, a path below it, {day} for the day; empty: all of it.",
)
EARLIER = Param(
    "",
    type="string",
    title="earlier",
    description="Manifest, or folder of manifests, of what was curated before: copies of its kept clips are left out.",
)
STEPS = (SPLIT, FILTER, DEDUP, BALANCE, CAPTION, CUT, ENCODE, REPORT)

with DAG(
    "curate_videos",
    schedule=CronDataIntervalTimetable("@daily", timezone="UTC"),
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=2,
    doc_md=__doc__,
    params={"videos_uri": VIDEOS, "prefix": PREFIX, "earlier_uri": EARLIER, **params_for(*STEPS)},
    tags=["telecine"],
) as dag:
    videos_uri = f"{{{{ {PART}.replace('{{day}}', {DAY}) }}}}"
    split = ComponentOperator(component=SPLIT, inputs={"videos_uri": videos_uri})
    select = ComponentOperator(component=FILTER, inputs={"clips_uri": split.out("clips_uri")})
    dedup = ComponentOperator(
        component=DEDUP, inputs={"clips_uri": select.out("clips_uri"), "earlier_uri": "{{ params.earlier_uri }}"}
    )
    balance = ComponentOperator(component=BALANCE, inputs={"clips_uri": dedup.out("clips_uri")})
    caption = ComponentOperator(
        component=CAPTION, inputs={"clips_uri": balance.out("clips_uri"), "videos_uri": videos_uri}
    )
    captioned = {"clips_uri": caption.out("clips_uri"), "videos_uri": videos_uri}
    cut = ComponentOperator(component=CUT, inputs=captioned)
    encode = ComponentOperator(component=ENCODE, inputs=captioned, outlets=[DATASET])
    report = ComponentOperator(component=REPORT, inputs={"clips_uri": cut.out("clips_uri")})
    [encode, report] >> CloseRun().as_teardown()
