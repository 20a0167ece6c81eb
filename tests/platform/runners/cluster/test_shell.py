"""``telecine run --runner cluster`` from a shell: submit, say what it waits for, come back with the outputs."""

import dataclasses
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from telecine import elsewhere
from telecine.errors import HardwareFault, InputError
from telecine.work import attempts, runs, status


@pytest.fixture
def shell(stage: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A stage whose profile is named by the environment, as a person's shell has it."""
    made = stage("Job")
    file = tmp_path / "cluster.toml"
    file.write_text(f'namespace = "{made.profile.namespace}"\n')
    monkeypatch.setenv("TELECINE_CLUSTER", str(file))
    return made


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    """Where a shell's calls run."""
    with ThreadPoolExecutor(2) as pool:
        yield pool


def _call(shell: Any, threads: ThreadPoolExecutor) -> Future[Any]:
    """A shell's call, whose job stands when this returns."""
    launch = dataclasses.replace(shell.launch(), settings=dataclasses.replace(shell.here, runner="cluster"))
    called = threads.submit(elsewhere.run, launch)
    deadline = time.monotonic() + 20
    while not shell.names() and not called.done() and time.monotonic() < deadline:
        time.sleep(0.05)
    return called


def test_a_shell_gets_the_outputs_of_the_job_and_the_same_call_its_commit(
    shell: Any, threads: ThreadPoolExecutor, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    called = _call(shell, threads)
    made = shell.submit()
    shell.start(made)
    assert shell.run_pod(made, monkeypatch) == 0
    shell.end_job(made, "Complete")
    result = called.result(30)
    assert (result.decision, result.commit["key"]) == ("ran", made.key)
    assert f"event=submitted object={made.object!r}" in capsys.readouterr().err
    assert _call(shell, threads).result(30).decision == "reused"
    assert len(shell.names()) == 1


@pytest.mark.parametrize(("code", "kind"), [(78, InputError), (69, HardwareFault)])
def test_a_shell_ends_as_the_component_did(
    code: int, kind: type[Exception], shell: Any, threads: ThreadPoolExecutor
) -> None:
    called = _call(shell, threads)
    made = shell.submit()
    shell.fail_pod(made, code, said="the last words")
    shell.end_job(made, "Failed", "BackoffLimitExceeded")
    with pytest.raises(kind, match=made.object):
        called.result(30)


def test_a_shell_whose_job_is_refused_leaves_no_task_that_seems_to_start(
    shell: Any, threads: ThreadPoolExecutor
) -> None:
    shell.cluster.fault("^POST .*/jobs$", 403, 'jobs.batch is forbidden: User "me" cannot create resource "jobs"')
    with pytest.raises(InputError, match="may not create jobs"):
        _call(shell, threads).result(30)
    (task,) = status.of(shell.store, "r")["tasks"]
    assert (task["state"], task["exit_code"]) == ("failed", 78)
    assert "may not create jobs" in task["detail"]
    shell.cluster.mend()
    made = shell.submit()
    (task,) = status.of(shell.store, "r")["tasks"]
    assert (task["state"], made.number) == ("starting", 1)


def test_a_shell_that_is_refused_a_look_leaves_the_attempt_that_lives(shell: Any) -> None:
    made = shell.submit()
    attempt = attempts.Attempt(shell.store, made.prefix, run="r", task="toy.write", superseded=lambda: False)
    attempt.beat()
    (pointer,) = runs.pointers(shell.store, "r")
    runs.point(shell.store, "r", dataclasses.replace(pointer, attempt=attempt.id))
    shell.cluster.fault(".*", 401)
    with pytest.raises(InputError, match="does not know us"):
        shell.submit()
    assert [task["state"] for task in status.of(shell.store, "r")["tasks"]] == ["running"]
