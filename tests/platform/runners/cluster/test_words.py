"""What the Kubernetes API said about a job, in plain words: every fixture is a story, each step of it one look."""

import copy
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from telecine.runners.cluster import pods, words
from telecine.runners.cluster.answers import MAX_CHARS, ordinal

STORIES = {
    file.stem: json.loads(file.read_text()) for file in sorted((Path(__file__).parent / "fixtures").glob("*.json"))
}
STEPS = [(f"{name}-{at}", step) for name, story in STORIES.items() for at, step in enumerate(story["steps"])]
PHASES = {"refused", "queued", "starting", "running", "succeeded", "failed", "gone"}
ODD = (None, 3, -1.5, True, "odd", [], {}, [None, "odd", {}], {"odd": {}})
IMAGE = "registry.example.com/telecine-train:0.1.0"


def look(seen: dict[str, Any]) -> words.State:
    """The state of a look as a fixture holds it; what is absent was not read."""
    return words.state(words.Seen(**{"job": None, **seen}))


def places(found: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Paths of every field and every list item, the outer before the inner."""
    keys = list(found) if isinstance(found, dict) else range(len(found)) if isinstance(found, list) else ()
    for key in keys:
        yield (*path, key)
        yield from places(found[key], (*path, key))


def holder(found: Any, path: tuple[Any, ...]) -> Any:
    for key in path[:-1]:
        found = found[key]
    return found


def failed_pod(message: str) -> dict[str, Any]:
    done = {"name": "component", "state": {"terminated": {"exitCode": 1, "reason": "Error", "message": message}}}
    return {"metadata": {"name": "p"}, "status": {"phase": "Failed", "containerStatuses": [done]}}


def failed_job() -> dict[str, Any]:
    return {"kind": "Job", "status": {"conditions": [{"type": "Failed", "status": "True"}]}}


@pytest.mark.parametrize("step", [step for _, step in STEPS], ids=[name for name, _ in STEPS])
def test_a_look_is_told_as_a_person_would(step: dict[str, Any]) -> None:
    assert look(step["seen"]) == words.State(**step["expect"])


def test_the_stories_name_their_sources_and_reach_every_phase() -> None:
    assert [name for name, story in STORIES.items() if "https://" not in story["source"]] == ["unknown_shapes"]
    assert [name for name, story in STORIES.items() if not re.search(r" \d+\.\d+", story.get("version", ""))] == [
        "unknown_shapes"
    ]
    states = [look(step["seen"]) for _, step in STEPS]
    assert {state.phase for state in states} == PHASES
    assert any(state.hopeless for state in states)
    assert any(state.hardware for state in states)


@pytest.mark.parametrize("name", STORIES)
def test_a_missing_field_never_raises_and_never_makes_a_success(name: str) -> None:
    for step in STORIES[name]["steps"]:
        for path in places(step["seen"]):
            seen = copy.deepcopy(step["seen"])
            holder(seen, path).pop(path[-1])
            state = look(seen)
            assert state.phase in PHASES
            assert state.reason
            assert step["expect"]["phase"] == "succeeded" or state.phase != "succeeded", path


@pytest.mark.parametrize("name", STORIES)
def test_a_field_of_another_kind_never_raises_and_never_makes_a_success(name: str) -> None:
    for step in STORIES[name]["steps"]:
        seen = copy.deepcopy(step["seen"])
        for path in list(places(seen)):
            if len(path) == 1:
                continue  # the looker makes these, not the API
            within = holder(seen, path)
            kept = within[path[-1]]
            for odd in ODD:
                within[path[-1]] = odd
                state = look(seen)
                assert state.phase in PHASES
                assert step["expect"]["phase"] == "succeeded" or state.phase != "succeeded", (path, odd)
            within[path[-1]] = kept


@pytest.mark.parametrize("step", [step for _, step in STEPS], ids=[name for name, _ in STEPS])
def test_the_order_of_the_pods_changes_no_word(step: dict[str, Any]) -> None:
    turned = {**step["seen"], "pods": step["seen"].get("pods", [])[::-1]}
    here, there = look(step["seen"]), look(turned)
    assert (here.phase, here.reason, here.code, here.hopeless) == (
        there.phase,
        there.reason,
        there.code,
        there.hopeless,
    )


def test_no_environment_of_a_pod_is_told() -> None:
    for _, step in STEPS:
        seen = copy.deepcopy(step["seen"])
        for pod in seen.get("pods", []):
            for container in pod.get("spec", {}).get("containers", []):
                container["env"] = [{"name": "GREETING", "value": "open-sesame"}]
        assert "open-sesame" not in repr(look(seen))


def test_a_secret_in_a_message_is_masked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "open-sesame")
    said = "ConnectionError: open-sesame is no password for https://user:pass@tracker"
    state = look({"job": failed_job(), "pods": [failed_pod(said)]})
    assert (
        state.reason
        == "exit 1: ConnectionError: [MLFLOW_TRACKING_PASSWORD] is no password for https://[userinfo]@tracker"
    )


def test_a_reason_is_one_line_of_a_length_that_a_person_reads() -> None:
    state = look({"job": failed_job(), "pods": [failed_pod("first\nValueError:\t" + "no clips " * 200 + "\n\n")]})
    assert state.reason.startswith("exit 1: ValueError: no clips no clips")
    assert len(state.reason) <= MAX_CHARS
    assert state.reason.endswith("…")


def test_events_of_the_newer_api_are_understood() -> None:
    said = f'Failed to pull image "{IMAGE}": not found'
    event = {
        "reason": "Failed",
        "note": said,
        "regarding": {"kind": "Pod", "name": "p"},
        "eventTime": "2026-11-22T10:00:00Z",
    }
    waiting = {"image": IMAGE, "state": {"waiting": {"reason": "ImagePullBackOff"}}}
    pod = {
        "metadata": {"name": "p"},
        "spec": {"nodeName": "n"},
        "status": {"phase": "Pending", "containerStatuses": [waiting]},
    }
    state = look({"job": {"kind": "Job"}, "pods": [pod], "events": [event]})
    assert state.hopeless
    assert state.reason.startswith(f"image pull back-off: {IMAGE}: no such image; push it")


def test_an_event_of_another_pod_says_nothing_of_this_one() -> None:
    event = {"reason": "FailedMount", "message": 'secret "s" not found', "involvedObject": {"name": "other"}}
    pod = {"metadata": {"name": "p"}, "spec": {"nodeName": "n"}, "status": {"phase": "Pending"}}
    assert look({"job": {"kind": "Job"}, "pods": [pod], "events": [event]}).reason == "its container is being made"


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (
            'jobs.batch "j" is forbidden: exceeded quota: jobs, requested: count/jobs.batch=1, '
            "used: count/jobs.batch=8, limited: count/jobs.batch=8",
            ("quota jobs: asks for count/jobs.batch=1; count/jobs.batch=8 of count/jobs.batch=8 used", False),
        ),
        (
            'pods "p" is forbidden: violates PodSecurity "restricted:latest"',
            ('refused: violates PodSecurity "restricted:latest"', True),
        ),
        (
            'pods "p" is forbidden: no PriorityClass with name high was found',
            ("refused: no PriorityClass with name high was found", True),
        ),
        ('jobs.batch is forbidden: User "me" cannot create resource "jobs" in API group "batch"', None),
        ("etcdserver: request timed out", None),
    ],
)
def test_a_refusal_to_create_is_told_and_no_other_error_is_taken_for_one(
    said: str, told: tuple[str, bool] | None
) -> None:
    assert pods.refusal(said) == told


def test_places_in_a_queue_are_counted_as_people_do() -> None:
    places = {1: "1st", 2: "2nd", 3: "3rd", 4: "4th", 10: "10th", 11: "11th", 12: "12th", 13: "13th", 21: "21st"}
    places |= {22: "22nd", 23: "23rd", 101: "101st", 111: "111th", 112: "112th", 1003: "1003rd"}
    assert {place: ordinal(place) for place in places} == places


def test_a_node_that_is_done_before_the_others_leaves_the_job_running() -> None:
    job = {"apiVersion": "trainer.kubeflow.org/v1alpha1", "kind": "TrainJob", "spec": {"trainer": {"numNodes": 2}}}
    up, done = ({"metadata": {"name": phase}, "status": {"phase": phase}} for phase in ("Running", "Succeeded"))
    assert words.state(words.Seen(job=job, pods=[up, done])).phase == "running"
    assert words.state(words.Seen(job=job, pods=[up])).phase == "starting"
