"""The container runner: the same command line in the component's image, with podman or docker.

The container sees the network of this machine, TELECINE_HOME, a local store, and the artifacts that are its inputs;
the latter cannot be written to; links in them lead where they do here. Its /tmp is a volume on disk that goes with it.
Nothing is downloaded. Whatever it has to know travels in variables that the engine takes from its own environment: no
value stands in an argv.

A container is the child of the engine, not of the task. Three things tie it to its task: the engine hands signals on;
standard input ends when the task's process is gone, however it went, upon which the component saves and ends; and its
name is derived from the work and the task, so that a retry ends what is left of an earlier try before it starts. A
label says which process started it: while that one lives nobody else ends its container.
"""

import dataclasses
import hashlib
import logging
import os
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from telecine import config, engines, images
from telecine.engines import Engine
from telecine.errors import RetryLater
from telecine.launch import PLACED, SUBMITTED, Launch
from telecine.runners.mounts import Mounts
from telecine.runners.process import STOP_GRACE_S, Child

log = logging.getLogger(__name__)

PASSED = (
    "AWS_",
    "MLFLOW_TRACKING_",
    "MLFLOW_HTTP_",
    "TELECINE_STORE_RETRY_S",
    "TELECINE_SERVE_TOKEN",
    "OPENAI_API_KEY",
    "CUDA_VISIBLE_",
)
"""Beginnings of the names of those variables of the task that its component needs."""
STARTER = "telecine.io/starter"
ENDED = ("exited", "stopped", "dead", "removing")
CODE_ENGINE, CODE_SIGNAL = 125, 128
CODES_UNRUNNABLE = (126, 127)
"""The image has no such command, or it cannot be executed: the next try would end the same."""
CODE_KILLED = CODE_SIGNAL + 9


class Contained(Child):
    """The engine's client: it ends as its container does, with what became of the container.

    Args:
        memory_gib: limit of the container, 0 where there is none.
    """

    def __init__(self, engine: Engine, command: list[str], variables: Mapping[str, str], memory_gib: float):
        self._engine, self._memory_gib = engine, memory_gib
        self._settled, self._asked_to_die, self._ran_out_of_memory = False, False, False
        self._folder = tempfile.TemporaryDirectory(prefix="telecine-engine-")
        client, run, *rest = command
        mine = [f"--cidfile={self._id_path}", f"--label={STARTER}={_starter()}"]
        super().__init__(
            [client, run, *mine, *rest],
            cwd=self._folder.name,
            env=os.environ | variables,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )

    @property
    def _id_path(self) -> Path:
        return Path(self._folder.name, "id")

    @property
    def _id(self) -> str:
        """The engine's id of this very container, empty before it is made; its name may be a rival's by now."""
        return self._id_path.read_text().strip() if self._id_path.exists() else ""

    def wait(self, timeout: float | None = None) -> int:
        """Wait until the container has ended; leaves nothing of it behind."""
        code = super().wait(timeout)
        if not self._settled:
            self._settled = True
            if self._id:
                self._ran_out_of_memory = self._is_out_of_memory()
                remove(self._engine, self._id)
            self._folder.cleanup()
        return code

    def _is_out_of_memory(self) -> bool:
        """Whether the kernel killed a process of it; some podmans only leave a file where they were called."""
        found = self._engine.call("container", "inspect", "--format", "{{.State.OOMKilled}}", self._id)
        return found.stdout.strip() == "true" or Path(self._folder.name, "oom").exists()

    def kill(self) -> None:
        """Kill the container and wait until it is gone; to kill the engine's client alone would leave it at work."""
        self._asked_to_die = True
        if self._id:
            self._engine.call("kill", "--signal", "KILL", self._id)
        try:
            self.wait(STOP_GRACE_S)
        except subprocess.TimeoutExpired:
            if self._id:
                remove(self._engine, self._id)
            super().kill()

    def cause(self) -> str:
        """How it ended, in a few words."""
        code, limit = self.returncode, f"limit {self._memory_gib:g} GiB (its resources.memory_gib)"
        if self._ran_out_of_memory:
            return f"out of memory: {limit}"
        if code == CODE_KILLED and self._memory_gib and not self._asked_to_die:
            return f"killed by signal 9, most likely out of memory: {limit}"
        if CODE_ENGINE <= code < CODE_SIGNAL:
            return f"{self._engine.name} could not run it (exit {code}); its last line says why"
        return f"killed by signal {code - CODE_SIGNAL}" if code > CODE_SIGNAL else super().cause()


