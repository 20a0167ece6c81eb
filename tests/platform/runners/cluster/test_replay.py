"""The stories of the fixtures through a whole look: asked of an API over HTTP, told as their own steps say.

Each fixture names where its sequence was taken from.
"""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from telecine import kube
from telecine.runners.cluster import jobs
from telecine.runners.cluster.words import State

STORIES = sorted(
    file.stem for file in (Path(__file__).parent / "fixtures").glob("*.json") if "unknown" not in file.stem
)
FIXTURE_NAME, FIXTURE_UID = "pretrain-train-3f2a9c1b04-1", "6515260c-4b1d-4f0a-9c0e-1f6f3d1b2a10"


def test_there_are_stories() -> None:
    assert len(STORIES) >= 15


@pytest.mark.parametrize("story", STORIES)
def test_a_story_is_told_through_the_api_as_it_was_seen(story: str, stage: Any) -> None:
    steps = json.loads((Path(__file__).parent / "fixtures" / f"{story}.json").read_text())["steps"]
    kind = next(step["seen"]["job"]["kind"] for step in steps if (step["seen"].get("job") or {}).get("kind"))
    here = stage(kind)
    made = here.submit()
    for step in steps:
        play(here, made, step["seen"])
        expected = State(**step["expect"])
        if expected.phase == "succeeded":
            expected = dataclasses.replace(expected, phase="failed", reason=jobs.NO_COMMIT)
        found = jobs.look(here.api(), here.store, made)
        told = json.loads(json.dumps(dataclasses.asdict(found)).replace(made.ref.name, FIXTURE_NAME))
        assert State(**told) == expected
    assert here.commit(made) is None
    assert here.cluster.requests("^DELETE") == []


def play(here: Any, made: Any, seen: dict[str, Any]) -> None:
    """Let the API answer what a step saw."""
    cluster, name = here.cluster, made.ref.name
    for kind in ("Pod", "Event", "Workload", "LocalQueue", "ClusterQueue", made.ref.kind):
        for one in cluster.all(kind):
            cluster.remove(kind, one["metadata"]["name"], one["metadata"].get("namespace"))
    seen = json.loads(json.dumps(seen).replace(FIXTURE_NAME, name))
    cluster.emulator.waiting = seen.get("pending")
    job = seen.get("job")
    labels = made.manifest["metadata"]["labels"]
    own = (job or {}).get("metadata", {})
    uid = own.get("uid", FIXTURE_UID)
    if job:
        cluster.put(made.ref.kind, job, name=name, uid=uid, labels=labels | own.get("labels", {}))
    for at, pod in enumerate(seen.get("pods", [])):
        more = pod["metadata"].get("labels", {})
        cluster.put("Pod", pod, name=pod["metadata"].get("name") or f"{name}-{at}", labels=labels | more)
    for at, event in enumerate(seen.get("events", [])):
        cluster.put("Event", {"lastTimestamp": f"2026-11-22T11:{at:02d}:00Z", **event}, name=f"event-{at}")
    if seen.get("workload"):
        cluster.put("Workload", seen["workload"], owners=[{"uid": uid, "kind": made.ref.kind, "name": name}])
    queue, behind = own.get("labels", {}).get(kube.QUEUE_LABEL, ""), seen.get("cluster_queue") or {}
    if queue and behind:
        cluster.add("LocalQueue", queue, spec={"clusterQueue": behind["metadata"]["name"]})
        cluster.put("ClusterQueue", behind, namespace=None)
