"""An API that answers late, wrongly or not at all, and what a person has to mend: nothing is lost or killed."""

import dataclasses
import os
from typing import Any

import pytest

from telecine.errors import InputError
from telecine.runners.cluster import api, jobs, look, records
from telecine.runners.cluster.watch import LONGEST_AWAY_S

KINDS = ["Job", "RayJob", "TrainJob"]
TROUBLE = {
    "429": (429, {"headers": {"Retry-After": "7"}}),
    "409": (409, {}),
    "500": (500, {}),
    "reset": (0, {}),
    "silence": (-1, {}),
    "lost answer": (0, {"after": True}),
}
LOG = "^GET .*/log$"
CALLS = {"create": "^POST .*/jobs$", "job": "^GET .*/jobs/", "pods": "^GET .*/pods$"}


@pytest.mark.parametrize("trouble", TROUBLE)
@pytest.mark.parametrize("call", CALLS)
def test_trouble_with_a_call_is_waited_out(call: str, trouble: str, stage: Any) -> None:
    here = stage("Job")
    code, more = TROUBLE[trouble]
    fault = here.cluster.fault(CALLS[call], code, "the server is on fire", **more)
    made = here.submit()
    watch = here.watch(made)
    assert watch.step() is None
    assert fault.hits > 0
    if not (call == "create" and trouble == "lost answer"):
        assert "event=away" in watch.take_lines()[-1]
        assert watch.pause_s >= (7.0 if trouble == "429" else 0.8)
    here.cluster.mend()
    assert watch.step() is None
    here.start(made)
    assert watch.step() is None
    assert here.wait().phase == "running"
    assert (here.names(), here.cluster.requests("^DELETE")) == ([made.ref.name], [])


@pytest.mark.parametrize("trouble", [*TROUBLE, "401", "403"])
def test_a_log_that_cannot_be_read_now_is_read_by_a_later_look(trouble: str, stage: Any) -> None:
    here = stage("Job")
    made = here.submit()
    here.fail_pod(made, 1, said="Traceback: no such module\n")
    code, more = TROUBLE.get(trouble) or (int(trouble), {})
    fault = here.cluster.fault(LOG, code, "the node is on fire", **more)
    watch = here.watch(made)
    assert watch.step() is None
    assert fault.hits == 1
    assert here.wait().phase == "running", "a log is no reason to doubt what the API said"
    here.cluster.mend()
    assert watch.step() is None
    assert "Traceback: no such module" in jobs.said(here.store, made)


@pytest.mark.parametrize("trouble", ["500", "silence", "403"])
def test_an_end_does_not_wait_for_a_log(trouble: str, stage: Any) -> None:
    here = stage("Job")
    made = here.submit()
    left = {"message": "ValueError: no clips"}
    for _ in range(look.MAX_PODS + 1):
        here.fail_pod(made, 1, **left)
    here.end_job(made, "Failed", "BackoffLimitExceeded")
    code, more = TROUBLE.get(trouble) or (int(trouble), {})
    fault = here.cluster.fault(LOG, code, "the node is on fire", **more)
    found = here.watch(made).step()
    assert (found.phase, found.code) == ("failed", 1)
    assert fault.hits > look.MAX_PODS, "it asked more than once"
    said = jobs.said(here.store, made)
    assert any("its log cannot be read" in line for line in said)
    assert said.count("ValueError: no clips") == look.MAX_PODS, "what the API server itself knows is kept"


def test_the_look_that_finds_the_end_asks_again_for_a_log(stage: Any) -> None:
    here = stage("Job")
    made = here.submit()
    here.fail_pod(made, 1, said="Traceback: no such module\n")
    here.end_job(made, "Failed", "BackoffLimitExceeded")
    here.cluster.fault(LOG, 500, times=2)
    assert here.watch(made).step().phase == "failed"
    assert "Traceback: no such module" in jobs.said(here.store, made)


def test_of_many_pods_the_one_that_explains_the_end_is_asked_first(stage: Any) -> None:
    here = stage("TrainJob")
    made = here.submit()
    for rank in range(look.MAX_PODS):
        here.fail_pod(made, 143, node=f"n{rank}")
    here.fail_pod(made, 1, node="n9", said="Traceback: no such module\n")
    here.end_job(made, "Failed", "FailedJobs")
    assert here.watch(made).step().node == "n9"
    assert "Traceback: no such module" in jobs.said(here.store, made)
    assert len(here.cluster.requests(LOG)) == look.MAX_PODS


