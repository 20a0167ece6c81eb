"""How a pod ended: its exit code in words, memory, eviction, a lost node.

Reasons of disruptions are those of https://kubernetes.io/docs/concepts/workloads/pods/disruptions/.
"""

import dataclasses
import re
from collections.abc import Iterator, Sequence

from telecine.errors import HardwareFault, InputError, RetryLater
from telecine.runners.cluster.answers import Object, at, condition, holds, last_line, number, objects, text

_CODES = {
    HardwareFault.exit_code: "hardware fault",
    RetryLater.exit_code: "try again later",
    InputError.exit_code: "inputs or credentials are wrong",
    137: "killed by SIGKILL",
    139: "crashed with a segmentation fault",
    143: "stopped by SIGTERM",
}
_KILLED = (137, 143)
_DISRUPTIONS = {
    "PreemptionByScheduler": "preempted by a pod of higher priority",
    "DeletionByTaintManager": "its node got a taint that drives pods away, as a lost or reclaimed node does",
    "DeletionByDeviceTaintManager": "its device was taken out of service",
    "EvictionByEvictionAPI": "its node is being drained",
    "DeletionByPodGC": "its node is gone",
}
_LOST = {"DeletionByTaintManager", "DeletionByDeviceTaintManager", "DeletionByPodGC"}
_LOW = re.compile(r"node was low on resource: ([\w-]+(?:\.[\w-]+)*)")
_OVER = re.compile(r"(?:exceeds the (?:total )?limit of containers|exceeds the limit) \"?(\w+)\"?")
_BAD_DEVICES = re.compile(r"devices? unavailable|unhealthy|no healthy devices", re.IGNORECASE)


@dataclasses.dataclass(frozen=True, kw_only=True)
class End:
    """How a pod ended or is being ended.

    Attributes:
        text: one line.
        code: exit code of the container that explains it.
        node: where the pod ran.
        hardware: the machine is to blame.
    """

    text: str
    code: int | None = None
    node: str = ""
    hardware: bool = False


def words_of(code: int) -> str:
    """An exit code with what it means, such as ``exit 75, try again later``."""
    return f"exit {code}, {_CODES[code]}" if code in _CODES else f"exit {code}"


def disrupted(pod: Object) -> End | None:
    """Why the cluster ends or ended a pod that did nothing wrong."""
    node, reason = text(pod, "spec", "nodeName"), text(condition(pod, "DisruptionTarget"), "reason")
    status, said = text(pod, "status", "reason"), text(pod, "status", "message")
    where = f" (node {node})" if node else ""
    if status == "NodeLost":
        return End(text=f"its node no longer answers{where}", node=node, hardware=True)
    if status in ("UnexpectedAdmissionError", "NodeAffinity") or status.startswith("OutOf"):
        return End(text=f"its node turned it away{where}: {said}", node=node, hardware=bool(_BAD_DEVICES.search(said)))
    if reason == "TerminationByKubelet" or status in ("Evicted", "Terminated", "NodeShutdown"):
        told = said or text(condition(pod, "DisruptionTarget"), "message")
        return End(text=f"{_by_kubelet(told)}{where}", code=_code(pod), node=node)
    if not holds(pod, "DisruptionTarget"):
        return None
    told = _DISRUPTIONS.get(reason) or text(condition(pod, "DisruptionTarget"), "message") or reason
    return End(text=f"{told}{where}", code=_code(pod), node=node, hardware=reason in _LOST)


def alive(pods: Sequence[Object]) -> list[Object]:
    """Pods that are neither at their end nor on their way there."""
    over = ("Succeeded", "Failed")
    going = [pod for pod in pods if not text(pod, "metadata", "deletionTimestamp") and not disrupted(pod)]
    return [pod for pod in going if text(pod, "status", "phase") not in over]


def disruption(pods: Sequence[Object]) -> End | None:
    """What the cluster did to a pod of a job that goes on."""
    return next((end for pod in pods if (end := disrupted(pod))), None)


def of(pods: Sequence[Object]) -> End | None:
    """The end that explains a failed job: of several pods, the first that ended by itself.

    Where one of many ranks fails, the others are killed for it; their 137 and 143 explain nothing. Nor does a pod that
    the cluster ended earlier, for which another one came: it counts where no pod ended otherwise.
    """
    ends = sorted(_ends(pods), key=lambda ranked: ranked[0])
    return ends[0][1] if ends else None


def _ends(pods: Sequence[Object]) -> Iterator[tuple[tuple[bool, bool, str], End]]:
    """Ends, each with what sorts those first that explain most; the unknown time comes last."""
    for pod in pods:
        failed = [(text(done, "finishedAt") or "~", done, status) for status, done in _failed(pod)]
        when, done, status = min(failed, key=lambda one: one[0]) if failed else ("~", {}, {})
        if end := disrupted(pod):
            yield (True, False, when), dataclasses.replace(end, code=None)  # what it was told to do explains nothing
        elif failed:
            end = _exited(pod, status, done)
            yield (False, end.code in _KILLED and "memory" not in end.text, when), end
        elif text(pod, "status", "phase") == "Failed":
            said = text(pod, "status", "message") or text(pod, "status", "reason") or "its pod failed"
            yield (False, False, when), End(text=said, node=text(pod, "spec", "nodeName"))


def _failed(pod: Object) -> Iterator[tuple[Object, Object]]:
    """Container statuses that ended badly, with how they ended."""
    for key in ("initContainerStatuses", "containerStatuses"):
        for status in objects(pod, "status", key):
            done = at(status, "state", "terminated")
            if number(done, "exitCode"):
                yield status, done


def _code(pod: Object) -> int | None:
    return next((number(done, "exitCode") for _, done in _failed(pod)), None)


def _exited(pod: Object, status: Object, done: Object) -> End:
    code, node = number(done, "exitCode") or 0, text(pod, "spec", "nodeName")
    said = last_line(text(done, "message"))
    if text(done, "reason") == "OOMKilled":
        limit = _memory(pod, text(status, "name"))
        most = f"its memory limit of {limit}" if limit else "its memory limit"
        return End(text=f"killed at {most}: raise memory_gib, or make the work smaller", code=code, node=node)
    if text(done, "reason") in ("StartError", "ContainerCannotRun"):
        return End(text=f"its container could not start: {said or words_of(code)}", code=code, node=node)
    hardware = code == HardwareFault.exit_code
    where = f" on node {node}" if hardware and node else ""
    told = f"{words_of(code)}{where}" + (f": {said}" if said else "")
    return End(text=told, code=code, node=node, hardware=hardware)


def _memory(pod: Object, container: str) -> str:
    found = [one for one in objects(pod, "spec", "containers") if text(one, "name") == container]
    return text(found[0], "resources", "limits", "memory") if found else ""


def _by_kubelet(said: str) -> str:
    """What a node says that ended a pod to save itself."""
    if "shutdown" in said:
        return "its node is shutting down"
    if found := _LOW.search(said):
        return f"evicted: its node ran out of {found[1]}"
    if found := _OVER.search(said):
        return f"evicted: it wrote more than its limit of {found[1]}; raise scratch_gib in the cluster's file"
    return f"evicted: {said}" if said else "evicted by its node"
