"""Finished RayJobs and TrainJobs go once the profile's time is over, and nothing else does."""

import dataclasses
import datetime
from typing import Any

import pytest

from telecine.runners.cluster import sweep

NOW = datetime.datetime(2026, 11, 22, 12, tzinfo=datetime.UTC)
LONG_AGO, LATELY = "2026-11-22T10:00:00Z", "2026-11-22T11:59:00Z"


def _end(stage: Any, made: Any, when: str) -> None:
    stage.end_job(made, "Complete")
    (job,) = stage.cluster.all(made.ref.kind)
    status = job["status"] | {"endTime": when}
    for condition in status.get("conditions", []):
        condition["lastTransitionTime"] = when
    stage.cluster.patch(made.ref.kind, made.ref.name, status=status)


@pytest.mark.parametrize("kind", sweep.KINDS)
def test_what_ended_long_ago_is_deleted_and_what_runs_or_ended_lately_is_not(kind: str, stage: Any) -> None:
    stage = stage(kind)
    profile = dataclasses.replace(stage.profile, ttl_s=3600)
    made = stage.submit()
    assert sweep.sweep(stage.api(), profile, now=NOW) == []
    _end(stage, made, LATELY)
    assert sweep.sweep(stage.api(), profile, now=NOW) == []
    _end(stage, made, LONG_AGO)
    assert sweep.sweep(stage.api(), profile, now=NOW, dry_run=True) == [f"{kind} {made.ref.name}"]
    assert stage.names() == [made.ref.name]
    assert sweep.sweep(stage.api(), profile, now=NOW) == [f"{kind} {made.ref.name}"]
    assert stage.names() == []


def test_what_another_made_stays(stage: Any) -> None:
    stage = stage("TrainJob")
    made = stage.submit()
    _end(stage, made, LONG_AGO)
    (job,) = stage.cluster.all("TrainJob")
    stage.cluster.patch("TrainJob", made.ref.name, metadata={"labels": {"app.kubernetes.io/managed-by": "somebody"}})
    assert sweep.sweep(stage.api(), stage.profile, now=NOW) == []
    assert stage.names() == [job["metadata"]["name"]]
