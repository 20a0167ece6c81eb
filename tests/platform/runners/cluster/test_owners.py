"""Who may make, adopt and delete a job: workers that die, two at once, a new triggerer, a person who stops."""

import asyncio
import dataclasses
import json
import threading
from collections.abc import Callable
from typing import Any

import pytest
from airflow.sdk.execution_time.comms import TaskStatesResult
from airflow.sdk.execution_time.supervisor import set_supervisor_comms

from telecine import deferred
from telecine.errors import InputError
from telecine.runners.cluster import jobs, records
from telecine.trigger import ClusterTrigger
from telecine.work import garbage, runs, waits

KINDS = ["Job", "RayJob", "TrainJob"]


def test_a_worker_that_died_before_it_made_the_job_is_followed_by_one_that_makes_it(stage: Any) -> None:
    here = stage("Job")
    here.cluster.fault("^POST", 503)
    first = here.submit()
    assert here.names() == []
    here.cluster.mend()
    second = here.submit()
    assert (first.number, second.number, here.names()) == (1, 1, [first.ref.name])


@pytest.mark.parametrize("kind", KINDS)
def test_a_worker_that_died_after_it_made_the_job_is_followed_by_one_that_finds_it(kind: str, stage: Any) -> None:
    here = stage(kind)
    launch = here.launch()
    made = jobs._claimed(launch, here.profile, here.store)
    here.api().create(made.manifest, made.ref)
    again = here.submit()
    assert again.ref == made.ref
    assert here.names() == [made.ref.name]
    assert records.is_made(here.store, made.prefix, 1)


@pytest.mark.parametrize("kind", KINDS)
def test_two_workers_at_once_make_one_job(kind: str, stage: Any) -> None:
    here = stage(kind)
    start, found, launch = threading.Barrier(6, timeout=20), [], here.launch()

    def work() -> None:
        start.wait()
        found.append(jobs.submit(here.api(), launch, here.profile, here.store)[0])

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [made.number for made in found] == [1] * 6
    assert here.names() == [found[0].ref.name]


