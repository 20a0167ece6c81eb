"""A toy component for containers: what it does is the Python text among its inputs."""

import dataclasses
import secrets
from pathlib import Path
from typing import Any

import pytest

from telecine import settings
from telecine.component import Component, Resources
from telecine.config import Artifact, param
from telecine.engines import Engine
from telecine.launch import Launch

TOY = """#!/usr/bin/env python3
import json, os, sys
code = json.loads(os.environ["TELECINE_INPUTS"])["code"]
os.execvp("python3", ["python3", "-u", "-c", code, *sys.argv[1:]])
"""
SECRET = secrets.token_urlsafe(24)
STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up'); time.sleep(600)"
SAVES = """
import signal, sys, time
def save(*_):
    print("saved"); sys.exit(75)
signal.signal(signal.SIGTERM, save)
print("up")
while True: time.sleep(0.1)
"""
LEASHED = """
import os, time
print("up")
while os.read(0, 1): pass
"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inputs:
    code: str = param(help="What the toy does.")
    videos_uri: Artifact = param("", help="What the toy may read.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outputs:
    pass


def launch_of(
    here: settings.Settings, code: str = "", videos_uri: str = "", task: str = "toy.run", **resources: Any
) -> Launch:
    """A toy's call."""
    toy = Component(
        name="toy.run",
        inputs=Inputs,
        outputs=Outputs,
        entry="toys:run",
        image="curate",
        resources=Resources(**resources),
    )
    inputs = Inputs(code=code, videos_uri=Artifact(videos_uri))
    return Launch(component=toy, inputs=inputs, run="a-run", task=task, key="0123456789abcdef" * 2, settings=here)


@pytest.fixture
def here(tmp_path: Path) -> settings.Settings:
    """A home as a container may use it; nobody serves its tracker."""
    home = tmp_path / "home, of: a person"
    home.mkdir()
    places = {"TELECINE_HOME": str(home), "TELECINE_TRACKING_URI": "http://127.0.0.1:9", "TELECINE_RUNNER": "container"}
    return settings.from_environment(places)


def engine_of(**features: Any) -> Engine:
    """An engine that is only asked what its command line would be."""
    whole = {"command": "podman", "is_podman": True, "is_rootless": False, "limits": frozenset({"cpus", "memory"})}
    return Engine(**(whole | features))
