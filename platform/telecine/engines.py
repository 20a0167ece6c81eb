"""The container engine of this machine: podman or docker, whichever is there, with or without root.

TELECINE_CONTAINER_ENGINE   name or path of podman or docker (default: podman, else docker, from PATH)
"""

import dataclasses
import json
import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from typing import Any

from telecine import images
from telecine.errors import InputError, RetryLater

ENGINES = ("podman", "docker")
CALL_TIMEOUT_S = 120.0
_LIMITS = {"memory": "memory", "cpu": "cpus"}
_ABSENT = re.compile(r"no such|not known|not found", re.IGNORECASE)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Engine:
    """A command that runs containers.

    Attributes:
        is_podman: else it is docker; they differ in users and GPUs.
        is_rootless: its containers' root is no root of this machine.
        limits: which of ``memory`` and ``cpus`` the machine's cgroups let it limit.
    """

    command: str
    is_podman: bool
    is_rootless: bool
    limits: frozenset[str]

    @property
    def name(self) -> str:
        """What a person calls it."""
        return "podman" if self.is_podman else "docker"

    def call(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """Run one command of the engine to its end, whatever it ends with."""
        return _call(self.command, *arguments)

    def require(self, image_set: str) -> str:
        """Name of the image of a dependency set, which is here.

        Raises:
            InputError: it is not, and nothing is downloaded while work waits.
            RetryLater: the engine does not answer.
        """
        name = images.name(image_set)
        done = self.call("image", "inspect", "--format", "{{.Id}}", name)
        if done.returncode == 0:
            return name
        if _ABSENT.search(done.stderr):
            raise InputError(f"there is no image {name} on this machine; build it with make images SET={image_set}")
        raise RetryLater(f"{self.command} does not answer: {_last_line(done.stderr)}")


def find(environment: Mapping[str, str] = os.environ) -> Engine:
    """The engine of this machine.

    Raises:
        InputError: there is none.
        RetryLater: it does not answer; docker's daemon is down, for example.
    """
    wanted = environment.get("TELECINE_CONTAINER_ENGINE")
    names = (wanted,) if wanted else ENGINES
    command = next(filter(None, map(shutil.which, names)), None)
    if command is None:
        raise InputError(
            f"containers: there is no {' or '.join(names)} on this machine; install podman, or name "
            "an engine in TELECINE_CONTAINER_ENGINE"
        )
    done = _call(command, "info", "--format", "{{json .}}")
    try:
        found = json.loads(done.stdout)
    except json.JSONDecodeError:
        found = {}
    if done.returncode != 0 or not found or found.get("ServerErrors"):
        told = (found.get("ServerErrors") or [_last_line(done.stderr)])[0]
        raise RetryLater(f"{command} does not answer: {told}")
    return _podman(command, found["host"]) if "host" in found else _docker(command, found)


def _podman(command: str, host: Mapping[str, Any]) -> Engine:
    limits = {_LIMITS[name] for name in host["cgroupControllers"] or () if name in _LIMITS}
    rootless = bool(host["security"]["rootless"])
    return Engine(command=command, is_podman=True, is_rootless=rootless, limits=frozenset(limits))


def _docker(command: str, info: Mapping[str, Any]) -> Engine:
    limits = {name for name, key in (("memory", "MemoryLimit"), ("cpus", "CpuCfsQuota")) if info.get(key)}
    rootless = any("rootless" in option for option in info.get("SecurityOptions") or ())
    return Engine(command=command, is_podman=False, is_rootless=rootless, limits=frozenset(limits))


def _call(*command: str) -> "subprocess.CompletedProcess[str]":
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=CALL_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        raise RetryLater(f"{' '.join(command[:2])} does not answer within {CALL_TIMEOUT_S:.0f} s") from None
    except OSError as error:
        raise InputError(f"TELECINE_CONTAINER_ENGINE: {command[0]} does not run: {error.strerror}") from None


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["it says nothing"])[-1]