@pytest.mark.parametrize("what", ["pod", "container"])
def test_a_log_that_is_gone_is_asked_for_once(what: str, stage: Any) -> None:
    """https://github.com/apache/airflow/issues/39239: 404 for the log of a pod that went meanwhile."""
    here = stage("Job")
    made = here.submit()
    pod = here.fail_pod(made, 1, said=None, message="ValueError: no clips")

    def go(line: str) -> None:
        if line.endswith("/log") and what == "pod":
            here.cluster.emulator.objects["v1/pods", made.ref.namespace, pod].delete()

    here.cluster.emulator.before.append(go)
    watch = here.watch(made)
    assert watch.step() is None
    here.end_job(made, "Failed", "BackoffLimitExceeded")
    found = watch.step()
    assert found.phase == "failed"
    assert len(here.cluster.requests(LOG)) == 1
    refusal = f'pods "{pod}" not found' if what == "pod" else f'in pod "{pod}" is not available'
    gone, left = jobs.said(here.store, made)[-2:]
    assert "its log is not kept any more" in gone and refusal in gone
    assert left == "ValueError: no clips"


@pytest.mark.parametrize("kind", KINDS)
def test_trouble_that_lasts_ends_nothing_and_a_commit_is_found_without_the_api(
    kind: str, stage: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = stage(kind)
    made = here.submit(max_pending_s=0.0, patience_s=0.0)
    here.start(made)
    here.cluster.fault(".*", 503, "the server is on fire")
    watch = here.watch(made)
    assert [watch.step() for _ in range(10)] == [None] * 10
    lines = watch.take_lines()
    assert len(lines) == 1
    assert "cannot answer now (503: the server is on fire)" in lines[0]
    here.cluster.mend()
    assert here.run_pod(made, monkeypatch) == 0
    here.cluster.fault(".*", 503)
    assert watch.step() == jobs.DONE


def test_an_unreachable_api_server_is_waited_for(stage: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    here = stage("Job")
    config, nowhere = os.environ["KUBECONFIG"], os.environ["KUBECONFIG"] + ".nowhere"
    with open(config) as source, open(nowhere, "w") as target:
        target.write(source.read().replace(here.cluster.url, "http://127.0.0.1:9"))
    monkeypatch.setenv("KUBECONFIG", nowhere)
    made = here.submit()
    assert here.found.phase == "away"
    assert "http://127.0.0.1:9 cannot be reached" in here.found.reason
    watch = here.watch(made)
    assert watch.step() is None
    assert here.names() == []
    monkeypatch.setenv("KUBECONFIG", config)
    assert watch.step() is None
    assert here.names() == [made.ref.name]


def test_a_refused_quota_waits_and_the_job_is_made_once_there_is_room(stage: Any) -> None:
    """The words are those of https://github.com/apache/airflow/issues/63944 and 36348."""
    here = stage("Job")
    said = 'jobs.batch "x" is forbidden: exceeded quota: video-jobs, requested: count/jobs.batch=1, '
    here.cluster.fault("^POST .*/jobs$", 403, f"{said}used: count/jobs.batch=16, limited: count/jobs.batch=16")
    made = here.submit()
    assert here.found.phase == "refused"
    assert "count/jobs.batch=16 of count/jobs.batch=16 used" in here.found.reason
    watch = here.watch(made)
    assert watch.step() is None
    assert here.wait().phase == "refused"
    assert here.names() == []
    here.cluster.mend()
    assert watch.step() is None
    assert here.names() == [made.ref.name]
    assert here.wait().phase == "starting"


def test_a_quota_that_never_has_room_ends_after_max_pending_s(stage: Any) -> None:
    here = stage("Job")
    here.cluster.fault("^POST .*/jobs$", 403, "forbidden: exceeded quota: q, requested: a=1, used: a=1, limited: a=1")
    made = here.submit(max_pending_s=-1.0)
    found = here.watch(made).step()
    assert found.hopeless
    assert "max_pending_s" in found.reason
    here.cluster.mend()
    assert here.submit().number == 2


@pytest.mark.parametrize("phase", ["image", "secret"])
def test_what_waiting_does_not_mend_is_waited_for_a_while_and_then_said(phase: str, stage: Any) -> None:
    here = stage("Job")
    reasons = {
        "image": ("ErrImagePull", "manifest unknown", "no such image"),
        "secret": (
            "CreateContainerConfigError",
            'secret "telecine-credentials" not found',
            "does not exist: create it",
        ),
    }
    reason, message, told = reasons[phase]
    waiting = {"name": "component", "image": "i:1", "state": {"waiting": {"reason": reason, "message": message}}}
    made = here.submit()
    here.pod(made, "Pending", containerStatuses=[waiting])
    patient = here.watch(made)
    assert patient.step() is None
    assert patient.step() is None
    assert told in here.wait().reason
    found = here.watch(dataclasses.replace(made, patience_s=-1.0)).step()
    assert (found.hopeless, here.names()) == (True, [])
    assert told in found.reason


def test_an_expired_token_is_said_at_once_and_loses_nothing(stage: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    here = stage("Job")
    made = here.submit()
    here.start(made)
    watch = here.watch(made)
    here.cluster.fault(".*", 401, "Unauthorized")
    with pytest.raises(InputError, match="does not know us .401.*kubeconfig.*log in again"):
        here.submit("r2")
    assert watch.step() is None
    assert "log in again" in watch.take_lines()[-1]
    impatient = here.watch(dataclasses.replace(made, patience_s=-1.0))
    assert impatient.step().phase == "locked_out"
    here.cluster.mend()
    assert here.submit().number == 1
    here.run_pod(made, monkeypatch)
    assert watch.step() == jobs.DONE
    assert records.ended(here.store, made.prefix, 1).code == 0


def test_a_missing_right_is_named_with_who_gives_it(stage: Any) -> None:
    here = stage("Job")
    user = 'User "system:serviceaccount:video:airflow"'
    said = (
        f'jobs.batch is forbidden: {user} cannot create resource "jobs" in API group "batch" in the namespace "video"'
    )
    here.cluster.fault("^POST .*/jobs$", 403, said)
    with pytest.raises(InputError, match="may not create jobs.batch in namespace video: the Role"):
        here.submit()


@pytest.mark.parametrize(("kind", "operator"), [("RayJob", "KubeRay"), ("TrainJob", "Kubeflow Trainer")])
def test_an_operator_that_is_not_installed_is_named(kind: str, operator: str, stage: Any) -> None:
    here = stage(kind)
    here.cluster.uninstall(kind)
    with pytest.raises(InputError, match=f"not installed in the cluster at .*: install {operator} there"):
        here.submit()


def test_no_message_holds_the_token(stage: Any) -> None:
    here = stage("Job")
    token = "kube-token-of-the-tests"  # noqa: S105
    messages = []
    for code in (400, 401, 403, 409, 422, 500):
        here.cluster.mend()
        here.cluster.fault(".*", code, f"Authorization: Bearer {token}")
        try:
            jobs.submit(here.api(), here.launch(f"r{code}"), here.profile, here.store)
            messages.append(here.watch(here.submit()).step())
        except InputError as error:
            messages.append(str(error))
    assert len(messages) == 6
    assert token not in repr(messages)


@pytest.mark.parametrize(
    ("variables", "told"),
    [
        ({"KUBECONFIG": "/nowhere/config"}, "kubeconfig /nowhere/config, its current context"),
        ({"TELECINE_KUBE_CONTEXT": "other"}, "context other"),
        ({"KUBECONFIG": "", "KUBERNETES_SERVICE_HOST": "10.0.0.1"}, "the pod's service account"),
    ],
)
def test_a_cluster_that_cannot_be_named_is_an_error_that_says_what_to_set(
    variables: dict[str, str], told: str, cluster: Any
) -> None:
    with pytest.raises(InputError, match=told) as raised:
        api.connect({**os.environ, **variables})
    assert "KUBECONFIG must name" in str(raised.value)


def test_a_store_that_is_away_is_waited_for_too(stage: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    here = stage("Job")
    made = here.submit()
    monkeypatch.setenv("TELECINE_STORE_RETRY_S", "0")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    watch = here.watch(made)
    assert watch.step() is None
    assert "not reachable" in watch.take_lines()[-1]


def test_a_server_that_asks_for_a_day_of_silence_is_asked_again_within_minutes(stage: Any) -> None:
    here = stage("Job")
    made = here.submit()
    here.cluster.fault("^GET", 429, headers={"Retry-After": "86400"})
    watch = here.watch(made)
    assert watch.step() is None
    assert 0 < watch.pause_s <= LONGEST_AWAY_S * 1.2, "the jitter included"
    here.cluster.mend()


def test_status_says_that_the_cluster_is_away(stage: Any) -> None:
    here = stage("Job")
    made = here.submit()
    assert here.watch(made).step() is None
    here.cluster.fault("^GET", 503)
    assert here.watch(made).step() is None
    assert here.wait().phase == "away"
    here.cluster.mend()
    assert here.watch(made).step() is None
    assert here.wait().phase == "starting"
