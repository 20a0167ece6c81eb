"""What becomes of a Job, a RayJob and a TrainJob, with the component's part done by the real command line."""

import dataclasses
import json
import re
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowException, AirflowFailException

from telecine import deferred
from telecine.runners.cluster import jobs, records
from telecine.runners.cluster.words import State
from telecine.work import attempts, runs, status

KINDS = ["Job", "RayJob", "TrainJob"]


def event(made: Any, found: State | None) -> dict[str, Any]:
    """What the trigger would fire."""
    assert found is not None
    return json.loads(json.dumps({"submission": made.plain(), "state": vars(found)}))


def failure(made: Any, found: State | None) -> AirflowException:
    """What the task raises on its return."""
    with pytest.raises(AirflowException) as raised:
        deferred.settle(event(made, found))
    return raised.value


@pytest.mark.parametrize("kind", KINDS)
def test_a_job_that_runs_to_its_end_leaves_one_object_and_one_commit(
    kind: str, stage: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = stage(kind)
    made = here.submit()
    assert here.found.phase == "starting"
    watch = here.watch(made)
    assert watch.step() is None
    here.start(made)
    assert watch.step() is None
    assert "event=running" in watch.take_lines()[-1]
    assert here.wait().phase == "running"
    assert here.run_pod(made, monkeypatch) == 0
    found = watch.step()
    assert found == jobs.DONE
    outputs = deferred.settle(event(made, found))
    assert here.store.read(here.store.path_of(outputs["text_uri"])) == b"a"
    assert here.names() == [made.ref.name]
    assert here.wait() is None
    assert runs.pointers(here.store, "r")[0].decision == "ran"
    assert any("event=start" in line for line in jobs.said(here.store, made))


@pytest.mark.parametrize(
    ("kind", "code", "final"),
    [("Job", 78, True), ("Job", 75, False), ("Job", 1, False), ("RayJob", 78, True), ("TrainJob", 69, False)],
)
def test_what_the_component_says_of_its_end_is_what_the_task_says(
    kind: str, code: int, final: bool, stage: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = stage(kind)
    made = here.submit()
    assert here.run_pod(made, monkeypatch, fault=str(code)) == code
    here.fail_pod(made, code, node="n7")
    here.end_job(made, "Failed", "BackoffLimitExceeded", "Job has reached the specified backoff limit")
    found = here.watch(made).step()
    assert (found.phase, found.code) == ("failed", code)
    assert f"the toy was told to end with {code}" in found.reason
    error = failure(made, found)
    assert isinstance(error, AirflowFailException) == final
    assert here.commit(made) is None
    assert any("the toy was told" in line for line in jobs.said(here.store, made))
    assert runs.pointers(here.store, "r")[0].exit_code == code


def test_a_fault_of_the_hardware_keeps_the_next_attempt_off_that_node(
    stage: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = stage("Job")
    made = here.submit()
    here.run_pod(made, monkeypatch, fault="69")
    here.fail_pod(made, 69, node="n7")
    here.end_job(made, "Failed", "BackoffLimitExceeded")
    assert "on another node than n7" in str(failure(made, here.watch(made).step()))
    again = here.submit()
    assert again.number == 2
    assert '"n7"' in json.dumps(again.manifest["spec"]["template"]["spec"]["affinity"])
    assert here.run_pod(again, monkeypatch) == 0
    assert here.watch(again).step() == jobs.DONE
    assert records.ended(here.store, made.prefix, 1).hardware


def test_a_pod_without_memory_says_so_and_its_last_words_are_kept(stage: Any) -> None:
    here = stage("Job")
    made = here.submit()
    pod = here.fail_pod(made, 137, reason="OOMKilled", said="step=12 loss=0.5\nKilled\n")
    watch = here.watch(made)
    assert watch.step() is None
    here.cluster.remove("Pod", pod)
    here.end_job(made, "Failed", "BackoffLimitExceeded", "Job has reached the specified backoff limit")
    found = watch.step()
    assert found.phase == "failed"
    assert "step=12 loss=0.5" in jobs.said(here.store, made)
    assert not isinstance(failure(made, found), AirflowFailException)


def test_words_of_a_pod_are_asked_for_before_the_job_is_called_failed(stage: Any) -> None:
    here = stage("Job")
    made = here.submit()
    here.fail_pod(made, 137, reason="OOMKilled")
    here.end_job(made, "Failed", "BackoffLimitExceeded")
    found = here.watch(made).step()
    assert "raise memory_gib" in found.reason
    assert found.reason in str(failure(made, found))
    assert runs.pointers(here.store, "r")[0].error == found.reason


@pytest.mark.parametrize("kind", KINDS)
def test_a_job_that_ended_well_without_a_commit_is_no_success(kind: str, stage: Any) -> None:
    here = stage(kind)
    made = here.submit()
    here.end_job(made, "Complete")
    found = here.watch(made).step()
    assert (found.phase, found.reason) == ("failed", jobs.NO_COMMIT)
    assert "no commit" in str(failure(made, found))


@pytest.mark.parametrize(
    ("kind", "how"), [("Job", "failed"), ("Job", "gone"), ("RayJob", "failed"), ("TrainJob", "failed")]
)
def test_a_commit_is_a_success_whatever_became_of_the_job(
    kind: str, how: str, stage: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = stage(kind)
    made = here.submit()
    assert here.run_pod(made, monkeypatch) == 0
    if how == "failed":
        here.fail_pod(made, 1)
        here.end_job(made, "Failed", "BackoffLimitExceeded")
    else:
        here.cluster.remove(kind, made.ref.name)
    assert here.watch(made).step() == jobs.DONE


def test_a_commit_between_the_look_at_the_store_and_the_look_at_the_job_counts(
    stage: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = stage("Job")
    made = here.submit()
    here.end_job(made, "Complete")
    record = b'{"attempt": "a"}'
    path = f"{made.prefix}/commit.json"
    here.cluster.emulator.before.append(lambda line: here.store.create(path, record) and None)
    assert jobs.look(here.api(), here.store, made) == jobs.DONE


@pytest.mark.parametrize(
    ("kind", "phase"), [("Job", "pending"), ("Job", "running"), ("RayJob", "running"), ("TrainJob", "pending")]
)
def test_a_job_that_is_deleted_from_outside_is_tried_again_under_the_next_number(
    kind: str, phase: str, stage: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = stage(kind)
    made = here.submit()
    watch = here.watch(made)
    if phase == "running":
        here.start(made)
    assert watch.step() is None
    here.cluster.remove(kind, made.ref.name)
    found = watch.step()
    assert found.phase == "gone"
    assert not isinstance(failure(made, found), AirflowFailException)
    again = here.submit()
    assert (again.number, len(here.names())) == (2, 1)
    here.run_pod(again, monkeypatch)
    assert here.watch(again).step() == jobs.DONE


def test_a_job_that_is_being_deleted_is_left_to_end_and_another_one_is_made(stage: Any) -> None:
    here = stage("Job")
    made = here.submit()
    here.cluster.patch("Job", made.ref.name, metadata={"deletionTimestamp": "2026-11-22T10:00:00Z"})
    again = here.submit()
    assert (made.number, again.number) == (1, 2)
    assert here.names() == [made.ref.name, again.ref.name]


@pytest.mark.parametrize("ended", ["Complete", "Failed", ""], ids=["complete", "failed", "gone"])
def test_a_pod_that_went_before_anyone_looked_is_neither_success_nor_crash(ended: str, stage: Any) -> None:
    """https://github.com/apache/airflow/issues/66715 and 39239: a pod collected before the task came back."""
    here = stage("Job")
    made = here.submit()
    if ended:
        here.end_job(made, ended)
    else:
        here.cluster.remove("Job", made.ref.name)
    found = here.watch(made).step()
    assert found.phase in ("failed", "gone")
    assert jobs.said(here.store, made) == []
    assert made.ref.name in str(failure(made, found))


def test_a_finished_job_that_nobody_saw_is_not_adopted_again(stage: Any) -> None:
    """https://github.com/apache/airflow/issues/58490: a retry that defers to a pod that has long ended."""
    here = stage("Job")
    made = here.submit()
    here.fail_pod(made, 1, said="Traceback: no such module\n")
    here.end_job(made, "Failed", "BackoffLimitExceeded")
    again = here.submit()
    assert (again.number, here.found.phase) == (2, "starting")
    assert "Traceback: no such module" in jobs.said(here.store, made)
    assert here.watch(again).step() is None
    assert (here.wait().phase, here.wait().reason) == ("starting", "a pod is about to be made")


@pytest.mark.parametrize("kind", KINDS)
def test_an_eviction_by_kueue_goes_back_to_the_queue_and_ends_well(
    kind: str, stage: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kueue 0.19, https://kueue.sigs.k8s.io/docs/concepts/workload/; the conditions are those of kueue_evicted.json.

    What each operator does with ``suspend``: https://kubernetes.io/docs/concepts/workloads/controllers/job/ (Kubernetes
    1.31 or newer), ray-operator/controllers/ray/rayjob_controller.go (KubeRay 1.6),
    pkg/controller/trainjob_controller.go (Trainer 2.3).
    """
    here = stage(kind)
    here.profile = dataclasses.replace(here.profile, queue="video-a")
    made = here.submit()
    watch = here.watch(made)
    assert watch.step() is None
    assert here.wait().phase == "queued"
    name, uid = made.ref.name, here.job(made)["metadata"]["uid"]
    here.resume(made, node="n1")
    assert watch.step() is None
    assert here.wait().phase == "running"
    evicted = {
        "type": "Evicted",
        "status": "True",
        "reason": "Preempted",
        "message": "Preempted to accommodate another",
    }
    owner = [{"uid": uid, "kind": kind, "name": name}]
    here.cluster.add("Workload", f"w-{name}", owners=owner, status={"conditions": [evicted]}, spec={"active": True})
    assert here.run_pod(made, monkeypatch, fault="75") == 75
    here.suspend(made)
    assert not is_failed_by_a_rule(here.job(made), here.cluster.all("Pod"))
    assert watch.step() is None
    assert here.wait().phase == "queued"
    assert "back in the queue, preempted" in here.wait().reason
    assert [task["state"] for task in status.of(here.store, "r")["tasks"]] == ["queued"]
    here.cluster.remove("Workload", f"w-{name}")
    here.resume(made, node="n2")
    assert watch.step() is None
    assert (here.wait().phase, here.wait().node) == ("running", "n2")
    assert here.run_pod(made, monkeypatch) == 0
    assert watch.step() == jobs.DONE
    assert (here.names(), here.cluster.requests("^DELETE")) == ([name], [])


def is_failed_by_a_rule(job: dict[str, Any], pods: list[dict[str, Any]]) -> bool:
    """What the Job controller makes of FailJob rules, whether or not the Job is suspended.

    getFailJobMessage and matchPodFailurePolicy of pkg/controller/job, Kubernetes 1.31 or newer.
    """
    rules = job["spec"].get("podFailurePolicy", {}).get("rules", [])
    fatal = [rule["onExitCodes"]["values"] for rule in rules if rule["action"] == "FailJob" and "onExitCodes" in rule]
    codes = {pod["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"] for pod in pods}
    assert codes == {75}
    return any(codes & set(values) for values in fatal)


@pytest.mark.parametrize("reason", ["DeletionByTaintManager", "DeletionByPodGC", "PreemptionByScheduler"])
@pytest.mark.parametrize("kind", ["Job", "TrainJob"])
def test_a_lost_node_costs_no_attempt(kind: str, reason: str, stage: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """https://kubernetes.io/docs/concepts/workloads/pods/disruptions/#pod-disruption-conditions, Kubernetes 1.31.

    A Job makes another pod. A TrainJob's JobSet makes all of them anew, by RestartJobSetAndIgnoreMaxRestarts in
    infra/cluster/training-runtimes.yaml: https://jobset.sigs.k8s.io/docs/concepts/, as Trainer 2.3 brings it.
    """
    here = stage(kind)
    made = here.submit()
    watch = here.watch(made)
    here.start(made)
    assert watch.step() is None
    lost = here.cluster.all("Pod")[0]["metadata"]["name"]
    target = {"type": "DisruptionTarget", "status": "True", "reason": reason}
    here.cluster.patch("Pod", lost, status={"phase": "Failed", "conditions": [target]})
    assert watch.step() is None
    assert here.wait().phase == "starting"
    assert "starting again" in here.wait().reason
    for pod in here.cluster.all("Pod"):
        here.cluster.remove("Pod", pod["metadata"]["name"])
    here.start(made, node="n2")
    assert watch.step() is None
    assert (here.wait().phase, here.wait().node) == ("running", "n2")
    here.run_pod(made, monkeypatch)
    assert watch.step() == jobs.DONE
    assert here.names() == [made.ref.name]


def test_a_lost_worker_of_ray_costs_no_attempt_and_a_lost_head_costs_one(stage: Any) -> None:
    """KubeRay makes another worker, and does not notice that a head took its driver with it.

    ray-operator/controllers/ray/raycluster_controller.go, KubeRay 1.6; https://github.com/ray-project/kuberay/issues/4217
    """
    here = stage("RayJob")
    made = here.submit(patience_s=0.0)
    watch = here.watch(made)
    head = here.pod(made, node="n1", labels={"ray.io/node-type": "head"})
    worker = here.pod(made, node="n2")
    here.cluster.patch("RayJob", made.ref.name, status={"jobStatus": "RUNNING", "jobDeploymentStatus": "Running"})
    target = {"type": "DisruptionTarget", "status": "True", "reason": "DeletionByPodGC"}
    lost = {"phase": "Failed", "conditions": [target]}
    here.cluster.patch("Pod", worker, status=lost)
    assert [watch.step() for _ in range(3)] == [None] * 3
    assert (here.wait().phase, here.wait().node) == ("running", "n1")
    here.cluster.patch("Pod", head, status=lost)
    found = watch.step()
    assert "Ray's head was lost" in found.reason
    assert (found.hopeless, here.names()) == (True, [])
    assert here.submit().number == 2


def test_progress_of_the_component_is_logged_in_steps_of_ten_per_cent(stage: Any) -> None:
    here = stage("Job")
    made = here.submit()
    here.start(made)
    watch = here.watch(made)
    attempt = attempts.Attempt(here.store, made.prefix, run="r", task="toy.write", superseded=lambda: False)
    lines = []
    for done in (0, 50, 52, 58, 90):
        attempt.progress = attempts.Progress(done=done, total=100)
        attempt.beat()
        assert watch.step() is None
        lines += watch.take_lines()
    assert [re.findall(r"runs on node n1, (\d+) % done", line) for line in lines] == [["0"], ["50"], ["90"]]


def test_a_task_whose_credentials_stay_refused_ends_and_says_that_its_job_goes_on(stage: Any) -> None:
    here = stage("Job")
    made = here.submit(patience_s=-1.0)
    here.watch(made).step()
    here.cluster.fault(".*", 401)
    error = failure(made, here.watch(made).step())
    assert isinstance(error, AirflowFailException)
    assert "The job itself goes on; clear the task" in str(error)
    assert [task["state"] for task in status.of(here.store, "r")["tasks"]] == ["failed"]
    here.cluster.mend()
    assert (here.submit().number, here.names()) == (1, [made.ref.name])


def test_status_shows_why_a_task_waits_until_its_component_lives(stage: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    here = stage("Job")
    made = here.submit()
    watch = here.watch(made)
    said = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}
    said["message"] = "0/5 nodes are available: 3 Insufficient nvidia.com/gpu, 2 node(s) were unschedulable."
    pod = here.pod(made, "Pending", node="", conditions=[said])
    watch.step()
    (task,) = status.of(here.store, "r")["tasks"]
    assert task["state"] == "starting"
    assert "no node of 5 fits: 3 have too little free nvidia.com/gpu" in task["detail"]
    assert task["detail"] in status.render(status.of(here.store, "r"))
    here.cluster.remove("Pod", pod)
    here.start(made)
    watch.step()
    here.run_pod(made, monkeypatch)
    (task,) = status.of(here.store, "r")["tasks"]
    assert task["state"] == "ran"
