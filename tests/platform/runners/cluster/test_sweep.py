"""Finished RayJobs and TrainJobs go once the profile's time is over, and nothing else does."""

import dataclasses
import datetime
import re
from typing import Any

import pytest

from telecine.errors import InputError, RetryLater
from telecine.runners.cluster import sweep
from telecine.runners.cluster.api import NotInstalled

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


@pytest.mark.parametrize("kind", sweep.KINDS)
def test_each_namespace_is_swept_after_the_time_of_its_component(kind: str, stage: Any) -> None:
    stage = stage(kind)
    table = {"namespace": "team-b", "ttl_s": 30}
    stage.profile = dataclasses.replace(stage.profile, ttl_s=3600, components={stage.component.name: table})
    made = stage.submit()
    assert made.ref.namespace == "team-b"
    status: dict[str, Any] = {"jobDeploymentStatus": "Complete", "jobStatus": "SUCCEEDED", "endTime": LATELY}
    status |= {"conditions": [{"type": "Complete", "status": "True", "lastTransitionTime": LATELY}]}
    stage.cluster.patch(kind, made.ref.name, namespace="team-b", status=status)
    assert sweep.sweep(stage.api(), stage.profile, now=NOW) == [f"{kind} {made.ref.name}"]
    assert stage.names() == []


def test_an_operator_that_is_not_installed_has_nothing_to_be_swept(stage: Any) -> None:
    stage = stage("TrainJob")
    made = stage.submit()
    _end(stage, made, LONG_AGO)
    stage.cluster.uninstall("RayJob")
    assert sweep.sweep(stage.api(), stage.profile, now=NOW) == [f"TrainJob {made.ref.name}"]


@pytest.mark.parametrize(("code", "kind"), [(403, InputError), (401, InputError), (503, RetryLater)])
def test_a_cluster_that_does_not_let_us_sweep_says_so(code: int, kind: type[Exception], stage: Any) -> None:
    stage = stage("TrainJob")
    stage.cluster.fault("^GET .*/rayjobs$", code)
    with pytest.raises(kind, match=re.escape(stage.cluster.url)) as raised:
        sweep.sweep(stage.api(), stage.profile, now=NOW)
    assert not isinstance(raised.value, NotInstalled)
