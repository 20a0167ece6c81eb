"""What KubeRay says of a RayJob; its words are those of ray-operator/apis/ray/v1/rayjob_types.go, KubeRay 1.6."""

from collections.abc import Sequence

from telecine.runners.cluster import endings
from telecine.runners.cluster.answers import Object, at, last_line, objects, text

_FAILURES = {
    "SubmissionFailed": "the job could not be handed to Ray",
    "ValidationFailed": "KubeRay refuses the RayJob",
    "JobStatusCheckTimeoutExceeded": "Ray no longer answers, its head is lost or stuck",
    "JobDeploymentStatusTransitionGracePeriodExceeded": "Ray's part ended without a result, its head may be lost",
}
_OF_THE_POD = ("memory", "evicted")


def deployment(job: object) -> str:
    """How far KubeRay is: Initializing, Running, Complete, Failed, Suspended, Retrying …"""
    return text(job, "status", "jobDeploymentStatus")


def failed(job: Object) -> bool:
    """Complete says that the Ray job ended, not how: whatever is not said to have succeeded has failed."""
    return deployment(job) in ("Failed", "ValidationFailed") or (deployment(job) == "Complete" and not succeeded(job))


def succeeded(job: Object) -> bool:
    """Whether KubeRay and Ray both say so."""
    return deployment(job) == "Complete" and text(job, "status", "jobStatus") == "SUCCEEDED"


def why_failed(reason: str, said: str, code: int | None) -> str:
    """A failure in words; Ray's message ends with the last lines of the driver's log."""
    told = last_line(said)
    if code is not None:
        return endings.words_of(code) + (f": {told}" if "\n" in said.strip() else "")
    return ": ".join(part for part in (_FAILURES.get(reason, ""), told) if part)


def end_of(pods: Sequence[Object]) -> endings.End | None:
    """A pod's end that explains the job's: the exits of submitter and workers only follow from the driver's."""
    end = endings.of(pods)
    return end if end and (end.hardware or any(word in end.text for word in _OF_THE_POD)) else None


def head_node(pods: Sequence[Object]) -> str:
    """Node of the head, on which the driver runs."""
    return next((text(pod, "spec", "nodeName") for pod in pods if _is_head(pod)), "")


def head_lost(job: object, pods: Sequence[Object]) -> endings.End | None:
    """The end of a head that took the driver with it, though KubeRay may go on to say that the job runs.

    See https://github.com/ray-project/kuberay/issues/4217.
    """
    heads = [pod for pod in pods if _is_head(pod)]
    since = text(job, "status", "rayJobInfo", "startTime")
    if not heads or any(_ran_before(pod, since) for pod in endings.alive(heads)):
        return None
    end = endings.of(heads)
    cause = f" ({end.text})" if end else ""
    words = f"Ray's head was lost{cause}, and the job with it; KubeRay has not noticed yet"
    return endings.End(text=words, node=end.node if end else "", hardware=bool(end and end.hardware))


def _is_head(pod: Object) -> bool:
    return text(at(pod, "metadata", "labels"), "ray.io/node-type") == "head"


def _ran_before(head: Object, since: str) -> bool:
    """Whether a head ran already when the job started; true where the API does not tell."""
    if text(head, "status", "phase") == "Pending":
        return False
    listed = (text(one, "state", "running", "startedAt") for one in objects(head, "status", "containerStatuses"))
    starts = [start for start in listed if start]
    return not since or not starts or min(starts) <= since