def test_a_second_run_of_the_same_work_waits_for_the_first_ones_job(
    stage: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = stage("Job")
    first, second = here.submit("r"), here.submit("r2")
    assert first.ref == second.ref
    assert here.run_pod(first, monkeypatch) == 0
    for made in (first, second):
        found = here.watch(made).step()
        deferred.settle({"submission": made.plain(), "state": vars(found)})
    pointers = [runs.pointers(here.store, run)[0] for run in ("r", "r2")]
    assert [pointer.decision for pointer in pointers] == ["ran", "reused"]
    assert pointers[0].outputs == pointers[1].outputs
    assert any("event=start" in line for line in jobs.said(here.store, second))


def test_a_waiter_that_died_is_followed_by_one_that_goes_on(stage: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    here = stage("Job")
    made = here.submit()
    path, values = ClusterTrigger(made.plain()).serialize()
    assert path == "telecine.trigger.ClusterTrigger"
    restarted = ClusterTrigger(**values)
    assert restarted.submission == made
    here.run_pod(made, monkeypatch)
    fired = asyncio.run(first_event(restarted))
    assert fired["state"]["phase"] == "succeeded"
    assert deferred.settle(fired)["text_uri"].endswith("text.txt")
    assert here.cluster.requests("^DELETE") == []


async def first_event(trigger: ClusterTrigger) -> dict[str, Any]:
    return (await anext(aiter(trigger.run()))).payload


def test_the_time_that_a_job_has_waited_survives_its_watcher(stage: Any) -> None:
    here = stage("Job")
    made = here.submit(max_pending_s=50.0)
    assert here.watch(made).step() is None
    waits.write(here.store, "r", dataclasses.replace(here.wait(), pending_s=100.0))
    found = here.watch(made).step()
    assert "it waited 100 s to start" in found.reason


def test_a_job_that_waits_too_long_is_given_up(stage: Any) -> None:
    here = stage("Job")
    made = here.submit(max_pending_s=-1.0)
    found = here.watch(made).step()
    assert found.hopeless
    assert "more than max_pending_s" in found.reason
    assert here.names() == []


def test_a_job_that_starts_in_the_moment_in_which_it_is_given_up_goes_on(
    stage: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = stage("Job")
    made = here.submit(max_pending_s=-1.0)
    started = []

    def start(line: str) -> None:
        if line.startswith("DELETE") and not started:
            started.append(line)
            raw = here.cluster.emulator.objects["batch/v1/jobs", made.ref.namespace, made.ref.name]
            raw.patch({"status": {"active": 1, "ready": 1}, "metadata": {"resourceVersion": "9999"}})

    here.cluster.emulator.before.append(start)
    watch = here.watch(made)
    assert watch.step() is None
    assert len(started) == 1
    here.start(made)
    assert watch.step() is None
    assert (here.wait().phase, here.names()) == ("running", [made.ref.name])
    here.run_pod(made, monkeypatch)
    assert watch.step() == jobs.DONE


def test_time_that_a_job_runs_is_no_time_that_it_waits(stage: Any) -> None:
    here = stage("Job")
    made = here.submit(max_pending_s=0.0)
    here.start(made)
    watch = here.watch(made)
    assert [watch.step() for _ in range(4)] == [None] * 4
    assert here.wait().pending_s == 0.0


@dataclasses.dataclass
class Comms:
    """What a triggerer asks its supervisor: the state of the trigger's task."""

    state: str | None

    def send(self, message: Any) -> TaskStatesResult:
        """Answer ``GetTaskStates``."""
        return TaskStatesResult(task_states={message.run_ids[0]: {message.task_ids[0]: self.state}})


@dataclasses.dataclass
class Task:
    """Whose trigger it is."""

    dag_id: str = "d"
    run_id: str = "m"
    task_id: str = "toy.write"
    map_index: int = -1


@pytest.fixture
def kill() -> Callable[[Any, str | None], None]:
    """``kill(submission, state)``: what Airflow does with a trigger whose task a person acted on."""

    def act(made: Any, state: str | None) -> None:
        trigger = ClusterTrigger(made.plain())
        trigger._task_instance = Task()
        with set_supervisor_comms(Comms(state)):
            asyncio.run(trigger.on_kill())

    return act


@pytest.mark.parametrize("state", ["failed", "success", None])
def test_a_person_who_stops_a_task_stops_its_job(state: str | None, stage: Any, kill: Any) -> None:
    here = stage("Job")
    made = here.submit()
    here.watch(made).step()
    here.cluster.fault("^DELETE", 500, times=1)
    kill(made, state)
    assert (here.names(), here.wait()) == ([], None)
    assert records.ended(here.store, made.prefix, 1).reason == "its task was stopped by a person"
    assert here.submit().number == 2


def test_a_triggerer_that_lost_its_task_to_another_one_stops_nothing(stage: Any, kill: Any) -> None:
    here = stage("Job")
    made = here.submit()
    kill(made, "deferred")
    assert (here.names(), here.cluster.requests("^DELETE")) == ([made.ref.name], [])


def test_a_run_that_stops_does_not_stop_the_job_of_another_run(stage: Any, kill: Any) -> None:
    here = stage("Job")
    here.submit("r")
    second = here.submit("r2")
    kill(second, "failed")
    assert here.names() == [second.ref.name]


def test_a_trigger_that_is_cancelled_stops_nothing(stage: Any) -> None:
    here = stage("Job")
    made = here.submit()
    here.start(made)

    async def restart() -> None:
        task = asyncio.ensure_future(first_event(ClusterTrigger(made.plain())))
        await asyncio.sleep(0.5)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(restart())
    assert (here.names(), here.cluster.requests("^DELETE")) == ([made.ref.name], [])


def test_a_job_of_the_same_name_that_writes_to_another_store_is_not_ours(stage: Any) -> None:
    here = stage("Job")
    made = jobs._claimed(here.launch(), here.profile, here.store)
    text = json.dumps(made.manifest).replace(made.store_uri, "s3://somebody-else/store")
    here.api().create(json.loads(text), made.ref)
    with pytest.raises(InputError, match="is another deployment's"):
        here.submit()
    assert here.names() == [made.ref.name]


def test_a_number_that_ended_before_its_job_was_made_is_never_made(stage: Any) -> None:
    here = stage("Job")
    said = "forbidden: exceeded quota: q, requested: a=1, used: a=1, limited: a=1"
    here.cluster.fault("^POST .*/jobs$", 403, said)
    first = here.submit("ra")
    assert jobs.stop(here.api(), here.store, first, "stopped") is True
    second = here.submit("rb")
    here.cluster.mend()
    assert here.watch(first).step().phase == "gone"
    assert here.watch(second).step() is None
    assert (second.number, here.names()) == (2, [second.ref.name])


def test_a_job_that_is_stopped_while_it_is_made_does_not_stay(stage: Any) -> None:
    here = stage("Job")
    here.cluster.fault("^POST .*/jobs$", 503)
    made = here.submit()
    here.cluster.mend()
    api = here.api()

    def stop(line: str) -> None:
        if line.startswith("POST") and line.rstrip().endswith("/jobs"):
            here.cluster.emulator.before.remove(stop)
            records.mark_ended(here.store, made.prefix, made.number, records.Ended(reason="a person stopped it"))

    here.cluster.emulator.before.append(stop)
    assert jobs.make(api, here.store, made).phase == "gone"
    assert here.names() == []


def test_a_run_that_has_waited_too_long_leaves_the_job_of_another_run(stage: Any) -> None:
    here = stage("Job")
    first = here.submit("ra")
    second = here.submit("rb", max_pending_s=-1.0)
    assert first.ref == second.ref
    found = here.watch(second).step()
    assert found.hopeless
    assert here.names() == [first.ref.name]
    assert records.ended(here.store, first.prefix, first.number) is None
    assert here.watch(first).step() is None


def test_work_that_waits_is_no_garbage_however_long(stage: Any) -> None:
    here = stage("Job")
    made = here.submit()
    assert here.watch(made).step() is None
    report = garbage.collect(here.store, keep_days=0.0, dry_run=False)
    assert [row for row in report["removed"] if row["path"] == made.prefix] == []
    assert records.read(here.store, made.prefix, made.number) is not None
    waits.clear(here.store, made.run, made.task)
    report = garbage.collect(here.store, keep_days=0.0, dry_run=True)
    assert [row["path"] for row in report["removed"]] == [made.prefix], "what makes the difference is the wait"