def start(launch: Launch) -> Contained:
    """Start the component in its image.

    Raises:
        InputError: there is no engine, or no image of the component's set.
        RetryLater: the engine does not answer, or does not get rid of an earlier try, or another living process runs
            this very work.
    """
    engine = engines.find()
    image, name = engine.require(launch.component.image), name_of(launch)
    if left := _left_over(engine, name):
        remove(engine, left)
    missing = sorted({"cpus", "memory"} - engine.limits)
    if missing:
        log.warning("event=no_limits what=%s reason=%r", ",".join(missing), "cgroups do not let the engine set them")
    log.info("event=container engine=%s name=%s image=%s", engine.name, name, image)
    limit = launch.component.resources.memory_gib if "memory" in engine.limits else 0.0
    return Contained(engine, command(launch, engine), _variables(launch), limit)


def _left_over(engine: Engine, name: str) -> str:
    """Id of the container of that name, which an earlier try left or this process made; empty where there is none.

    Its name may be a rival's a moment later: only what was looked at here may be ended.

    Raises:
        RetryLater: the process that started it is at work.
    """
    form = '{{.Id}}/{{.State.Status}}/{{index .Config.Labels "' + STARTER + '"}}'
    found = engine.call("container", "inspect", "--format", form, name).stdout.strip()
    left, _, rest = found.partition("/")
    status, _, starter = rest.partition("/")
    pid = starter.split("/")[1] if starter.count("/") == 2 else ""
    if pid.isdigit() and status not in ENDED and int(pid) != os.getpid() and starter == _starter(int(pid)):
        raise RetryLater(
            f"process {pid} of this machine runs this very work in the container {name}, which is {status}; wait until "
            "it has ended, or stop that process"
        )
    return left


def _starter(pid: int | None = None) -> str:
    """A process of this machine, this one unless told: its number is given away again, with its start it is not."""
    from telecine.work import attempts

    pid = pid or os.getpid()
    return f"{socket.gethostname()}/{pid}/{attempts.birth(pid)}"


def name_of(launch: Launch) -> str:
    """Name and host name of the container: one for each task of a run at a piece of work, whatever the try.

    A later try has the same, so it knows at once that an attempt of its predecessor is dead.
    """
    whose = f"{launch.settings.store_uri} {launch.run} {launch.task} {launch.key}"
    digest = hashlib.sha256(whose.encode()).hexdigest()[:8]
    component = launch.component.name.replace(".", "-").replace("_", "-")[:30]
    return f"telecine-{component}-{launch.key[:10]}-{digest}"


def command(launch: Launch, engine: Engine | None = None) -> list[str]:
    """The engine's whole command line; it holds the names of variables, never a value.

    Raises:
        InputError, RetryLater: no engine was given, and there is none or it does not answer.
    """
    engine, name = engine or engines.find(), name_of(launch)
    options = ["--interactive", f"--name={name}", f"--hostname={name}", "--network=host", "--pull=never"]
    options += ["--log-driver=none", "--read-only", "--volume=/tmp", "--cap-drop=all"]
    options += ["--security-opt=no-new-privileges", "--security-opt=label=disable"]
    options += [f"--label=telecine.io/run={launch.run}", f"--label=telecine.io/task={launch.task}"]
    options += [*_user(engine), *_resources(engine, launch)]
    passed = {variable for variable in os.environ if variable.startswith(PASSED)}
    options += [f"--env={variable}" for variable in sorted(passed | set(_variables(launch)))]
    options += ["--env=HOME=/tmp"]  # of the component; the engine's client needs the caller's own
    options += [f"--mount={mount}" for mount in mounts(launch)]
    return [engine.command, "run", *options, images.name(launch.component.image), *launch.argv()]


