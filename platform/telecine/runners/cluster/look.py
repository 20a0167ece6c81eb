"""One look at a job: the object, its pods, and whatever the cluster can tell about why it waits."""

import dataclasses
from typing import Any

from telecine.errors import InputError, RetryLater
from telecine.kube import QUEUE_LABEL, Ref
from telecine.runners.cluster.answers import Object, about, at, objects, text
from telecine.runners.cluster.api import Api, NoLog
from telecine.runners.cluster.words import Seen, state

KUEUE = "/apis/kueue.x-k8s.io/v1beta2"
VISIBILITY = "/apis/visibility.kueue.x-k8s.io/v1beta2"
PENDING = ("refused", "queued", "starting")
"""Phases in which a job waits, and its reason is worth more questions."""
MAX_PODS = 4
"""Pods of one job whose events and words a look asks for; the others of a large job say the same."""


def gather(api: Api, ref: Ref, manifest: dict[str, Any]) -> Seen:
    """Everything that the words of :mod:`telecine.runners.cluster.words` are made of.

    Raises:
        RetryLater, InputError: the object or its pods could not be asked for; all else is left out where it lacks.
    """
    job = api.get(ref)
    label = manifest["metadata"]["labels"]["telecine.io/key"]
    listed = api.items(f"/api/v1/namespaces/{ref.namespace}/pods", labelSelector=f"telecine.io/key={label}")
    bare = Seen(job=job, pods=[pod for pod in listed if belongs(pod, ref)])
    if job is None:
        return bare
    queue = text(job, "metadata", "labels", QUEUE_LABEL)
    if queue or at(job, "spec", "suspend"):
        bare = dataclasses.replace(bare, workload=_workload(api, ref, job))
        queue = queue or text(bare.workload, "spec", "queueName")
    phase = state(bare).phase
    if phase not in PENDING:
        return bare
    seen = dataclasses.replace(bare, events=_events(api, ref, job, bare.pods))
    return dataclasses.replace(seen, **_queue(api, ref, queue)) if queue and phase == "queued" else seen


def belongs(pod: Object, ref: Ref) -> bool:
    """Whether a pod is of this job: what the operators make for a job begins with its name.

    A selector alone would not do: the pods of every number at one key carry the same labels.
    """
    return text(pod, "metadata", "name").startswith(f"{ref.name}-")


def has_failed(pod: Object) -> bool:
    """Whether a pod, or a container of it, ended otherwise than well."""
    return text(pod, "status", "phase") == "Failed" or bool(_ended_badly(pod))


def last_words(api: Api, namespace: str, pod: Object) -> tuple[list[tuple[str, str]], bool]:
    """By container, what it wrote and what it left as termination message; and whether that is all there is.

    It is not where node or API server do not give a log now: the cause stands in its place.
    """
    words, whole = [], True
    for status in _ended_badly(pod):
        name, message = text(status, "name"), text(status, "state", "terminated", "message")
        try:
            said = api.log(namespace, text(pod, "metadata", "name"), name)
        except NoLog as error:
            said = f"its log is not kept any more: {error}"
        except (InputError, RetryLater) as error:
            said, whole = f"its log cannot be read: {error}", False
        words.append((name, said if message.strip() in said else f"{said}\n{message}"))
    return words, whole


def _ended_badly(pod: Object) -> list[Object]:
    """Statuses of containers that ended with another code than 0."""
    kinds = ("initContainerStatuses", "containerStatuses")
    statuses = [status for kind in kinds for status in objects(pod, "status", kind)]
    return [status for status in statuses if at(status, "state", "terminated", "exitCode")]


def _events(api: Api, ref: Ref, job: Object, pods: list[Object]) -> list[Object]:
    """Events of the job, of what its operator named like it, and of a few pods; the newest last."""
    cluster = [text(job, "status", "rayClusterName")]
    node = [f"{ref.name}-node-0"] if ref.kind == "TrainJob" else []
    names = [ref.name, *cluster, *node, *(text(pod, "metadata", "name") for pod in pods[:MAX_PODS])]
    path = f"/api/v1/namespaces/{ref.namespace}/events"
    found = {}
    for name in filter(None, names):
        listed = api.optional(path, fieldSelector=f"involvedObject.name={name}") or {}
        for event in objects(listed, "items"):
            if about(event) == name:
                found[text(event, "metadata", "uid") or id(event)] = event
    return sorted(found.values(), key=_when)


def _when(event: Object) -> str:
    return text(event, "lastTimestamp") or text(event, "eventTime") or text(event, "metadata", "creationTimestamp")


def _workload(api: Api, ref: Ref, job: Object) -> Object | None:
    """Kueue's Workload of the job."""
    uid = text(job, "metadata", "uid")
    path = f"{KUEUE}/namespaces/{ref.namespace}/workloads"
    listed = api.optional(path, labelSelector=f"kueue.x-k8s.io/job-uid={uid}") or {}
    return next((one for one in objects(listed, "items") if _owned_by(one, uid)), None)


def _queue(api: Api, ref: Ref, queue: str) -> dict[str, Any]:
    """Who else waits in the queue, and what it may use."""
    waiting = api.optional(f"{VISIBILITY}/namespaces/{ref.namespace}/localqueues/{queue}/pendingworkloads")
    local = api.optional(f"{KUEUE}/namespaces/{ref.namespace}/localqueues/{queue}") or {}
    name = text(local, "spec", "clusterQueue")
    return {
        "pending": None if waiting is None else objects(waiting, "items"),
        "cluster_queue": api.optional(f"{KUEUE}/clusterqueues/{name}") if name else None,
    }


def _owned_by(found: Object, uid: str) -> bool:
    return any(text(owner, "uid") == uid for owner in objects(found, "metadata", "ownerReferences"))
