"""What the Kubernetes API said about a job, in plain words: a Job, a RayJob or a TrainJob.

Nothing here calls the API, and no answer of it makes a function here raise: what is not understood is told in the API's
own words. Success is said only where the API says it in full.
"""

import dataclasses
import re
from dataclasses import dataclass, field

from telecine.errors import HardwareFault
from telecine.runners.cluster import endings, kueue, pods, rayjobs
from telecine.runners.cluster.answers import Object, Why, at, condition, holds, line, number, text

_CODE = re.compile(r"exit code (\d+)")


@dataclass(frozen=True, kw_only=True)
class Seen:
    """One look at a job; what could not be read is None or empty.

    Attributes:
        job: the Job, RayJob or TrainJob; None where the API answered 404.
        pods: those of the job, in any order.
        events: of the job and its pods, the newest last.
        workload: Kueue's Workload of the job.
        pending: items of the visibility API of the job's LocalQueue.
        cluster_queue: the ClusterQueue behind that LocalQueue.
    """

    job: Object | None
    pods: list[Object] = field(default_factory=list)
    events: list[Object] = field(default_factory=list)
    workload: Object | None = None
    pending: list[Object] | None = None
    cluster_queue: Object | None = None


@dataclass(frozen=True, kw_only=True)
class State:
    """What a look amounts to.

    Attributes:
        phase: ``refused`` no pod may be made now; ``queued``; ``starting``, also again after a disruption; ``running``;
            ``succeeded``; ``failed``; ``gone`` or going.
        reason: one line that a person understands, with what to do where there is something to do. It stays the same
            from look to look while nothing changes.
        hopeless: waiting does not mend it.
        code: exit code of the component where the API still tells it.
        node: where it runs, or where that happened which the reason tells.
        hardware: the machine is to blame.
    """

    phase: str
    reason: str
    hopeless: bool = False
    code: int | None = None
    node: str = ""
    hardware: bool = False


def state(seen: Seen) -> State:
    """The state of the job, by what the API said of it and of what belongs to it."""
    if seen.job is None:
        return _gone(seen, "there is no such object: it was deleted, or its time after the end is over")
    if _failed(seen.job):
        return _failure(seen)
    if _succeeded(seen.job):
        return _state("succeeded", Why("done"), node=_node(seen.pods))
    if text(seen.job, "metadata", "deletionTimestamp"):
        return _gone(seen, "being deleted, not by this task")
    if _suspended(seen.job) or kueue.evicted(seen.workload):
        return _state("queued", kueue.waiting(seen.job, seen.workload, seen.pending, seen.cluster_queue))
    return _ray(seen) if _is_ray(seen.job) else _going(seen)


def _state(phase: str, why: Why, *, node: str = "", end: endings.End | None = None) -> State:
    if end is None:
        return State(phase=phase, reason=line(why.text), hopeless=why.hopeless, node=node)
    return State(
        phase=phase,
        reason=line(why.text),
        hopeless=why.hopeless,
        code=end.code,
        node=end.node or node,
        hardware=end.hardware,
    )


def _is_ray(job: Object | None) -> bool:
    """Whether it is a RayJob; where the kind is missing, as in items of a list, its fields tell."""
    if kind := text(job, "kind"):
        return kind == "RayJob"
    return bool(at(job, "spec", "rayClusterSpec") or rayjobs.deployment(job))


def _failed(job: Object) -> bool:
    return rayjobs.failed(job) if _is_ray(job) else holds(job, "Failed")


def _succeeded(job: Object) -> bool:
    return rayjobs.succeeded(job) if _is_ray(job) else holds(job, "Complete") or holds(job, "SuccessCriteriaMet")


def _suspended(job: Object) -> bool:
    return (
        at(job, "spec", "suspend") is True or holds(job, "Suspended") or rayjobs.deployment(job).startswith("Suspend")
    )


def _node(seen: list[Object]) -> str:
    return next((name for pod in seen if (name := text(pod, "spec", "nodeName"))), "")


def _gone(seen: Seen, words: str) -> State:
    end = endings.of(seen.pods)
    told = f"{words}; its pod: {end.text}" if end else words
    return _state("gone", Why(told), node=_node(seen.pods), end=end)


# The end


def _failure(seen: Seen) -> State:
    """Why a job failed: its pods know most, then its own message, then the bare reason."""
    reason, said = _verdict(seen.job)
    found = _CODE.search(said)
    code = int(found[1]) if found else None
    end = rayjobs.end_of(seen.pods) if _is_ray(seen.job) else endings.of(seen.pods)
    if end is None or end.code is None:
        hardware = code == HardwareFault.exit_code or bool(end and end.hardware)
        words = end.text if end else _told(seen, reason, said, code)
        end = endings.End(text=words, code=code, node=end.node if end else _node(seen.pods), hardware=hardware)
    ran_out = reason == "DeadlineExceeded"  # of its time: another attempt would have as much again
    if ran_out:
        end = dataclasses.replace(end, text=_too_long(seen.job), hardware=False)
    return _state("failed", Why(end.text, hopeless=ran_out), end=end)


def _verdict(job: Object | None) -> tuple[str, str]:
    """Reason and message of the failure."""
    found = at(job, "status") if _is_ray(job) else condition(job, "Failed")
    return text(found, "reason"), text(found, "message")


