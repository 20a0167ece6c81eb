"""### Keep the store as large as its use

Every night removes what no run of the last `keep_days` days, no registered model and no living attempt needs, as
`telecine gc` does. What a registered model or a report was made from is never removed. The task's log has each folder
with its size and reason; `dry_run` only says.
"""

from datetime import UTC, datetime

from airflow.sdk import DAG, CronTriggerTimetable, Param

from telecine.operators import CollectGarbage

with DAG(
    "collect_garbage",
    schedule=CronTriggerTimetable("0 3 * * *", timezone="UTC"),
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    doc_md=__doc__,
    params={
        "keep_days": Param(30, type="number", minimum=0, description="Keep the work of runs younger than this."),
        "dry_run": Param(False, type="boolean", description="Only say what would go."),
    },
    tags=["telecine"],
) as dag:
    CollectGarbage()
