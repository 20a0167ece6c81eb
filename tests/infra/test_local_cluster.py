"""``make cluster`` where a tool fails: one line that says which, before or after anything was made."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from telecine import images

CLUSTER = Path(__file__).parents[2] / "infra" / "local" / "cluster.py"
PODMAN = {"host": {"cgroupControllers": [], "security": {"rootless": True}}}


def tool(folder: Path, name: str, script: str = "") -> None:
    """A program that notes its call and does what its script says."""
    file = folder / name
    file.write_text(f'#!/bin/sh\necho "{name} $*" >> {folder}/calls\n{script}\n')
    file.chmod(0o755)


@pytest.fixture
def tools(tmp_path: Path) -> Path:
    """The folder of everything that ``make cluster`` calls; podman has every image."""
    for name in ("kind", "kubectl", "helm", "docker"):
        tool(tmp_path, name)
    tool(tmp_path, "podman", f"test \"$1\" = info && echo '{json.dumps(PODMAN)}' || true")
    return tmp_path


def make(tools: Path, command: str = "up", **variables: str) -> "subprocess.CompletedProcess[str]":
    """``make cluster`` with these tools and no others."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TELECINE_")}
    environment |= {"PATH": str(tools), **variables}
    return subprocess.run([sys.executable, CLUSTER, command], env=environment, capture_output=True, text=True)


def calls(tools: Path) -> list[str]:
    return (tools / "calls").read_text().splitlines()


def test_images_are_taken_from_the_engine_that_builds_them(tools: Path) -> None:
    assert make(tools).returncode == 0
    saved = [line for line in calls(tools) if " save " in line]
    assert [line.split()[0] for line in saved] == ["podman"] * 3
    assert saved[0].endswith(images.name("airflow", {}))


def test_the_engine_that_a_person_names_is_asked_and_no_other(tools: Path) -> None:
    tool(tools, "mine", f"test \"$1\" = info && echo '{json.dumps(PODMAN)}' || true")
    assert make(tools, TELECINE_CONTAINER_ENGINE="mine").returncode == 0
    assert [line.split()[0] for line in calls(tools) if " save " in line] == ["mine"] * 3
    assert not [line for line in calls(tools) if line.startswith(("docker", "podman"))]


def test_an_image_that_was_not_built_is_named_before_a_cluster_is_made(tools: Path) -> None:
    script = f"test \"$1\" = info && echo '{json.dumps(PODMAN)}' || {{ echo no such image >&2; exit 1; }}"
    tool(tools, "podman", script)
    ended = make(tools)
    assert ended.returncode == 78
    assert ended.stderr.endswith("build it with make images SET=airflow\n") and ended.stderr.count("\n") == 1
    assert {line.split()[0] for line in calls(tools)} == {"podman"}


@pytest.mark.parametrize(
    ("name", "script", "said"),
    [
        ("kind", "echo one >&2; echo no daemon >&2; exit 3", "telecine: kind get clusters ended with 3: no daemon\n"),
        ("kubectl", "echo forbidden >&2; exit 1", "apply --filename - ended with 1: forbidden\n"),
    ],
)
def test_a_tool_that_fails_is_one_line(tools: Path, name: str, script: str, said: str) -> None:
    tool(tools, name, script)
    ended = make(tools)
    assert ended.returncode == 1
    assert ended.stderr.endswith(said) and "Traceback" not in ended.stderr


@pytest.mark.parametrize(("command", "name"), [("up", "helm"), ("smoke", "kubectl"), ("down", "kind")])
def test_a_tool_that_is_missing_is_one_line(tools: Path, command: str, name: str) -> None:
    (tools / name).unlink()
    ended = make(tools, command)
    assert ended.returncode == 78
    assert ended.stderr.startswith(f"telecine: make cluster needs {name} on the PATH")