def _told(seen: Seen, reason: str, said: str, code: int | None) -> str:
    """The job's own words for its failure, where no pod has any."""
    if _is_ray(seen.job) and (words := rayjobs.why_failed(reason, said, code)):
        return words
    if code is not None:
        return endings.words_of(code)
    if reason == "BackoffLimitExceeded":
        return "it failed, and no pod is left to say why; its log in the store may"
    if reason == "TrainingRuntimeNotSupported":
        return f"its training runtime cannot be used: {said}; install it, or correct runtime in the cluster's file"
    return ": ".join(part for part in (reason, said) if part) or "it failed without saying why"


def _too_long(job: Object | None) -> str:
    most = number(job, "spec", "activeDeadlineSeconds")
    limit = f" of {most} s" if most is not None else ""
    return f"it ran longer than its limit{limit}: raise max_run_s, or make the work smaller"


# On the way


def _going(seen: Seen) -> State:
    """A Job or TrainJob that is neither at its end nor in a queue, or a RayJob whose pods are not up yet."""
    alive, lost = endings.alive(seen.pods), endings.disruption(seen.pods)
    up = [pod for pod in alive if text(pod, "status", "phase") == "Running"]
    num_done = sum(text(pod, "status", "phase") == "Succeeded" for pod in seen.pods)
    wanted = max(len(alive), (number(seen.job, "spec", "trainer", "numNodes") or 0) - num_done)
    if closing := _closing(seen, lost):
        return closing
    if up and len(up) == wanted:
        return _running(up)
    if not alive and (refused := pods.refused(seen.events)):
        return _state("refused", refused, end=lost)
    why = _why(seen, [pod for pod in alive if pod not in up])
    told = f"{len(up)} of {wanted} pods run; {why.text}" if up else why.text
    told = f"{lost.text}; starting again: {told}" if lost else told
    return _state("starting", Why(told, why.hopeless), node=_node(alive), end=lost)


def _closing(seen: Seen, lost: endings.End | None) -> State | None:
    """A pod is at its end, and the job has not said yet what that makes of it."""
    target = condition(seen.job, "FailureTarget")
    end = endings.of(seen.pods)
    if text(target, "status") == "True":
        told = end.text if end else text(target, "message") or text(target, "reason")
        return _state("running", Why(f"about to be called failed: {told}"), node=_node(seen.pods), end=end)
    if end and not lost and not _is_ray(seen.job):
        return _state("running", Why(f"a pod ended: {end.text}"), end=end)
    if seen.pods and all(text(pod, "status", "phase") == "Succeeded" for pod in seen.pods):
        return _state("running", Why("its pods are done, about to be called complete"), node=_node(seen.pods))
    return None


def _why(seen: Seen, waiting: list[Object]) -> Why:
    """Why these pods wait: first what is hopeless, then what has a cause."""
    whys = [pods.waiting(pod, seen.events) for pod in waiting]
    if whys:
        return max(whys, key=lambda why: (why.hopeless, ":" in why.text))
    if any(text(pod, "metadata", "deletionTimestamp") and not endings.disrupted(pod) for pod in seen.pods):
        return Why("a pod of it was deleted; another one follows")
    return pods.refused(seen.events) or Why("a pod is about to be made")


def _running(up: list[Object]) -> State:
    silent = [pod for pod in up if text(condition(pod, "Ready"), "status") == "False"]
    node = _node(silent) or _node(up)
    told = f"runs in {len(up)} pods" if len(up) > 1 else f"runs on node {node}" if node else "runs"
    if silent:
        ready = condition(silent[0], "Ready")
        told += f", not ready: {text(ready, 'message') or text(ready, 'reason') or 'no cause is told'}"
    return _state("running", Why(told), node=node)


def _ray(seen: Seen) -> State:
    """A RayJob that is neither at its end nor in a queue."""
    alive, status = endings.alive(seen.pods), text(seen.job, "status", "jobStatus")
    waiting = [pod for pod in alive if text(pod, "status", "phase") != "Running"]
    node = rayjobs.head_node(alive) or _node(alive)
    if rayjobs.deployment(seen.job) == "Retrying":
        said = text(seen.job, "status", "message")
        return _state("starting", Why(f"starting again, KubeRay makes a new Ray cluster: {said}".rstrip(": ")))
    if status == "RUNNING":
        if lost := rayjobs.head_lost(seen.job, seen.pods):
            return _state("starting", Why(lost.text, hopeless=True), node=node, end=lost)
        some = f"; {len(waiting)} of {len(alive)} pods wait: {_why(seen, waiting).text}" if waiting else ""
        return _state("running", Why(f"runs on Ray{some}"), node=node)
    if status in ("SUCCEEDED", "FAILED", "STOPPED"):
        return _state("running", Why(f"Ray says {status}; KubeRay is about to close the job"), node=node)
    if not alive or waiting:
        return _going(seen)
    if refused := pods.refused(seen.events):
        return _state(
            "starting", Why(f"{len(alive)} of its pods run; the next: {refused.text}", refused.hopeless), node=node
        )
    return _state("starting", Why("its pods are up; Ray has not started the job yet"), node=node)
