"""What is asked of Kubernetes to run a component: a Job, a RayJob or a TrainJob. Data in, data out; no API is called.

The pods of all three are made in :mod:`telecine.pods`.
"""

import dataclasses
import re
import shlex
from collections.abc import Sequence
from typing import Any

from telecine import pods
from telecine.cluster_profile import Profile
from telecine.component import Resources
from telecine.errors import InputError
from telecine.launch import Launch
from telecine.pods import pod_template as pod_template

MAX_NAME = 47
"""The operators make longer names for what they own, of at most 63 characters."""
TRAINER_CONTAINER = "node"
"""Name that Kubeflow Trainer demands of the job and of the container that it fills in."""
DEMANDED = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
CREDENTIALS = (
    *DEMANDED,
    "AWS_SESSION_TOKEN",
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_S3",
    "AWS_REGION",
    "AWS_DEFAULT_REGION",
    "MLFLOW_TRACKING_USERNAME",
    "MLFLOW_TRACKING_PASSWORD",
    "MLFLOW_TRACKING_TOKEN",
    "TELECINE_SERVE_TOKEN",
    "TELECINE_STORE_RETRY_S",
)
"""Keys of the profile's Secret that a TrainJob looks for; the others take it as a whole."""
QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
PLURALS = {"Job": "jobs", "RayJob": "rayjobs", "TrainJob": "trainjobs"}
VERSIONS = {"Job": "batch/v1", "RayJob": "ray.io/v1", "TrainJob": "trainer.kubeflow.org/v1alpha1"}

