"""A tiny distribution of toy components, installed for one test the way anybody's own components would be."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from telecine import settings

SPEC = '''"""{what}"""

import dataclasses

from telecine.component import Component
from telecine.config import Artifact, param


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inputs:
{inputs}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outputs:
{outputs}


COMPONENT = Component(
    name="{name}", inputs=Inputs, outputs=Outputs, entry="toys.{name}.run:run", image="curate", effects={effects}
)
'''

RUN = '''"""{what}"""

import os
import time
from pathlib import Path

from telecine.context import Context, Source
from telecine.errors import BadData, InputError, RetryLater

from {package}.spec import Inputs, Outputs


def run(inputs: Inputs, ctx: Context) -> Outputs:
{body}
'''


class Toys:
    """Writes toy components and runs ``telecine`` on them in processes of its own."""

    def __init__(self, root: Path, here: settings.Settings) -> None:
        self.root, self.here = root, here
        self.package = root / "toys"
        self._init(self.package)
        metadata = root / "toys-1.0.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: toys\nVersion: 1.0\n")
        (metadata / "entry_points.txt").write_text("[telecine.components]\ntoys = toys\n")
        self.environment = os.environ | here.environment() | {"PYTHONPATH": str(root), "PYTHONDONTWRITEBYTECODE": "1"}

    def add(
        self, name: str, *, body: str, inputs: str, outputs: str, what: str = "A toy.", effects: bool = False
    ) -> Path:
        """Declare a component; returns the file of its code."""
        area, verb = name.split(".")
        folder = self.package / area / verb
        self._init(folder.parent)
        self._init(folder)
        lines = {kind: _indented(text) for kind, text in (("inputs", inputs), ("outputs", outputs), ("body", body))}
        spec = SPEC.format(what=what, name=name, effects=effects, inputs=lines["inputs"], outputs=lines["outputs"])
        (folder / "spec.py").write_text(spec)
        (folder / "run.py").write_text(RUN.format(what=what, package=f"toys.{name}", body=lines["body"]))
        return folder / "run.py"

    def start(self, *arguments: str, **environment: str) -> "subprocess.Popen[str]":
        """Start ``telecine`` with these arguments."""
        command = [sys.executable, "-m", "telecine.cli", *arguments]
        environ = self.environment | environment
        return subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def call(self, *arguments: str, code: int = 0) -> tuple[str, str]:
        """Run ``telecine`` to its end and return what it printed; fails unless the exit code is ``code``."""
        process = self.start(*arguments)
        out, err = process.communicate(timeout=120)
        assert process.returncode == code, f"exit {process.returncode}:\n{out}\n{err}"
        return out, err

    def run(self, name: str, *arguments: str, **inputs: Any) -> dict[str, Any]:
        """Run a component and return its result document."""
        out, _ = self.call("run", name, "--inputs", json.dumps(inputs), *arguments)
        document: dict[str, Any] = json.loads(out)
        return document

    def _init(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "__init__.py").touch()


def _indented(text: str) -> str:
    return "\n".join(f"    {line}" if line else "" for line in (text.strip("\n") or "pass").splitlines())


@pytest.fixture
def toys(tmp_path: Path, deployment: settings.Settings) -> Toys:
    """An empty toy distribution in a deployment of its own."""
    return Toys(tmp_path / "site", deployment)


@pytest.fixture
def letters(toys: Toys) -> Callable[..., dict[str, Any]]:
    """A component that writes a text ``times`` over, declared and ready to be called."""
    toys.add(
        "text.repeat",
        what="Repeats a text.",
        inputs='text: str = param("a", help="What to repeat.")\ntimes: int = param(2, ge=1, help="How often.")',
        outputs='text_uri: Artifact = param(help="The text.")\nlength: int = param(help="Characters.")',
        body="""
(ctx.dir / "text.txt").write_text(inputs.text * inputs.times)
return Outputs(text_uri="text.txt", length=len(inputs.text) * inputs.times)
""",
    )
    return lambda **inputs: toys.run("text.repeat", **inputs)