def _variables(launch: Launch) -> dict[str, str]:
    """What the component reads beside its argv; its paths are absolute, because the container has no folder of ours."""
    # This machine is the place: from now until the component's process runs, the engine makes a container.
    times = dict.fromkeys((SUBMITTED, PLACED), repr(time.time()))
    return _with_absolute_paths(launch).variables() | times | {"TELECINE_LEASH": "stdin"}


def _user(engine: Engine) -> list[str]:
    """Who the component is: the caller, so that what it writes belongs to the caller."""
    if engine.is_rootless and not engine.is_podman:
        return ["--user=0:0"]  # rootless docker's root is the caller
    caller = f"--user={os.getuid()}:{os.getgid()}"
    return ["--userns=keep-id", caller] if engine.is_rootless else [caller]


def _resources(engine: Engine, launch: Launch) -> list[str]:
    """Limits as far as the machine can hold them, shared memory for data loaders, and the GPUs."""
    needs = launch.component.resources
    memory_mib = round(needs.memory_gib * 1024)
    options = [f"--shm-size={max(64, memory_mib // 2)}m"]
    options += [f"--memory={memory_mib}m"] if "memory" in engine.limits else []
    options += [f"--cpus={needs.cpus}"] if "cpus" in engine.limits else []
    if needs.gpus:
        options += ["--device=nvidia.com/gpu=all"] if engine.is_podman else ["--gpus=all"]
    return options


def mounts(launch: Launch) -> list[str]:
    """What the container sees of this machine's disk, each at its own path.

    Raises:
        InputError: links inside an artifact lead to more folders than can be mounted.
    """
    here, found = launch.settings, Mounts()
    store = [_path(here.store_uri)] if here.store_is_local else []
    for path in sorted({here.home, *store}):  # a folder before what lies in it
        found.add(path)
    artifacts = [_path(value) for _, value in _local_artifacts(launch)]
    for path in artifacts:
        found.add(path, "readonly")
    for path in artifacts:
        if not any(path.is_relative_to(root) for root in store):  # a commit holds no links
            found.add_linked(path)
    return found.lines()


def _with_absolute_paths(launch: Launch) -> Launch:
    """The same work; a path relative to this process, or to a person's home, means nothing in the container."""
    named = {name: value for name, value in _local_artifacts(launch) if not value.startswith(("/", "file:///"))}
    absolute = {name: str(_path(value)) for name, value in named.items()}
    return dataclasses.replace(launch, inputs=dataclasses.replace(launch.inputs, **absolute))


def _local_artifacts(launch: Launch) -> Iterator[tuple[str, str]]:
    for field in dataclasses.fields(launch.inputs):
        value = getattr(launch.inputs, field.name)
        if config.is_artifact(type(launch.inputs), field.name) and value and not value.startswith("s3://"):
            yield field.name, value


def _path(uri: str) -> Path:
    from telecine.work.address import local_path

    return local_path(uri)


def remove(engine: Engine, name: str) -> None:
    """End a container, by its name or id, which may save first, and leave nothing of it; one that is not there is fine.

    Raises:
        RetryLater: the engine cannot get rid of it.
    """
    if engine.call("container", "inspect", "--format", "{{.Id}}", name).returncode != 0:
        return
    engine.call("stop", "--time", str(int(STOP_GRACE_S)), name)
    done = engine.call("rm", "--force", "--volumes", name)
    if done.returncode != 0 and engine.call("container", "inspect", name).returncode == 0:
        raise RetryLater(f"{engine.command} cannot remove the container {name}: {done.stderr.strip()}")