Manifest = dict[str, Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ref:
    """Where an object lives in the API."""

    api_version: str
    kind: str
    plural: str
    namespace: str
    name: str


def ref(manifest: Manifest) -> Ref:
    """Where the object of a manifest lives."""
    kind, metadata = manifest["kind"], manifest["metadata"]
    return Ref(
        api_version=manifest["apiVersion"],
        kind=kind,
        plural=PLURALS[kind],
        namespace=metadata["namespace"],
        name=metadata["name"],
    )


def name(launch: Launch, number: int) -> str:
    """Name of the object of one attempt at a key, such as ``pretrain-train-3f2a9c1b04-2``.

    Args:
        number: of the cluster attempt at the key, from 1.
    """
    tail = f"-{launch.key[:10]}-{number}"
    stem = re.sub(r"[^a-z0-9]+", "-", launch.component.name.lower()).strip("-")
    return stem[: MAX_NAME - len(tail)].rstrip("-") + tail


def kind(launch: Launch, profile: Profile) -> str:
    """``Job``; ``RayJob`` where Ray fans the work out; ``TrainJob`` where several nodes train together."""
    needs = profile.resources(launch.component)
    if needs.ray_workers and needs.nodes > 1:
        raise InputError(
            f"{launch.component.name}: {needs.ray_workers} Ray workers and {needs.nodes} nodes exclude each other: "
            "a RayJob counts workers, a TrainJob nodes; declare one"
        )
    if needs.ray_workers:
        return "RayJob"
    return "TrainJob" if needs.nodes > 1 else "Job"


def manifest(launch: Launch, profile: Profile, number: int, avoid_nodes: Sequence[str] = ()) -> Manifest:
    """The object to create for one attempt at a launch's key.

    Args:
        number: of the attempt, from 1; see :func:`name`.
        avoid_nodes: names of nodes whose hardware failed before.

    Raises:
        InputError: what a pod could not reach, or would do twice.
    """
    pods.check(launch)
    here = profile.of(launch.component)
    made = kind(launch, profile)
    spec = {"Job": _job, "RayJob": _ray_job, "TrainJob": _train_job}[made](launch, profile, avoid_nodes)
    metadata: Manifest = {"name": name(launch, number), "namespace": here.namespace, **pods.metadata(launch)}
    metadata["labels"] |= _kueue(here)
    return {"apiVersion": VERSIONS[made], "kind": made, "metadata": metadata, "spec": spec}


def _kueue(here: Profile) -> dict[str, str]:
    labels = {QUEUE_LABEL: here.queue, "kueue.x-k8s.io/priority-class": here.priority_class}
    return {key: value for key, value in labels.items() if value and here.queue}


def _bounds(here: Profile) -> Manifest:
    """Waiting for a queue, and the limit of the time after it."""
    suspended = {"suspend": True} if here.queue else {}
    return suspended | ({"activeDeadlineSeconds": here.max_run_s} if here.max_run_s else {})


def _job(launch: Launch, profile: Profile, avoid_nodes: Sequence[str]) -> Manifest:
    """A lost node, an eviction and a preemption cost no attempt: the Job makes another pod, which goes on.

    Every other end is counted, and the first one fails the Job. A rule that fails it on an exit code would do so also
    where Kueue suspends the Job, because its controller holds such rules against the pods that it stops for that.
    """
    here = profile.of(launch.component)
    disrupted = {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}
    return {
        "backoffLimit": 0,
        "completions": 1,
        "parallelism": 1,
        "podFailurePolicy": {"rules": [disrupted]},
        "podReplacementPolicy": "Failed",
        "ttlSecondsAfterFinished": here.ttl_s,
        "template": pod_template(launch, profile, avoid_nodes),
        **_bounds(here),
    }


def _ray_job(launch: Launch, profile: Profile, avoid_nodes: Sequence[str]) -> Manifest:
    """The work runs on the head; the cluster is its own, and goes soon after it, because it holds the GPUs."""
    here, needs = profile.of(launch.component), profile.resources(launch.component)
    start = {"num-cpus": str(needs.cpus), "num-gpus": str(needs.gpus)}
    group = {"template": _ray_pod(launch, profile, avoid_nodes), "rayStartParams": start}
    count = needs.ray_workers
    cluster: Manifest = {
        "rayVersion": here.ray_version,
        "headGroupSpec": group,
        "workerGroupSpecs": [
            {"groupName": "workers", "replicas": count, "minReplicas": count, "maxReplicas": count, **group}
        ],
    }
    if here.ray_auth:
        cluster["authOptions"] = {"mode": "token"}
    return {
        "submissionMode": "K8sJobMode",
        "entrypoint": shlex.join(pods.words(launch)),
        "backoffLimit": 0,
        "shutdownAfterJobFinishes": True,
        "ttlSecondsAfterFinished": here.ray_linger_s,
        "rayClusterSpec": cluster,
        "submitterPodTemplate": _submitter(launch, profile, avoid_nodes),
        **_bounds(here),
    }


def _ray_pod(launch: Launch, profile: Profile, avoid_nodes: Sequence[str]) -> Manifest:
    """The pod template without its command, which KubeRay writes."""
    template = pod_template(launch, profile, avoid_nodes)
    del template["spec"]["containers"][0]["command"]
    return template


def _submitter(launch: Launch, profile: Profile, avoid_nodes: Sequence[str]) -> Manifest:
    """The pod that hands the entrypoint to the head: small, without inputs, credentials and GPUs."""
    light = dataclasses.replace(launch.component, resources=Resources())
    template = _ray_pod(dataclasses.replace(launch, component=light), profile.of(launch.component), avoid_nodes)
    container = template["spec"]["containers"][0]
    container["env"] = [{"name": "HOME", "value": pods.HOME}]
    container.pop("envFrom", None)
    return template


def _train_job(launch: Launch, profile: Profile, avoid_nodes: Sequence[str]) -> Manifest:
    """The pod template split: what a TrainJob says of its trainer, what it patches; all else is in its runtime."""
    here, needs = profile.of(launch.component), profile.resources(launch.component)
    for field, default in (("pod_priority_class", ""), ("image_pull_policy", "IfNotPresent")):
        if getattr(here, field) != default:
            raise InputError(
                f"{launch.component.name}: a TrainJob takes {field} from its ClusterTrainingRuntime, got "
                f'{getattr(here, field)!r}; write it in {here.runtime}, and {field} = "{default}" in '
                f'[components."{launch.component.name}"]'
            )
    template = pod_template(launch, profile, avoid_nodes)
    container = template["spec"]["containers"][0]
    return {
        "runtimeRef": {"apiGroup": "trainer.kubeflow.org", "kind": "ClusterTrainingRuntime", "name": here.runtime},
        "trainer": {
            "image": container["image"],
            "command": container["command"],
            "env": container["env"] + _credentials(here),
            "numNodes": needs.nodes,
            "numProcPerNode": max(1, needs.gpus),
            "resourcesPerNode": container["resources"],
        },
        "runtimePatches": [{"manager": "telecine.io/runner", "trainingRuntimeSpec": _patch(template)}],
        **_bounds(here),
    }


def _patch(template: Manifest) -> Manifest:
    spec, container = template["spec"], template["spec"]["containers"][0]
    fixed = ("restartPolicy", "automountServiceAccountToken", "enableServiceLinks", "containers")
    patched = {key: value for key, value in spec.items() if key not in fixed}
    kept = {key: container[key] for key in ("securityContext", "volumeMounts")}
    patched["containers"] = [{"name": TRAINER_CONTAINER, **kept}]
    pod = {"metadata": template["metadata"], "spec": patched}
    return {"template": {"spec": {"replicatedJobs": [{"name": "node", "template": {"spec": {"template": pod}}}]}}}


def _credentials(here: Profile) -> list[Manifest]:
    """A TrainJob has no ``envFrom``: each variable by name, of which the store's two keys must be there."""
    names = CREDENTIALS if here.secret else ()
    refs = [{"name": here.secret, "key": name, "optional": name not in DEMANDED} for name in names]
    return [{"name": each["key"], "valueFrom": {"secretKeyRef": each}} for each in refs]
