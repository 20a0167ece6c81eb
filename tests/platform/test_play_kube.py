"""The pod that the cluster runner asks for, run for real by ``podman play kube``.

podman 4.3 takes the pod template as it is but for five things, which :func:`playable` changes: it does not replace
``$(NAME)`` in variables as the kubelet does; it keeps an emptyDir as a volume of that name for all pods; it makes none
in memory, but has shared memory of its own; a Secret lives in its own store; and only the host's network leads to the
servers of this test.
"""

import base64
import copy
import dataclasses
import json
import os
import re
import secrets
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from telecine import component, images, kube, pods
from telecine.cluster_profile import Profile, Toleration
from telecine.component import Component, Resources
from telecine.config import param
from telecine.launch import INPUTS, Launch
from telecine.runners import process
from telecine.settings import Settings
from telecine.storage import Store
from telecine.work import address, commits
from telecine.work.digests import Digests

DRILLS = Path(__file__).parents[2] / "infra" / "drills"
RENDER = component.find("backlot.render")
TINY = {"num_films": 2, "num_frames": 8, "width_px": 48, "height_px": 32}
NASTY = "$(HOME) $$(HOME) $HOME `id` ; rm -rf / \"'\\ \n\t \u00e9\U0001f3ac $(echo no) ${HOME}"
PROFILE = Profile(
    service_account="telecine-component",
    image_pull_policy="Never",
    node_selector={"zone": "a"},
    tolerations=(Toleration(key="spot"),),
    topology="rack",
    pod_priority_class="urgent",
)
TIMEOUT_S = 180


def podman(*words: str, text: str = "") -> "subprocess.CompletedProcess[str]":
    """Call podman to its end."""
    return subprocess.run(["podman", *words], input=text, capture_output=True, text=True, timeout=TIMEOUT_S)


def need(there: bool, what: str) -> None:
    """Skip without a tool, but never in CI."""
    if not there:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(what)


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The image of ``backlot.render``, with the code of this checkout; the environment leads podman to run it."""
    need(shutil.which("podman") is not None, "there is no podman")
    before = dict(os.environ)
    os.environ |= {"TELECINE_CONTAINER_ENGINE": "podman"}
    try:
        command = [sys.executable, str(DRILLS / "container_images.py"), RENDER.image]
        ready = subprocess.run(command, capture_output=True, text=True, timeout=1800)
        assert ready.returncode == 0, ready.stderr
        if ready.stdout.strip():
            lent = for_pods(Path(ready.stdout.strip()).read_text())
            settings = tmp_path_factory.mktemp("podman") / "containers.conf"
            settings.write_text(lent)
            os.environ |= {"CONTAINERS_CONF": str(settings)}
        yield images.name(RENDER.image)
    finally:
        os.environ.clear()
        os.environ.update(before)


def for_pods(settings: str) -> str:
    """Podman's settings with equal limits ``NAME=SOFT:HARD``: podman 4.3 takes one for the other in a pod."""
    return re.sub(r"(?<==)\d+:(\d+)", r"\1:\1", settings)


