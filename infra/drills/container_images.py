"""Images of this very code, built where they are missing or old, and the settings under which they run here."""

import fcntl
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

from places import REPOSITORY
from telecine import engines, images
from telecine.engines import Engine
from telecine.errors import TelecineError

BUILD = REPOSITORY / "infra" / "images"
DIGEST = """
import hashlib, pathlib
from importlib.util import find_spec
digest = hashlib.sha256()
for package in ("telecine", "telecine_components", "telecine_models"):
    root = pathlib.Path(find_spec(package).submodule_search_locations[0])
    for path in sorted(root.rglob("*.py")):
        digest.update(f"{package}/{path.relative_to(root)}\\n".encode() + path.read_bytes())
print(digest.hexdigest())
"""


def ensure(image_sets: Iterable[str], site: Path | None = None) -> Engine:
    """The engine of this machine, with an image of each set that holds the code of ``site``, or of this process.

    Sets CONTAINERS_CONF for this process where the engine's own settings cannot run a container.

    Raises:
        TelecineError: there is no engine, or an image cannot be built, or does not hold this code.
    """
    engine, expected = engines.find(), _digest_of(site)
    with (Path(tempfile.gettempdir()) / f"telecine-images-{os.getuid()}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # one build of an image is enough
        for image_set in sorted(set(image_sets)):
            _ensure(engine, image_set, expected)
    return engine


def _ensure(engine: Engine, image_set: str, expected: str) -> None:
    name = images.name(image_set)
    if not _can_run(engine, name):
        _lend_settings()
    if _digest_in(engine, name) != expected:
        _build(image_set)
        if _digest_in(engine, name) != expected:
            raise TelecineError(f"{name} was built and does not hold this code")


def _digest_of(site: Path | None) -> str:
    environment = os.environ | ({"PYTHONPATH": str(site)} if site else {})
    done = subprocess.run([sys.executable, "-c", DIGEST], env=environment, capture_output=True, text=True, check=True)
    return done.stdout


def _digest_in(engine: Engine, name: str) -> str:
    """Digest of the code in an image; empty where there is none, or it cannot run."""
    return engine.call("run", "--rm", "--network=none", "--pull=never", name, "python", "-c", DIGEST).stdout


def _can_run(engine: Engine, name: str) -> bool:
    """Whether the engine's settings suit this machine; true where there is no image to try."""
    if engine.call("image", "inspect", name).returncode != 0:
        return True
    return engine.call("run", "--rm", "--network=none", "--pull=never", name, "true").returncode == 0


def _lend_settings() -> None:
    """Take the engine's settings that ``make images BARE=1`` uses."""
    command = [sys.executable, str(BUILD / "machine.py")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    words = [shlex.split(line)[1].partition("=") for line in done.stdout.splitlines()]
    os.environ.update({name: value for name, _, value in words if name == "CONTAINERS_CONF"})


def _build(image_set: str) -> None:
    """``make images SET=…``; where no registry is reached, with a base image made here."""
    command = [sys.executable, str(BUILD / "images.py"), image_set]
    for options in ([], ["--bare"]):
        if subprocess.run([*command, *options], stdout=sys.stderr).returncode == 0:
            break
    else:
        raise TelecineError(f"make images SET={image_set} failed; its lines above say why")
    if options:
        _lend_settings()


if __name__ == "__main__":
    ensure(sys.argv[1:])
    print(os.environ.get("CONTAINERS_CONF", ""))
