"""The images: what their Dockerfiles promise, and that a built one keeps it under a user id and a root nobody chose."""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

from telecine import component, images
from telecine.work import source

REPOSITORY = Path(__file__).parents[2]
FOLDER = REPOSITORY / "infra" / "images"
BUILD = [sys.executable, str(FOLDER / "images.py")]
BUILT = ("monitor", "curate")
LIMITS_MIB = {"monitor": 320, "curate": 1250}
"""Measured in docs/images.md; what makes an image larger than this is to be seen, and explained there."""
GRACE_S = 600
DIGESTS = """
import json
from telecine import component
from telecine.work import source
specs = [component.find(name) for name in component.names()]
print(json.dumps({spec.name: source.combined(source.module_digests(spec.entry_module)) for spec in specs}))
"""
LOADED = """
import sys
from telecine import component
for name in component.names():
    spec = component.find(name)
    if spec.image == sys.argv[1]:
        print(name, callable(spec.load()))
"""


def dockerfile(image_set: str) -> str:
    return (FOLDER / f"{image_set}.Dockerfile").read_text()


def final_stage(image_set: str) -> str:
    return dockerfile(image_set).rpartition("\nFROM ")[2]


def extras() -> dict[str, list[str]]:
    document = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    found: dict[str, list[str]] = document["project"]["optional-dependencies"]
    return found


# What a Dockerfile promises


def test_every_dependency_set_has_a_dockerfile_and_an_extra_of_its_name() -> None:
    assert sorted(file.stem for file in FOLDER.glob("*.Dockerfile")) == sorted(images.SETS)
    assert set(images.SETS) <= set(extras())


@pytest.mark.parametrize("image_set", images.SETS)
def test_every_stage_begins_with_the_base_that_the_caller_chose(image_set: str) -> None:
    text = dockerfile(image_set)
    assert "ARG BASE_IMAGE=python:3.11-slim-bookworm\n" in text
    parents = re.findall(r"^FROM (\S+)", text, re.MULTILINE)
    stages = re.findall(r"^FROM \S+ AS (\S+)", text, re.MULTILINE)
    assert parents[0] == parents[-1] == "${BASE_IMAGE}"
    assert set(parents[1:-1]) <= set(stages)


@pytest.mark.parametrize("image_set", images.SETS)
def test_what_is_installed_is_pinned(image_set: str) -> None:
    installs = re.findall(r"install\.sh packages.*", dockerfile(image_set))
    assert installs
    assert f"requirements.py pyproject.toml {image_set} >" in dockerfile(image_set)
    packages = (FOLDER / "install.sh").read_text().partition("packages)\n")[2].partition(";;")[0]
    assert "install --constraint constraints.txt --requirement" in packages


@pytest.mark.parametrize("image_set", images.SETS)
def test_the_image_runs_nothing_as_root_and_nothing_by_itself(image_set: str) -> None:
    stage = final_stage(image_set)
    assert re.findall(r"^USER (.+)$", stage, re.MULTILINE) == ["10001:10001"]
    assert "PYTHONSAFEPATH=1" in stage
    assert "ENTRYPOINT" not in stage
    # A RUN would leave the places where a build's mounts were, and cannot be undone by a later layer.
    assert not re.search(r"^(?:RUN|ADD)\b", stage, re.MULTILINE)


@pytest.mark.parametrize("image_set", images.SETS)
def test_the_image_says_what_it_is_and_where_it_comes_from(image_set: str) -> None:
    labels = dict(re.findall(r'org\.opencontainers\.image\.(\w+)="([^"]*)"', final_stage(image_set)))
    expected = {"title": f"telecine-{image_set}", "version": "${VERSION}", "revision": "${REVISION}"}
    assert labels == {**expected, "source": "${SOURCE}"}


@pytest.mark.parametrize("image_set", images.SETS)
def test_no_secret_is_an_argument_or_a_variable_of_a_build(image_set: str) -> None:
    names = re.findall(r"^(?:ARG|ENV) (\w+)|(\w+)=", dockerfile(image_set), re.MULTILINE)
    secret = re.compile("SECRET|PASSW|TOKEN|CREDENTIAL|_KEY", re.IGNORECASE)
    assert [name for pair in names for name in pair if secret.search(name)] == []


def test_a_build_sees_no_test_no_document_and_no_history() -> None:
    lines = (REPOSITORY / ".dockerignore").read_text().splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*"
    allowed = {rule[1:].partition("/")[0] for rule in rules if rule.startswith("!")}
    assert allowed & {"tests", "docs", ".git", ".ci", ".venv", ".telecine"} == set()