@pytest.fixture
def tracker(empty_tracker: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """URI of an MLflow server behind a login; who is let in stands in the environment."""
    monkeypatch.syspath_prepend(str(DRILLS))
    from mlflow_server import MlflowServer

    data = tmp_path / "data"
    data.mkdir()
    shutil.copy(empty_tracker, data / "mlflow.db")
    server = MlflowServer(tmp_path, data, user="admin", password=secrets.token_urlsafe(16))
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    with server.running(dict(os.environ)):
        yield server.environment["TELECINE_TRACKING_URI"]


@pytest.fixture
def play(tmp_path: Path) -> Callable[..., Any]:
    """Run a pod to its end: ``play(template) -> (exit code, log, what podman says of the container)``."""
    return lambda template: _play(template, tmp_path / "pod.yaml")


def _play(template: dict[str, Any], file: Path) -> tuple[int, str, dict[str, Any]]:
    name = f"telecine-test-{secrets.token_hex(4)}"
    container = f"{name}-{pods.CONTAINER}"
    file.write_text(yaml.safe_dump(playable(template, name), allow_unicode=True))
    podman("secret", "create", name, "-", text=secret_of(os.environ))
    try:
        played = podman("play", "kube", str(file))
        assert played.returncode == 0, played.stderr
        code = int(podman("wait", container).stdout)
        said = podman("logs", container)
        [found] = json.loads(podman("inspect", container).stdout)
        return code, said.stdout + said.stderr, found
    finally:
        podman("pod", "rm", "--force", "--time=5", name)
        podman("volume", "rm", "--force", f"{name}-tmp")
        podman("secret", "rm", name)


def secret_of(environment: Any) -> str:
    """The Secret as podman keeps it: names and values in base64."""
    held = {name: environment[name] for name in kube.CREDENTIALS if name in environment}
    return json.dumps({name: base64.b64encode(value.encode()).decode() for name, value in held.items()})


def playable(template: dict[str, Any], name: str) -> dict[str, Any]:
    """The template as a Pod for podman; see the module."""
    made = copy.deepcopy(template)
    spec, [container] = made["spec"], made["spec"]["containers"]
    spec["hostNetwork"] = True
    container["envFrom"] = [{"secretRef": {"name": name}}]
    given: dict[str, str] = {}
    for each in container["env"]:
        each["value"] = given[each["name"]] = as_the_kubelet_reads(each["value"], given)
    spec["volumes"] = [volume for volume in spec["volumes"] if "medium" not in volume["emptyDir"]]
    kept = {volume["name"] for volume in spec["volumes"]}
    container["volumeMounts"] = [mount for mount in container["volumeMounts"] if mount["name"] in kept]
    for each in [*spec["volumes"], *container["volumeMounts"]]:
        each["name"] = f"{name}-{each['name']}"
    return {"apiVersion": "v1", "kind": "Pod", "metadata": made["metadata"] | {"name": name}, "spec": spec}


def as_the_kubelet_reads(text: str, given: dict[str, str]) -> str:
    """A variable's value by the rules of Kubernetes: ``$(NAME)`` of those before it, and ``$$`` for one ``$``."""
    return re.sub(r"\$\$|\$\(([^)]*)\)", lambda found: "$" if found[0] == "$$" else given.get(found[1], found[0]), text)


def launch_of(found: Component, here: Settings) -> Launch:
    """A tiny call, as an Airflow task makes it."""
    inputs = found.parse(TINY)
    key = address.resolve(found, inputs, store=Store(here.store_uri), digests=Digests(here.home), run="pods").key
    return Launch(component=found, inputs=inputs, run="pods", task="backlot.render", key=key, settings=here)


def commit_of(launch: Launch) -> dict[str, Any]:
    """What a launch committed, but for what differs between any two attempts."""
    record = commits.read(Store(launch.settings.store_uri), f"{launch.prefix}/commit.json")
    assert record is not None
    assert record["files"]
    differing = {"attempt", "committed", "mlflow_run_id", "provenance", "seconds"}
    same = {name: value for name, value in record.items() if name not in differing}
    return json.loads(json.dumps(same).replace(record["attempt"], "ATTEMPT"))


def head_of(launch: Launch) -> dict[str, Any]:
    """The head of a RayJob's cluster with what KubeRay gives it to do, and then its submitter."""
    spec = kube.manifest(launch, PROFILE, 1)["spec"]
    group = spec["rayClusterSpec"]["headGroupSpec"]
    options = " ".join(f"--{name}={value}" for name, value in group["rayStartParams"].items())
    start = f"ray start --head --disable-usage-stats {options}"
    template: dict[str, Any] = copy.deepcopy(group["template"])
    [container] = template["spec"]["containers"]
    container["command"] = ["bash", "-c", f"{start} && ray job submit -- {spec['entrypoint']}"]
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(16)}
    container["env"] += [{"name": name, "value": value} for name, value in token.items()]
    return template


def test_pods_leave_the_commit_that_a_process_leaves(
    image: str, s3_store: str, tracker: str, tmp_path: Path, play: Callable[..., Any]
) -> None:
    here = Settings(home=tmp_path / "home", store_uri=f"{s3_store}/process", tracking_uri=tracker)
    expected = launch_of(RENDER, here)
    assert process.start(expected).wait(TIMEOUT_S) == 0

    launch = launch_of(RENDER, dataclasses.replace(here, store_uri=f"{s3_store}/job"))
    code, log, found = play(kube.pod_template(launch, PROFILE, ["broken-node"]))
    assert code == 0, log
    assert commit_of(launch) == commit_of(expected)
    assert found["HostConfig"]["ReadonlyRootfs"] is True
    assert found["Config"]["User"].partition(":")[0] == str(pods.USER)
    assert found["EffectiveCaps"] in (None, [])
    assert "no-new-privileges" in found["HostConfig"]["SecurityOpt"]
    assert found["HostConfig"]["Memory"] == RENDER.resources.memory_gib * 2**30

    fanned = dataclasses.replace(RENDER, resources=Resources(memory_gib=4.0, ray_workers=1))
    launch = launch_of(fanned, dataclasses.replace(here, store_uri=f"{s3_store}/ray"))
    code, log, _ = play(head_of(launch))
    assert code == 0, log
    assert commit_of(launch) == commit_of(expected)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inputs:
    """Of a toy."""

    text: str = param("a", help="A text.")


def test_inputs_arrive_byte_by_byte(image: str, play: Callable[..., Any], tmp_path: Path) -> None:
    toy = Component(name="toy.say", inputs=Inputs, outputs=Inputs, entry="a:b", image=RENDER.image)
    here = Settings(home=tmp_path, store_uri="s3://bucket/store", tracking_uri="http://127.0.0.1:9")
    launch = Launch(component=toy, inputs=Inputs(text=NASTY), run="a", task="b", key="0" * 32, settings=here)
    template = kube.pod_template(launch, PROFILE)
    program = f"import os, sys; sys.stdout.buffer.write(os.environb[b'{INPUTS}'])"
    template["spec"]["containers"][0]["command"] = ["python", "-c", program]
    code, log, _ = play(template)
    assert code == 0, log
    assert log == launch.variables()[INPUTS]
    assert json.loads(log) == {"text": NASTY}
