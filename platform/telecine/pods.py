"""The pod that runs a component: one template for a Job, a RayJob and a TrainJob. Data in, data out.

It passes Pod Security's ``restricted`` level, holds no secret, and carries the inputs in a variable, never through a
shell.
"""

import dataclasses
import hashlib
import re
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

from telecine import config, images
from telecine.cluster_profile import Profile
from telecine.errors import InputError
from telecine.launch import Launch

USER = 10001
CONTAINER = "component"
HOME = "/tmp"  # noqa: S108 - the only folder that a pod may write to, and its own
MOUNTS = {"tmp": HOME, "shm": "/dev/shm"}  # noqa: S108 - likewise
_WORD = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:-]*|--[a-z]+")

Manifest = dict[str, Any]


def check(launch: Launch) -> None:
    """Raise :class:`InputError` for an artifact that only this machine can read; settings checked store and tracker."""
    for field in dataclasses.fields(launch.inputs):
        value = getattr(launch.inputs, field.name)
        if config.is_artifact(type(launch.inputs), field.name) and value and urlsplit(value).scheme != "s3":
            raise InputError(
                f"{launch.component.name}: a pod cannot read {field.name}={value!r}, which lies on this machine's disk;"
                " copy it to a bucket and give its s3:// URI"
            )


def pod_template(launch: Launch, profile: Profile, avoid_nodes: Sequence[str] = ()) -> Manifest:
    """What every pod of a launch is made from, its command included."""
    here = profile.of(launch.component)
    spec: Manifest = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": here.grace_s,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [_container(launch, profile)],
        "volumes": _volumes(launch, profile),
        **_placement(launch, profile, avoid_nodes),
    }
    if here.service_account:
        spec["serviceAccountName"] = here.service_account
    if here.image_pull_secrets:
        spec["imagePullSecrets"] = [{"name": secret} for secret in here.image_pull_secrets]
    if here.pod_priority_class:
        spec["priorityClassName"] = here.pod_priority_class
    described = metadata(launch)
    if here.topology and profile.resources(launch.component).gpus:
        wish = "required" if here.topology_required else "preferred"
        described["annotations"][f"kueue.x-k8s.io/podset-{wish}-topology"] = here.topology
    return {"metadata": described, "spec": spec}


def escape(value: str) -> str:
    """A variable's value as the kubelet has to read it, which replaces ``$(NAME)`` and takes ``$$`` for ``$``."""
    return value.replace("$", "$$")


def _container(launch: Launch, profile: Profile) -> Manifest:
    here = profile.of(launch.component)
    container: Manifest = {
        "name": CONTAINER,
        "image": images.name(launch.component.image),
        "imagePullPolicy": here.image_pull_policy,
        "command": words(launch),
        "env": _variables(launch),
        "resources": _resources(launch, profile),
        "securityContext": _locked(),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [{"name": v["name"], "mountPath": MOUNTS[v["name"]]} for v in _volumes(launch, profile)],
    }
    if here.secret:
        container["envFrom"] = [{"secretRef": {"name": here.secret}}]
    return container


def _locked() -> Manifest:
    return {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
        "runAsNonRoot": True,
    }


def words(launch: Launch) -> list[str]:
    """The argv; Ray passes it through a shell, so nothing but plain words may be in it."""
    argv = launch.argv()
    for word in argv:
        if not _WORD.fullmatch(word):
            raise InputError(f"{launch.component.name}: {word!r} must be a plain word of letters, digits, _ . : and -")
    return argv


def _variables(launch: Launch) -> list[dict[str, str]]:
    variables = launch.variables() | {"TELECINE_HOME": f"{HOME}/telecine", "HOME": HOME}
    return [{"name": key, "value": escape(variables[key])} for key in sorted(variables)]


def _resources(launch: Launch, profile: Profile) -> Manifest:
    """Memory and GPUs are asked for and bounded alike; processors are bounded where the profile says so."""
    needs, here = profile.resources(launch.component), profile.of(launch.component)
    fixed = {"memory": f"{int(needs.memory_gib * 1024)}Mi"}
    if needs.gpus:
        fixed[here.gpu_resource] = str(needs.gpus)
    cpu = {"cpu": str(needs.cpus)}
    return {"requests": fixed | cpu, "limits": fixed | (cpu if here.cpu_limit else {})}


def _volumes(launch: Launch, profile: Profile) -> list[Manifest]:
    """Room for files; and shared memory, which counts as the pod's memory, where processes hand tensors over."""
    needs, here = profile.resources(launch.component), profile.of(launch.component)
    volumes: list[Manifest] = [{"name": "tmp", "emptyDir": {"sizeLimit": f"{int(here.scratch_gib * 1024)}Mi"}}]
    if needs.gpus or needs.ray_workers or launch.component.image == "train":
        size = f"{int(needs.memory_gib * 512)}Mi"
        volumes.append({"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": size}})
    return volumes


def _placement(launch: Launch, profile: Profile, avoid_nodes: Sequence[str]) -> Manifest:
    """Which nodes will do."""
    needs, here = profile.resources(launch.component), profile.of(launch.component)
    placement: Manifest = {}
    selector = dict(here.node_selector)
    tolerations = [
        {key: value for key, value in dataclasses.asdict(toleration).items() if value}
        for toleration in here.tolerations
    ]
    if needs.gpus:
        tolerations.append({"key": here.gpu_resource, "operator": "Exists", "effect": "NoSchedule"})
        if here.gpu_product:
            selector["nvidia.com/gpu.product"] = here.gpu_product
    if selector:
        placement["nodeSelector"] = selector
    if tolerations:
        placement["tolerations"] = tolerations
    if avoid_nodes:
        # By name: a node's hostname label may be another. A field takes one value; all fields of a term have to match.
        others = [{"key": "metadata.name", "operator": "NotIn", "values": [name]} for name in sorted(set(avoid_nodes))]
        required = {"nodeSelectorTerms": [{"matchFields": others}]}
        placement["affinity"] = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required}}
    return placement


def metadata(launch: Launch) -> Manifest:
    """Labels to find the pods of a run by, and as annotations the same words unabridged."""
    words = {"run": launch.run, "component": launch.component.name, "task": launch.task, "key": launch.key}
    labels = {f"telecine.io/{key}": label(value) for key, value in words.items()}
    return {
        "labels": {"app.kubernetes.io/managed-by": "telecine", **labels},
        "annotations": {f"telecine.io/{key}": value for key, value in words.items()},
    }


def label(text: str) -> str:
    """A text as a label's value; what is no legal one keeps its beginning, and a digest tells it from others."""
    plain = text.replace(".", "-")
    if re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9_-]{0,61}[A-Za-z0-9])?", plain):
        return plain
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    stem = re.sub(r"[^A-Za-z0-9]+", "-", text).strip("-")[:50].rstrip("-")
    return f"{stem}-{digest}".lstrip("-")