def test_each_set_holds_only_what_its_work_needs() -> None:
    held = {name: {Requirement(line).name for line in lines} for name, lines in extras().items()}
    assert [name for name in images.SETS if "mlflow" in held[name]] == []
    assert [name for name in images.SETS if "ray" in held[name]] == ["curate"]
    assert [name for name in images.SETS if "torch" in held[name]] == ["train", "serve"]


# Engines


def engine_that(folder: Path, name: str, script: str) -> Path:
    """A program in place of an engine."""
    file = folder / name
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(0o755)
    return file


@pytest.mark.parametrize(
    ("name", "cure"), [("podman", "; where it cannot run an image at all, BARE=1"), ("docker", "")]
)
def test_an_engine_that_builds_and_cannot_run_is_one_line(tmp_path: Path, name: str, cure: str) -> None:
    script = 'test "$1" = build || { echo one >&2; echo "crun: no systemd" >&2; exit 126; }'
    environment = os.environ | {"TELECINE_CONTAINER_ENGINE": str(engine_that(tmp_path, name, script))}
    done = subprocess.run([*BUILD, "monitor"], env=environment, capture_output=True, text=True, timeout=GRACE_S)
    assert done.returncode == 78
    assert done.stderr.startswith(f"telecine: {tmp_path}/{name} run ended with 126: crun: no systemd{cure}")
    assert done.stderr.count("\n") == 1


def test_podman_comes_before_docker_and_docker_before_buildah(tmp_path: Path) -> None:
    (tmp_path / "git").symlink_to(str(shutil.which("git")))
    environment = os.environ | {"PATH": str(tmp_path), "TELECINE_CONTAINER_ENGINE": ""}
    for name in ("buildah", "docker", "podman"):
        engine_that(tmp_path, name, f"echo {name} was asked >&2; exit 1")
        done = subprocess.run([*BUILD, "monitor"], env=environment, capture_output=True, text=True, timeout=GRACE_S)
        assert f"{name} was asked\n" in done.stderr and f"with {name} ended with 1" in done.stderr


@pytest.mark.parametrize("code", [0, 1])
def test_buildah_runs_an_image_in_a_container_that_it_removes(tmp_path: Path, code: int) -> None:
    sizes = '{"total": 3145728, "base": 1048576, "rest": 0, "telecine": 1048576, "ray": 1048576}'
    run = f"run) cat >/dev/null; echo '{sizes}'; exit {code};;"
    script = f'echo "$@" >> {tmp_path}/asked; case "$1" in from) echo working-container;; {run} esac'
    environment = os.environ | {"TELECINE_CONTAINER_ENGINE": str(engine_that(tmp_path, "buildah", script))}
    done = subprocess.run([*BUILD, "monitor"], env=environment, capture_output=True, text=True, timeout=GRACE_S)
    assert done.returncode == (78 if code else 0)
    assert ("3.0 MiB = base 1.0 + telecine 1.0 + ray 1.0" in done.stdout) == (not code)
    build, *others = (tmp_path / "asked").read_text().splitlines()
    name = images.name("monitor")
    assert build.startswith(f"build --tag {name} --file infra/images/monitor.Dockerfile ")
    assert " --layers --volume " in build
    assert others == [f"from {name}", "run working-container -- python -", "rm working-container"]


# What a built image keeps


@pytest.fixture(scope="module")
def environment() -> dict[str, str]:
    """Variables under which images are built here: by root on a base made here, else on the registry's."""
    missing = [tool for tool in ("podman", "buildah", "runc", "debootstrap") if not _find(tool)]
    if not missing and os.getuid() == 0:
        command = [sys.executable, str(FOLDER / "machine.py")]
        done = subprocess.run(command, capture_output=True, text=True, timeout=GRACE_S)
        assert done.returncode == 0, done.stderr
        return os.environ | dict(re.findall(r"^export (\w+)=(.*)$", done.stdout, re.MULTILINE))
    pull = ["podman", "pull", "--quiet", "docker.io/library/python:3.11-slim-bookworm"]
    if "podman" not in missing and subprocess.run(pull, capture_output=True, timeout=GRACE_S).returncode == 0:
        return os.environ | {"BASE_IMAGE": pull[-1]}
    lacking = f"a container registry, or root and {', '.join(missing) or 'nothing else'}"
    if os.environ.get("CI"):
        pytest.fail(f"CI needs podman and {lacking}")
    pytest.skip(f"building images needs podman and {lacking}")


