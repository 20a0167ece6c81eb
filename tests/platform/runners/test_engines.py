"""Container engines: which one is taken, and what it says it can do."""

import json
from pathlib import Path
from typing import Any

import pytest

from telecine import engines
from telecine.errors import InputError, RetryLater


def test_a_missing_engine_is_one_message_that_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no .*nothing-here on this machine; install podman"):
        engines.find({"TELECINE_CONTAINER_ENGINE": str(tmp_path / "nothing-here")})


def test_an_engine_that_does_not_answer_is_tried_again(tmp_path: Path) -> None:
    engine = tmp_path / "docker"
    engine.write_text("#!/bin/sh\necho Cannot connect to the Docker daemon >&2\nexit 1\n")
    engine.chmod(0o755)
    with pytest.raises(RetryLater, match="Cannot connect to the Docker daemon"):
        engines.find({"TELECINE_CONTAINER_ENGINE": str(engine)})


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        (
            {"host": {"cgroupControllers": ["memory", "pids"], "security": {"rootless": True}}},
            {"is_podman": True, "is_rootless": True, "limits": frozenset({"memory"})},
        ),
        ({"host": {"cgroupControllers": None, "security": {"rootless": True}}}, {"limits": frozenset()}),
        (
            {"MemoryLimit": True, "CpuCfsQuota": True, "SecurityOptions": ["name=seccomp", "name=rootless"]},
            {"is_podman": False, "is_rootless": True, "limits": frozenset({"memory", "cpus"})},
        ),
        ({"MemoryLimit": True, "SecurityOptions": None}, {"is_rootless": False, "limits": frozenset({"memory"})}),
    ],
)
def test_what_an_engine_can_do_is_what_it_says(told: dict[str, Any], expected: dict[str, Any], tmp_path: Path) -> None:
    engine = tmp_path / "engine"
    engine.write_text(f"#!/bin/sh\ncat <<'END'\n{json.dumps(told)}\nEND\n")
    engine.chmod(0o755)
    found = engines.find({"TELECINE_CONTAINER_ENGINE": str(engine)})
    assert {name: getattr(found, name) for name in expected} == expected
