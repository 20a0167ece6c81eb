"""Components in containers: what the engine is asked for, and what it does with signals, limits, mounts and ends.

The image ``toys`` has a ``telecine`` that runs the Python text among its inputs, so that each case takes a second.
"""

import contextlib
import dataclasses
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib import util
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowException, AirflowFailException

from telecine import doctor, engines, images, settings
from telecine.engines import Engine
from telecine.errors import InputError, RetryLater
from telecine.operators import ComponentOperator
from telecine.runners import container
from telecine.runners.container import Contained
from telecine.storage import Store
from telecine.work import runs

_SPEC = util.spec_from_file_location("contained_toy", Path(__file__).with_name("contained.py"))
assert _SPEC is not None and _SPEC.loader is not None
toy = util.module_from_spec(_SPEC)
sys.modules["contained_toy"] = toy  # test folders are no packages
_SPEC.loader.exec_module(toy)
TOY, SECRET, STUBBORN, SAVES, LEASHED = toy.TOY, toy.SECRET, toy.STUBBORN, toy.SAVES, toy.LEASHED
launch_of, engine_of, here = toy.launch_of, toy.engine_of, toy.here
IMAGES = Path(__file__).parents[3] / "infra" / "drills" / "container_images.py"


# What the engine is asked for


def test_the_argv_in_the_image_is_the_one_of_every_runner(here: settings.Settings) -> None:
    launch = launch_of(here)
    assert container.command(launch, engine_of())[-len(launch.argv()) - 1 :] == [images.name("curate"), *launch.argv()]


