"""``make images``: build an image for each dependency set, and print how large it is and what it consists of.

SET=train builds one; BARE=1 builds on a machine without a container registry (machine.py). Variables of the build:

BASE_IMAGE                  image with Python 3.11 (default: python:3.11-slim-bookworm)
TORCH_BUILD                 build of torch: cpu, or one with CUDA such as cu130 (default: cpu)
TORCH_INDEX                 index that has it (default: https://download.pytorch.org/whl/<TORCH_BUILD>)
TELECINE_CONTAINER_ENGINE   podman, docker or buildah (default: the first in this order that is on PATH)
"""

import argparse
import dataclasses
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

import contents
import machine
import telecine
from telecine import images, provenance
from telecine.errors import InputError, TelecineError

REPOSITORY = Path(__file__).resolve().parents[2]
ENGINES = ("podman", "docker", "buildah")
ARGUMENTS = ("BASE_IMAGE", "TORCH_BUILD", "TORCH_INDEX")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Builder:
    """One engine and the variables it runs under."""

    command: str
    environment: Mapping[str, str]

    @property
    def is_docker(self) -> bool:
        """Docker builds in a daemon, which takes no mounts from here."""
        return Path(self.command).name == "docker"

    def build(self, image_set: str) -> str:
        """Build and tag one image from the checkout; returns its name.

        Raises:
            InputError: the build failed; its own words stand above, on stderr.
        """
        name = images.name(image_set, self.environment)
        arguments = _arguments(image_set, self.environment)
        command = [self.command, "build", "--tag", name, "--file", f"infra/images/{image_set}.Dockerfile", *arguments]
        with machine.borrowed() as mounts:
            options = [] if self.is_docker else ["--layers", *mounts]
            done = subprocess.run(
                [*command, *options, "."], cwd=REPOSITORY, env=dict(self.environment), stdout=sys.stderr
            )
        if done.returncode != 0:
            raise InputError(
                f"building {name} with {self.command} ended with {done.returncode}; where no registry is reached, "
                "set BASE_IMAGE to an image that is here, or BARE=1 to make one of Debian packages"
            )
        return name

    def run(self, name: str, *command: str, text: str = "", options: tuple[str, ...] = ()) -> str:
        """What a command says in a new container of an image, with ``text`` on its stdin.

        Raises:
            InputError: it failed, or the engine cannot run an image here.
        """
        if Path(self.command).name == "buildah":
            container = self._call("from", name).strip()
            try:
                return self._call("run", *options, container, "--", *command, text=text)
            finally:
                self._call("rm", container)
        return self._call("run", "--rm", "--interactive", *options, name, *command, text=text)

    def _call(self, *words: str, text: str = "") -> str:
        done = subprocess.run(
            [self.command, *words], env=dict(self.environment), input=text, capture_output=True, text=True
        )
        if done.returncode != 0:
            bare = "" if self.is_docker else "; where it cannot run an image at all, BARE=1 needs no systemd"
            raise InputError(f"{self.command} {words[0]} ended with {done.returncode}: {machine.last_line(done)}{bare}")
        return done.stdout

    def contents(self, name: str) -> dict[str, int]:
        """Bytes of an image by what they belong to; see contents.py."""
        sizes: dict[str, int] = json.loads(self.run(name, "python", "-", text=Path(contents.__file__).read_text()))
        return sizes


def find(environment: Mapping[str, str] = os.environ) -> Builder:
    """The engine that builds on this machine.

    Raises:
        InputError: there is none.
    """
    wanted = environment.get("TELECINE_CONTAINER_ENGINE")
    names = (wanted,) if wanted else ENGINES
    command = next((name for name in names if shutil.which(name)), None)
    if command is None:
        raise InputError(f"make images needs {', '.join(names)}; found none on PATH")
    return Builder(command=command, environment=environment)


def _arguments(image_set: str, environment: Mapping[str, str]) -> list[str]:
    """Build arguments; an argument that a Dockerfile does not declare would only make the engine complain."""
    declared = (REPOSITORY / "infra" / "images" / f"{image_set}.Dockerfile").read_text()
    chosen = {name: environment[name] for name in ARGUMENTS if environment.get(name) and f"ARG {name}" in declared}
    labels = {"VERSION": telecine.__version__, "REVISION": provenance.git_commit(), "SOURCE": _source()}
    return [word for name, value in {**chosen, **labels}.items() for word in ("--build-arg", f"{name}={value}")]


def _source() -> str:
    """Where the checkout comes from, for the image's label; empty unless it is a place on the web."""
    command = ["git", "config", "--get", "remote.origin.url"]
    remote = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True).stdout.strip()
    parts = urlsplit(remote)
    return f"https://{parts.hostname}{parts.path}" if parts.scheme == "https" else ""


def main() -> int:
    """Build what was asked for; one line an image."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("sets", nargs="*", metavar="SET", help=f"of {', '.join(images.SETS)}; all by default")
    parser.add_argument("--bare", action="store_true", help="make the base image here, of Debian packages")
    parsed = parser.parse_args()
    try:
        environment = dict(os.environ)
        builder = find(environment | (machine.bare(environment) if parsed.bare else {}))
        for image_set in parsed.sets or images.SETS:
            began = time.monotonic()
            name = builder.build(image_set)
            took = f"built in {time.monotonic() - began:.0f} s"
            print(f"{name}  {contents.told(builder.contents(name))}  ({took})", flush=True)
    except TelecineError as error:
        print(f"telecine: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