def _find(tool: str) -> str | None:
    return shutil.which(tool, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")


@pytest.fixture(scope="module")
def told(environment: dict[str, str]) -> Iterator[str]:
    """What ``make images`` prints about the sets that are built here, tagged so that no other build is in the way."""
    environment["TELECINE_IMAGE_TAG"] = f"test-{os.getpid()}"
    environment["TELECINE_CONTAINER_ENGINE"] = "podman"
    done = subprocess.run([*BUILD, *BUILT], env=environment, capture_output=True, text=True, timeout=GRACE_S)
    assert done.returncode == 0, done.stderr[-4000:]
    yield done.stdout
    names = [images.name(image_set, environment) for image_set in BUILT]
    subprocess.run(["podman", "rmi", "--force", *names], env=environment, capture_output=True, check=True)


def inside(environment: dict[str, str], image_set: str, *command: str, text: str = "") -> str:
    """What a command says in an image under an arbitrary user id, with nothing to write to but /tmp."""
    limits = ["--user", "54321:0", "--read-only", "--tmpfs", "/tmp", "--network", "none"]  # noqa: S108
    run = ["podman", "run", "--rm", "--interactive", *limits, images.name(image_set, environment), *command]
    done = subprocess.run(run, env=environment, input=text, capture_output=True, text=True, timeout=GRACE_S)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("image_set", BUILT)
def test_an_image_knows_every_component(told: str, environment: dict[str, str], image_set: str) -> None:
    listed = inside(environment, image_set, "telecine", "list")
    assert re.findall(r"^(\w+\.\w+) ", listed, re.MULTILINE) == component.names()
    assert "videos_uri" in inside(environment, image_set, "telecine", "describe", "curate.split")


@pytest.mark.parametrize("image_set", BUILT)
def test_an_image_keys_work_as_the_checkout_does(told: str, environment: dict[str, str], image_set: str) -> None:
    specs = [component.find(name) for name in component.names()]
    outside = {spec.name: source.combined(source.module_digests(spec.entry_module)) for spec in specs}
    assert json.loads(inside(environment, image_set, "python", "-", text=DIGESTS)) == outside


def test_an_image_loads_every_component_of_its_set(told: str, environment: dict[str, str]) -> None:
    expected = [name for name in component.names() if component.find(name).image == "curate"]
    loaded = inside(environment, "curate", "python", "-", "curate", text=LOADED)
    assert loaded.split() == [word for name in expected for word in (name, "True")]


def test_the_exporter_and_ray_are_where_they_are_needed(told: str, environment: dict[str, str]) -> None:
    inside(environment, "monitor", "python", "-c", "import prometheus_client, pynvml, telecine.monitor.exporter")
    # KubeRay starts Ray through a login shell, which forgets the PATH that the image sets.
    assert inside(environment, "curate", "bash", "-lc", "command -v ray telecine").split() == [
        "/opt/telecine/bin/ray",
        "/opt/telecine/bin/telecine",
    ]


@pytest.mark.parametrize("image_set", BUILT)
def test_an_image_holds_no_leftover_of_its_build(told: str, environment: dict[str, str], image_set: str) -> None:
    named = " -o ".join(f"-name '{name}'" for name in ("*.whl", ".cache", ".git", "test_repository.py"))
    # Debian's venv and Ray's virtualenv carry wheels of pip for those who make environments.
    search = f"find / -xdev \\( {named} \\) ! -path '/usr/share/*' ! -path '*/virtualenv/*'"
    left = inside(environment, image_set, "sh", "-c", f"({search}; ls -d /build /etc/pip.conf) 2>/dev/null; true")
    assert left == ""
    installed = "from importlib.metadata import distributions as d; print(*sorted(x.name.lower() for x in d()))"
    names = inside(environment, image_set, "/opt/telecine/bin/python", "-c", installed).split()
    assert {"mlflow", "pip", "hatchling", "torch"} & set(names) == set()
    assert {"telecine", "mlflow-skinny"} <= set(names)


@pytest.mark.parametrize("image_set", BUILT)
def test_an_image_runs_as_its_own_user(told: str, environment: dict[str, str], image_set: str) -> None:
    inspected = ["podman", "image", "inspect", images.name(image_set, environment)]
    found: Any = json.loads(subprocess.run(inspected, env=environment, capture_output=True, check=True).stdout)[0]
    assert found["Config"]["User"] == "10001:10001"
    assert found["Labels"]["org.opencontainers.image.title"] == f"telecine-{image_set}"
    assert re.fullmatch(r"[0-9a-f]{40}(-dirty)?|", found["Labels"]["org.opencontainers.image.revision"])


@pytest.mark.parametrize("image_set", BUILT)
def test_an_image_is_no_larger_than_what_is_in_it(told: str, environment: dict[str, str], image_set: str) -> None:
    line = next(line for line in told.splitlines() if line.startswith(images.name(image_set, environment)))
    found = re.search(r"([\d.]+) MiB = base ([\d.]+) \+ telecine ([\d.]+) \+ (.+)  \(built in", line)
    assert found
    parts = [float(part.split()[-1]) for part in found[4].split(" + ")]
    assert sum([float(found[2]), float(found[3]), *parts]) == pytest.approx(float(found[1]), abs=1.0)
    assert float(found[1]) < LIMITS_MIB[image_set]