def test_no_value_of_a_variable_stands_in_the_command(here: settings.Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", SECRET)
    monkeypatch.setenv("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN", SECRET)
    command = container.command(launch_of(here, code="a code of this test"), engine_of())
    passed = [word.removeprefix("--env=") for word in command if word.startswith("--env=")]
    assert {"AWS_SECRET_ACCESS_KEY", "MLFLOW_TRACKING_PASSWORD", "TELECINE_INPUTS", "TELECINE_STORE"} <= set(passed)
    assert "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN" not in passed
    assert [name for name in passed if "=" in name] == ["HOME=/tmp"]
    assert SECRET not in str(command)
    assert "a code of this test" not in str(command)


def test_a_container_may_do_nothing_that_its_component_does_not_need(here: settings.Settings) -> None:
    command = container.command(launch_of(here), engine_of())
    assert {"--read-only", "--cap-drop=all", "--security-opt=no-new-privileges", "--pull=never"} <= set(command)
    assert "--privileged" not in command
    assert not any(word.startswith(("--device", "--gpus", "--pid", "--ipc")) for word in command)


@pytest.mark.parametrize(
    ("features", "options"),
    [
        ({}, ["--user={uid}:{gid}"]),
        ({"is_rootless": True}, ["--userns=keep-id", "--user={uid}:{gid}"]),
        ({"is_podman": False}, ["--user={uid}:{gid}"]),
        ({"is_podman": False, "is_rootless": True}, ["--user=0:0"]),
    ],
)
def test_what_a_component_writes_belongs_to_the_caller(
    features: dict[str, Any], options: list[str], here: settings.Settings
) -> None:
    expected = [option.format(uid=os.getuid(), gid=os.getgid()) for option in options]
    command = container.command(launch_of(here), engine_of(**features))
    assert [word for word in command if word.startswith("--user")] == expected


def test_limits_and_gpus_are_those_of_the_component(here: settings.Settings) -> None:
    launch = launch_of(here, cpus=2, memory_gib=1.5, gpus=1)
    podman = container.command(launch, engine_of())
    assert {"--cpus=2", "--memory=1536m", "--shm-size=768m", "--device=nvidia.com/gpu=all"} <= set(podman)
    assert "--gpus=all" in container.command(launch, engine_of(is_podman=False))


def test_a_limit_that_the_machine_cannot_hold_is_left_out(here: settings.Settings) -> None:
    command = container.command(launch_of(here, memory_gib=1.5), engine_of(limits=frozenset({"cpus"})))
    assert "--cpus=1" in command
    assert not any(word.startswith("--memory") for word in command)


def test_only_home_store_and_inputs_are_mounted_and_inputs_cannot_be_written_to(
    here: settings.Settings, tmp_path: Path
) -> None:
    footage, store = tmp_path / "footage", tmp_path / "elsewhere"
    apart = dataclasses.replace(here, store_uri=f"file://{store}")
    mounts = container.mounts(launch_of(apart, videos_uri=f"file://{footage}"))
    assert [mount for mount in mounts if "readonly" in mount] == [f"type=bind,src={footage},dst={footage},readonly"]
    assert [mount for mount in mounts if str(store) in mount] == [f"type=bind,src={store},dst={store}"]
    assert len(mounts) == 3
    within = container.mounts(launch_of(here, videos_uri=str(here.home / "store" / "work")))
    assert within == [f'type=bind,"src={here.home}","dst={here.home}"']


def test_what_links_lead_to_is_mounted_where_the_container_looks_for_it(
    here: settings.Settings, tmp_path: Path
) -> None:
    disk, shelf, films, more = (tmp_path / name for name in ("disk", "shelf", "films", "more"))
    for folder in (disk, shelf, films, more):
        folder.mkdir()
    (here.home / "store").symlink_to(disk)
    (films / "a.mp4").touch()
    (films / "b.mp4").touch()
    (shelf / "a.mp4").symlink_to(films / "a.mp4")
    (shelf / "b.mp4").symlink_to("../films/b.mp4")
    (shelf / "more").symlink_to("../more")
    (shelf / "nowhere").symlink_to(tmp_path / "gone")
    (shelf / "self.mp4").symlink_to("self.mp4")
    footage = tmp_path / "footage"
    footage.symlink_to(shelf)
    linked = dataclasses.replace(here, store_uri=f"file://{here.home}/store")
    home, *others = container.mounts(launch_of(linked, videos_uri=str(footage)))
    assert "readonly" not in home
    expected = [f"src={disk},dst={disk}", f"src={shelf},dst={footage},readonly"]
    expected += [f"src={more},dst={more},readonly", f"src={films},dst={films},readonly"]
    assert others == [f"type=bind,{mount}" for mount in expected]


def test_links_to_too_many_folders_are_refused(here: settings.Settings, tmp_path: Path) -> None:
    footage = tmp_path / "footage"
    footage.mkdir()
    for index in range(65):
        (tmp_path / f"films-{index}").mkdir()
        (tmp_path / f"films-{index}" / "a.mp4").touch()
        (footage / f"{index}.mp4").symlink_to(tmp_path / f"films-{index}" / "a.mp4")
    with pytest.raises(InputError, match=r"links inside .*footage lead to more than 64 folders .*/\d+.mp4 among them"):
        container.mounts(launch_of(here, videos_uri=str(footage)))


def test_a_link_never_hides_what_the_image_has_itself(here: settings.Settings, tmp_path: Path) -> None:
    footage = tmp_path / "footage"
    footage.mkdir()
    with tempfile.NamedTemporaryFile(dir="/tmp") as film:
        (footage / "a.mp4").symlink_to(film.name)
        mounts = container.mounts(launch_of(here, videos_uri=str(footage)))
        assert mounts[-1] == f"type=bind,src={film.name},dst={film.name},readonly"
    (footage / "usr").symlink_to("/usr")
    with pytest.raises(InputError, match="footage/usr leads to /usr, which the image has itself"):
        container.mounts(launch_of(here, videos_uri=str(footage)))


def test_a_remote_store_and_its_artifacts_need_no_mount(here: settings.Settings) -> None:
    remote = dataclasses.replace(here, store_uri="s3://bucket/store")
    assert len(container.mounts(launch_of(remote, videos_uri="s3://bucket/store/work/x"))) == 1


def test_a_name_is_that_of_the_task_at_its_work_whatever_the_try(here: settings.Settings) -> None:
    launch = launch_of(here)
    name = container.name_of(launch)
    assert len(name) <= 63
    assert set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")
    assert container.name_of(dataclasses.replace(launch, attempt=2)) == name
    others = [
        dataclasses.replace(launch, **change) for change in ({"task": "toy.run-b"}, {"run": "b"}, {"key": "1" * 32})
    ]
    assert len({name, *map(container.name_of, others)}) == 4


# Real containers


@pytest.fixture(scope="module", params=["podman", "docker"])
def toys(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """An engine that has the image of the toys; the environment of this process leads to both."""
    before = dict(os.environ)
    os.environ |= {"TELECINE_CONTAINER_ENGINE": request.param}
    try:
        engine, base = _engine(request.param), images.name("curate")
        folder = tmp_path_factory.mktemp("toys")
        (folder / "telecine").write_text(TOY)
        (folder / "telecine").chmod(0o755)
        (folder / "Dockerfile").write_text(f"FROM {base}\nCOPY telecine /opt/telecine/bin/telecine\n")
        os.environ |= {"TELECINE_IMAGE_PREFIX": "localhost/toys/"}
        built = engine.call("build", "--tag", images.name("curate"), str(folder))
        assert built.returncode == 0, built.stderr
        yield engine
    finally:
        os.environ.clear()
        os.environ.update(before)


def _engine(name: str) -> Engine:
    """The engine, with a curate image of this checkout: docker's must be there to begin with, podman gets it now."""
    try:
        engine = engines.find()
        if name == "docker":
            engine.require("curate")
    except (InputError, RetryLater) as error:
        if os.environ.get("CI") and name == "podman":
            pytest.fail(f"CI needs podman: {error}")
        pytest.skip(str(error))
    ready = subprocess.run([sys.executable, str(IMAGES), "curate"], capture_output=True, text=True, timeout=1800)
    assert ready.returncode == 0, ready.stderr
    if ready.stdout.strip():
        os.environ["CONTAINERS_CONF"] = ready.stdout.strip()
    return engine


@pytest.fixture
def start(toys: Engine, here: settings.Settings) -> Iterator[Callable[..., Contained]]:
    """Start a toy; whatever a test leaves is removed."""
    started = []

    def start_one(code: str, videos_uri: str = "", **resources: Any) -> Contained:
        started.append(container.start(launch_of(here, code, videos_uri, **resources)))
        return started[-1]

    yield start_one
    for child in started:
        child.kill()
    assert _left(toys, here) == []


def _left(toys: Engine, here: settings.Settings) -> list[str]:
    listed = toys.call(
        "ps", "--all", "--format", "{{.Names}}", "--filter", f"name={container.name_of(launch_of(here))}"
    )
    assert listed.returncode == 0, listed.stderr
    return listed.stdout.split()


def _lines(child: Contained) -> list[str]:
    assert child.stdout is not None
    return child.stdout.read().splitlines()


def _await_line(child: Contained, text: str) -> None:
    assert child.stdout is not None
    assert child.stdout.readline().strip() == text


@pytest.mark.parametrize("code", [0, 75, 78, 69, 3])
def test_exit_codes_and_lines_come_through(code: int, start: Callable[..., Contained]) -> None:
    child = start(f"import sys; print('out'); print('err', file=sys.stderr); sys.exit({code})")
    assert sorted(_lines(child)) == ["err", "out"]
    assert child.wait(60) == code
    assert child.cause() == f"exit {code}"


def test_the_container_gets_the_argv_and_the_variables(
    start: Callable[..., Contained], here: settings.Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    code = "import os, sys; print(sys.argv[1:]); [print(name, os.environ.get(name)) for name in %r]"
    names = ["AWS_SECRET_ACCESS_KEY", "TELECINE_STORE", "TELECINE_RUNNER", "HOME"]
    lines = _lines(start(code % names))
    assert lines[0] == str(launch_of(here).argv()[1:])
    values = [SECRET, here.store_uri, "process", str(Path("/", "tmp"))]
    assert lines[1:] == [f"{name} {value}" for name, value in zip(names, values, strict=True)]


def test_home_and_tmp_can_be_written_to_and_nothing_else(
    start: Callable[..., Contained], here: settings.Settings, tmp_path: Path
) -> None:
    footage = tmp_path / "footage"
    footage.mkdir()
    (footage / "film.mp4").write_text("a film")
    (tmp_path / "private").write_text("nobody's business")
    code = f"""
from pathlib import Path
print(Path({str(footage)!r}, "film.mp4").read_text())
for path in ({str(here.home)!r}, "/tmp", {str(footage)!r}, "/opt/telecine", "/home/telecine"):
    try:
        Path(path, "made").write_text("x"); print("wrote")
    except OSError as error:
        print("refused")
print(Path({str(tmp_path / "private")!r}).exists())
"""
    assert _lines(start(code, videos_uri=str(footage))) == [
        "a film",
        *["wrote", "wrote", "refused", "refused", "refused"],
        "False",
    ]
    assert (here.home / "made").stat().st_uid == os.getuid()


def test_links_in_an_input_lead_where_they_do_here(start: Callable[..., Contained], tmp_path: Path) -> None:
    films, footage = tmp_path / "films", tmp_path / "footage"
    (films / "deep").mkdir(parents=True)
    footage.mkdir()
    (films / "a.mp4").write_text("a film")
    (films / "b.mp4").symlink_to("deep/b.mp4")
    (films / "deep" / "b.mp4").write_text("another")
    (footage / "a.mp4").symlink_to(films / "a.mp4")
    (footage / "b.mp4").symlink_to("../films/b.mp4")
    code = f"from pathlib import Path; [print(path.read_text()) for path in sorted(Path({str(footage)!r}).iterdir())]"
    assert _lines(start(code, videos_uri=str(footage))) == ["a film", "another"]


def test_a_store_behind_a_link_can_be_written_to(
    toys: Engine, here: settings.Settings, tmp_path: Path, start: Callable[..., Contained]
) -> None:
    (tmp_path / "disk").mkdir()
    (here.home / "store").symlink_to(tmp_path / "disk")
    child = start(f"from pathlib import Path; Path({str(here.home)!r}, 'store', 'made').write_text('x')")
    assert _lines(child) == []
    assert (tmp_path / "disk" / "made").read_text() == "x"


def test_a_stop_reaches_the_component_which_saves(start: Callable[..., Contained]) -> None:
    child = start(SAVES)
    _await_line(child, "up")
    child.terminate()
    assert _lines(child) == ["saved"]
    assert child.wait(30) == 75


def test_a_component_that_does_not_stop_is_killed_and_gone(
    start: Callable[..., Contained], toys: Engine, here: settings.Settings
) -> None:
    child = start(STUBBORN)
    _await_line(child, "up")
    child.terminate()
    with pytest.raises(subprocess.TimeoutExpired):
        child.wait(1)
    child.kill()
    assert _left(toys, here) == []
    assert child.cause() == "killed by signal 9"


def test_a_component_that_needs_more_memory_than_its_limit_is_said_to(
    start: Callable[..., Contained], toys: Engine
) -> None:
    if "memory" not in toys.limits:
        pytest.skip("cgroups of this machine do not let the engine limit memory")
    child = start("import time; time.sleep(0.5); held = b'x' * 400_000_000", memory_gib=0.0625)
    assert child.wait(60) == 137
    assert child.cause() == "out of memory: limit 0.0625 GiB (its resources.memory_gib)"


@pytest.fixture
def other(toys: Engine, here: settings.Settings) -> Iterator[int]:
    """Number of another process, which runs the toy and lives."""
    pid = os.fork()
    if pid == 0:
        try:
            _await_line(container.start(launch_of(here, LEASHED)), "up")
            time.sleep(600)
        finally:
            os._exit(1)
    try:
        deadline = time.monotonic() + 60
        while not _is_running(toys, here):
            assert time.monotonic() < deadline, "it did not start"
            time.sleep(0.1)
        yield pid
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        container.remove(toys, container.name_of(launch_of(here)))


def test_a_container_ends_with_the_process_that_started_it(other: int, toys: Engine, here: settings.Settings) -> None:
    time.sleep(1)
    assert _is_running(toys, here), "it does not even live while its task does"
    os.kill(other, signal.SIGKILL)
    os.waitpid(other, 0)
    deadline = time.monotonic() + 60
    while _is_running(toys, here):
        assert time.monotonic() < deadline, "it lives on unnoticed"
        time.sleep(0.1)


def test_a_second_caller_leaves_the_container_of_the_first_alone(
    other: int, toys: Engine, here: settings.Settings, start: Callable[..., Contained]
) -> None:
    with pytest.raises(RetryLater, match=f"process {other} of this machine runs this very work in the container"):
        container.start(launch_of(here))
    late = Contained(toys, container.command(launch_of(here), toys), {"TELECINE_INPUTS": "{}"}, 0.0)
    assert late.wait(60) == 125  # it looked a moment before the first had begun
    assert _is_running(toys, here)
    os.kill(other, signal.SIGKILL)
    os.waitpid(other, 0)
    assert _lines(start("print('next')")) == ["next"]


def _is_running(toys: Engine, here: settings.Settings) -> bool:
    name = container.name_of(launch_of(here))
    return toys.call("container", "inspect", "--format", "{{.State.Running}}", name).stdout.strip() == "true"


def test_a_retry_ends_what_is_left_of_an_earlier_try(start: Callable[..., Contained], here: settings.Settings) -> None:
    first = start(SAVES)
    _await_line(first, "up")
    second = start("print('second')")
    assert _lines(second) == ["second"]
    assert second.wait(30) == 0
    assert _lines(first) == ["saved"]


def test_killing_the_engines_client_leaves_no_container(
    start: Callable[..., Contained], toys: Engine, here: settings.Settings
) -> None:
    child = start(SAVES)
    _await_line(child, "up")
    os.kill(child.pid, signal.SIGKILL)
    assert child.wait(60) == -9
    assert child.cause() == "killed by signal 9"
    assert _left(toys, here) == []


# In a task


def test_a_missing_image_fails_the_task_for_good_and_says_how_to_build_it(
    toys: Engine, here: settings.Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TELECINE_IMAGE_TAG", "never-built")
    launch = launch_of(here)
    operator = ComponentOperator(component=launch.component)
    built = pytest.raises(AirflowFailException, match="telecine-curate:never-built .* make images SET=curate")
    with built, operator._refusals(launch.run, here):
        operator._run_child(launch)
    (pointer,) = runs.pointers(Store(here.store_uri), launch.run)
    assert (pointer.decision, pointer.exit_code) == ("failed", 78)
    report = doctor.examine(here)
    assert [check.cure for check in report if check.what == "image curate"] == ["make images SET=curate"]


@pytest.mark.parametrize(
    ("code", "kind", "told"),
    [
        ("import sys; sys.exit(78)", AirflowFailException, "exit 78"),
        ("import sys; sys.exit(75)", AirflowException, "exit 75; a retry goes on"),
        ("", AirflowException, "it ended well, but there is no commit"),
    ],
)
def test_a_task_fails_as_its_container_did(
    code: str, kind: type[Exception], told: str, toys: Engine, here: settings.Settings
) -> None:
    launch = launch_of(here, code)
    with pytest.raises(kind, match=told):
        ComponentOperator(component=launch.component)._run_child(launch)
    assert _left(toys, here) == []
