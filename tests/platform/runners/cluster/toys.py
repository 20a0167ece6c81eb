"""Toy components whose pods do the real command line's work: one for each kind of object."""

import shlex
from pathlib import Path
from typing import Any

TOY = '''"""{name}: a toy."""

import dataclasses

from telecine.component import Component, Resources
from telecine.config import Artifact, param


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inputs:
    text: str = param("a", help="What to write.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outputs:
    text_uri: Artifact = param(help="The text.")


COMPONENT = Component(
    name="{name}", inputs=Inputs, outputs=Outputs, entry="toys.{name}.run:run", image="curate",
    resources=Resources({resources}),
)
'''
RUN = '''"""{name}: a toy."""

import os

from telecine.context import Context
from telecine.errors import HardwareFault, InputError, RetryLater

from toys.{name}.spec import Inputs, Outputs

ERRORS = {{"69": HardwareFault, "75": RetryLater, "78": InputError, "1": ValueError}}


def run(inputs: Inputs, ctx: Context) -> Outputs:
    fault = os.environ.get("TOY_FAULT")
    if fault:
        raise ERRORS[fault](f"the toy was told to end with {{fault}}")
    (ctx.dir / "text.txt").write_text(inputs.text)
    return Outputs(text_uri="text.txt")
'''
KINDS = {"Job": ("toy.write", ""), "RayJob": ("toy.fan", "ray_workers=2"), "TrainJob": ("toy.train", "nodes=2")}


def write(root: Path) -> Path:
    """Install the toys into a folder, as anybody's own distribution would be."""
    metadata = root / "toys-1.0.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: toys\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[telecine.components]\ntoys = toys\n")
    for name, resources in KINDS.values():
        area, verb = name.split(".")
        folder = root / "toys" / area / verb
        folder.mkdir(parents=True)
        for package in (folder, folder.parent, folder.parent.parent):
            (package / "__init__.py").touch()
        (folder / "spec.py").write_text(TOY.format(name=name, resources=resources))
        (folder / "run.py").write_text(RUN.format(name=name))
    return root


def container(job: dict[str, Any]) -> tuple[list[str], dict[str, str]]:
    """Argv and variables of the component, wherever the kind of object has them; secrets are left out."""
    spec = job["spec"]
    if "trainer" in spec:
        argv, env = spec["trainer"]["command"], spec["trainer"]["env"]
    elif "rayClusterSpec" in spec:
        head = spec["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["containers"][0]
        argv, env = shlex.split(spec["entrypoint"]), head["env"]
    else:
        first = spec["template"]["spec"]["containers"][0]
        argv, env = first["command"], first["env"]
    return argv, {one["name"]: one["value"].replace("$$", "$") for one in env if "value" in one}
