"""What a build borrows from the machine it runs on, and how a bare machine comes to build at all.

A machine without a container registry, without systemd and without a tuned podman still has a Debian mirror:
:func:`bare` makes a base image of Debian's own Python by debootstrap, and writes settings under which podman and
buildah work there. In a shell: ``eval "$(python infra/images/machine.py)"``.
"""

import ast
import contextlib
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import unquote, urlsplit

from telecine.errors import InputError

BASE = "localhost/telecine-python:3.11-bookworm"
PACKAGES = "ca-certificates,python3,python3-venv"
SETTINGS = """\
[containers]
default_ulimits = ["nofile=1024:4096", "nproc=4096:4096"]
[engine]
cgroup_manager = "cgroupfs"
runtime = "runc"
"""
HASTE = "etc/dpkg/dpkg.cfg.d/haste"
SURPLUS = (
    HASTE,
    "usr/share/doc/*/[!c]*",
    "usr/share/locale/*",
    "usr/share/man/*",
    "var/cache/apt/*",
    "var/lib/apt/lists/*",
    "var/log/*",
)
CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"
LENT = ("cert", "extra-index-url", "find-links", "index-url", "no-index", "proxy", "timeout", "trusted-host")
"""Options of pip that say where packages come from."""


def bare(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Variables under which a bare Debian 12 machine builds and runs images; makes its base image unless it is here.

    Raises:
        InputError: a tool is missing, or debootstrap ended without a base; it needs root and a Debian mirror.
    """
    for tool in ("podman", "buildah", "runc", "debootstrap"):
        if shutil.which(tool, path=f"{environment.get('PATH', os.defpath)}:/usr/sbin:/sbin") is None:
            raise InputError(f"a bare machine needs {tool}: apt-get install podman buildah runc debootstrap")
    cache = Path(environment.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "telecine"
    settings = cache / "containers.conf"
    made = {"CONTAINERS_CONF": str(settings), "BUILDAH_ISOLATION": "chroot", "BASE_IMAGE": BASE}
    if "CONTAINERS_CONF" not in environment:
        _put(settings, SETTINGS)
    chosen = {**made, **{name: environment[name] for name in made if environment.get(name)}}
    here = {**environment, **chosen}
    if chosen["BASE_IMAGE"] == BASE and _run("podman", "image", "exists", BASE, environment=here).returncode != 0:
        _make_base(here)
    return chosen


def _make_base(environment: Mapping[str, str]) -> None:
    with tempfile.TemporaryDirectory(prefix="telecine-base-") as folder:
        root = Path(folder) / "root"
        root.mkdir(mode=0o755)
        # What is lost with its folder need not be synced to the disk file by file.
        _put(root / HASTE, "force-unsafe-io\n")
        command = ["debootstrap", "--variant=minbase", f"--include={PACKAGES}", "bookworm", str(root), *_mirror()]
        done = _run(*command, environment={**environment, "PATH": f"{environment['PATH']}:/usr/sbin:/sbin"})
        if done.returncode != 0:
            raise InputError(f"debootstrap ended with {done.returncode}: {last_line(done)}; it needs root and a mirror")
        for pattern in SURPLUS:
            for path in root.glob(pattern):
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        archive = Path(folder) / "root.tar"
        subprocess.run(["tar", "-C", str(root), "-cf", str(archive), "."], check=True)
        done = _run("podman", "import", "--quiet", str(archive), BASE, environment=environment)
        if done.returncode != 0:
            raise InputError(f"podman import ended with {done.returncode}: {last_line(done)}")


def _mirror() -> list[str]:
    """The Debian mirror that this machine's own packages come from; debootstrap's default where it names none."""
    for file in [*sorted(Path("/etc/apt/sources.list.d").glob("*.sources")), Path("/etc/apt/sources.list")]:
        text = file.read_text() if file.is_file() else ""
        if found := re.search(r"^(?:URIs:|deb(?: \[[^]]*\])?)\s+(https?://\S+/debian/?)(?:\s|$)", text, re.MULTILINE):
            return [found.group(1)]
    return []


@contextlib.contextmanager
def borrowed() -> Iterator[list[str]]:
    """Options of ``podman build`` that lend a build this machine's certificates and where its pip finds packages.

    They are mounts: nothing of them, a password in an index's URL included, enters an image.
    """
    with tempfile.TemporaryDirectory(prefix="telecine-pip-") as folder:
        config = Path(folder) / "pip.conf"
        options = _pip_options()
        if Path(CERTIFICATES).is_file():
            options.setdefault("cert", CERTIFICATES)
        lines = [f"{name} = {value}" for name, value in sorted(options.items())]
        config.touch(mode=0o600)
        config.write_text("\n".join(["[global]", *lines, ""]))
        mounts = {str(config): "/etc/pip.conf", **{path: path for path in _places(options)}}
        yield [word for source, target in mounts.items() for word in ("--volume", f"{source}:{target}:ro")]


def _pip_options() -> dict[str, str]:
    """Of this machine's pip: files first, then what environment variables put in their place."""
    listed = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True
    ).stdout
    found = re.findall(r"^(global|install|:env:)\.([\w-]+)=(.*)$", listed, re.MULTILINE)
    ordered = sorted(found, key=lambda item: ("global", "install", ":env:").index(item[0]))
    options = {name.lstrip("."): str(ast.literal_eval(value)) for _, name, value in ordered}
    return {name: " ".join(value.split()) for name, value in options.items() if name in LENT}


def _places(options: Mapping[str, str]) -> list[str]:
    """Files and folders of this machine that the options name; the pages of an index lead out of its own folder."""
    places = set()
    for name, value in options.items():
        for word in value.split():
            parts = urlsplit(word)
            path = Path(unquote(parts.path) if parts.scheme == "file" else word)
            if path.is_absolute() and path.exists():
                places.add(str(path.parent if name.endswith("index-url") else path))
    return sorted(places)


def _put(path: Path, text: str) -> None:
    """Write a file that others may be reading, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False) as file:
        file.write(text)
    os.replace(file.name, path)


def _run(*command: str, environment: Mapping[str, str]) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(command, env=dict(environment), capture_output=True, text=True)


def last_line(done: "subprocess.CompletedProcess[str]") -> str:
    """What a command said last."""
    return ((done.stderr or done.stdout).strip().splitlines() or ["it says nothing"])[-1]


if __name__ == "__main__":
    print("\n".join(f"export {name}={shlex.quote(value)}" for name, value in bare().items()))
