"""What Kueue says of a job that waits in its queue: the place, the quota that lacks, and who has to do what.

Its sentences are those of pkg/scheduler/flavorassigner and pkg/controller/core/workload_controller.go in
https://github.com/kubernetes-sigs/kueue, 0.19.
"""

import re
from collections.abc import Iterator

from telecine.kube import QUEUE_LABEL
from telecine.runners.cluster.answers import Object, Why, at, condition, holds, number, objects, ordinal, text

_LACKING = re.compile(r"insufficient unused quota for (\S+) in flavor (\S+), (\S+) more need")
_TOO_LARGE = re.compile(
    r"insufficient quota for (?P<resource>\S+) in flavor (?P<flavor>\S+), (?:previously considered podsets requests "
    r"\((?P<before>[^)]*)\) \+ current podset request \((?P<asked>[^)]*)\) > maximum capacity \((?P<most>[^)]*)\)"
    r"|request > maximum capacity \((?P<asked_alone>\S+) > (?P<most_alone>[^)]*)\))"
)
_TOPOLOGY = re.compile(r'topology "([^"]+)" (?:allows to fit only (\d+) out of|doesn\'t allow to fit any of) (\d+)')
_MAKING_ROOM = re.compile(r"Pending the preemption of (\d+) workload")
_MISFITS = (
    (re.compile(r"untolerated taint (.+?) in flavor ([^\s,;]+)"), "flavor {1} has a taint that is not tolerated: {0}"),
    (re.compile(r"flavor (\S+) doesn't match node affinity"), "flavor {0} does not fit the node selector"),
    (
        re.compile(r'Flavor "(\S+)" supports only TopologyAwareScheduling'),
        "flavor {0} wants a topology to be asked for",
    ),
    (re.compile(r"resource (\S+) unavailable in ClusterQueue"), "the queue gives out no {0}"),
    (re.compile(r"flavor (\S+) not found"), "flavor {0} does not exist"),
)
_BLOCKED = re.compile(r"(?P<kind>LocalQueue|ClusterQueue) (?P<name>\S*) ?(?P<what>doesn't exist|is inactive)")
_EVICTIONS = {
    "Preempted": "preempted",
    "PodsReadyTimeout": "its pods were not ready in the time that Kueue gives",
    "AdmissionCheck": "an admission check was withdrawn",
    "ClusterQueueStopped": "the cluster queue was stopped",
    "LocalQueueStopped": "the queue was stopped",
    "NodeFailures": "a node of it failed",
}
_PREEMPTIONS = {
    "InClusterQueue": "by a workload of higher priority",
    "InCohortReclamation": "by a queue that took its own quota back",
    "InCohortFairSharing": "for fair sharing between queues",
    "InCohortReclaimWhileBorrowing": "by a workload of higher priority that borrows",
}


def waiting(
    job: Object | None, workload: Object | None, pending: list[Object] | None, cluster_queue: Object | None
) -> Why:
    """Why a suspended job waits."""
    if workload is None:
        return _unseen(job)
    blocked = _taken_out(workload) or _blocked(workload)
    if blocked:
        return blocked
    if holds(workload, "Evicted"):
        why = _queued(job, workload, pending, cluster_queue, told=False)
        return Why(f"back in the queue, {_eviction(workload)}; {why.text}", why.hopeless)
    if holds(workload, "Admitted"):
        return Why("admitted by Kueue, which is about to start it")
    if holds(workload, "QuotaReserved"):
        return _checked(workload)
    return _queued(job, workload, pending, cluster_queue, told=True)


def evicted(workload: Object | None) -> bool:
    """Whether Kueue took the job's quota back and puts it into the queue again."""
    return holds(workload, "Evicted") or at(workload, "spec", "active") is False


def _unseen(job: Object | None) -> Why:
    """There is no Workload: Kueue has not come by yet, does not look after the job, or may not be read."""
    queue = text(at(job, "metadata", "labels"), QUEUE_LABEL)
    if not queue:
        return Why("suspended without a queue: name one as queue in the cluster's file, or resume the job by hand")
    return Why(
        f"waits for Kueue to take it into queue {queue}; if it stays so: is Kueue installed, does it manage this kind "
        "of job, is the queue's name right, may workloads be read?"
    )


def _taken_out(workload: Object) -> Why | None:
    """The workload was deactivated: it stays out of the queue until somebody puts it back."""
    if at(workload, "spec", "active") is not False and not holds(workload, "DeactivationTarget"):
        return None
    said = [text(condition(workload, kind), "message") for kind in ("DeactivationTarget", "Evicted", "QuotaReserved")]
    found = next((one for one in said if "deactivated" in one or "exceed" in one), "")
    cause = re.sub(r"^(?:The workload is deactivated)(?: due to)?:? *", "", found)
    because = f" ({cause})" if cause else ""
    name = text(workload, "metadata", "name")
    return Why(
        f"taken out of the queue{because}: mend the cause, then clear the task or set spec.active of workload {name}",
        hopeless=True,
    )


def _blocked(workload: Object) -> Why | None:
    """The queue itself takes nobody."""
    found = _BLOCKED.search(text(condition(workload, "QuotaReserved"), "message"))
    if not found:
        return None
    kind, name = ("queue" if found["kind"] == "LocalQueue" else "cluster queue"), found["name"] or "(no name)"
    if found["what"] == "is inactive":
        return Why(f"{kind} {name} is stopped or not set up; whoever looks after Kueue can open it")
    return Why(
        f"{kind} {name} does not exist: correct queue in the cluster's file, or create the {found['kind']}",
        hopeless=True,
    )


def _eviction(workload: Object) -> str:
    reason, said = (text(condition(workload, "Evicted"), key) for key in ("reason", "message"))
    words = _EVICTIONS.get(reason) or said or reason or "evicted"
    if reason == "Preempted":
        by = text(condition(workload, "Preempted"), "reason")
        return " ".join(part for part in (words, _PREEMPTIONS.get(by, "")) if part)
    if reason == "NodeFailures" and ": " in said:
        return f"{words} ({said.rpartition(': ')[2]})"
    return words


def _checked(workload: Object) -> Why:
    """Quota is reserved; what is awaited are the queue's admission checks, such as new nodes."""
    checks = [check for check in objects(workload, "status", "admissionChecks") if text(check, "state") != "Ready"]
    if not checks:
        return Why("has its quota; waits for Kueue to admit it")
    said = [f"{text(check, 'name')}: {text(check, 'message') or text(check, 'state').lower()}" for check in checks]
    return Why(f"has its quota; waits for admission check {'; '.join(said)}")


def _queued(
    job: Object | None,
    workload: Object,
    pending: list[Object] | None,
    cluster_queue: Object | None,
    *,
    told: bool,
) -> Why:
    """Place and quota; ``told`` is false where the message of the condition is that of an eviction."""
    said = text(condition(workload, "QuotaReserved"), "message")
    lacking = [(found[1], found[2]) for found in _LACKING.finditer(said)]
    place = _place(job, workload, pending, cluster_queue)
    used = _used(cluster_queue, lacking)
    quota = _quota(said)
    parts = [place, used or (quota.text if quota else "")]
    joined = ": ".join(part for part in parts if part)
    if room := _MAKING_ROOM.search(said):
        joined += f"{'; ' if joined else ''}{room[1]} of what runs must make room first"
    if joined:
        return Why(joined, quota.hopeless if quota else False)
    return Why(said if told and said else "waits for its turn")


def _place(job: Object | None, workload: Object, pending: list[Object] | None, cluster_queue: Object | None) -> str:
    """Where it stands; the API counts from 0, people from 1."""
    item = next((item for item in pending or [] if _is_of(item, job, workload)), None)
    here, there = number(item, "positionInLocalQueue"), number(item, "positionInClusterQueue")
    queue = f"queue {text(item, 'localQueueName') or text(workload, 'spec', 'queueName')}".rstrip()
    whole = f"cluster queue {text(cluster_queue, 'metadata', 'name')}".rstrip()
    places = [(here, queue)] if here == there else [(there, whole), (here, queue)]
    return ", ".join(f"{ordinal(place + 1)} in {name}" for place, name in places if place is not None)


def _is_of(item: Object, job: Object | None, workload: Object) -> bool:
    name, uid = text(workload, "metadata", "name"), text(job, "metadata", "uid")
    owners = [text(owner, "uid") for owner in objects(item, "metadata", "ownerReferences")]
    return bool(name and name == text(item, "metadata", "name")) or bool(uid and uid in owners)


def _used(cluster_queue: Object | None, lacking: list[tuple[str, str]]) -> str:
    """How much of what lacks is in use, where the cluster queue can be read."""
    nominal = dict(_amounts(cluster_queue, "nominalQuota", "spec"))
    reserved = dict(_amounts(cluster_queue, "total", "status"))
    told = []
    for wanted in dict.fromkeys(lacking):
        if wanted in nominal and wanted in reserved:
            told.append(f"{reserved[wanted]} of {nominal[wanted]} {wanted[0]} ({wanted[1]}) in use")
    return ", ".join(told)


def _amounts(cluster_queue: Object | None, key: str, part: str) -> Iterator[tuple[tuple[str, str], str]]:
    """Amounts of a cluster queue by resource and flavor: its quotas, or what is reserved of them."""
    groups = objects(cluster_queue, "spec", "resourceGroups") if part == "spec" else [{}]
    for group in groups:
        listed = objects(group, "flavors") if part == "spec" else objects(cluster_queue, "status", "flavorsReservation")
        for flavor in listed:
            for resource in objects(flavor, "resources"):
                amount = at(resource, key)
                if isinstance(amount, str | int):
                    yield (text(resource, "name"), text(flavor, "name")), str(amount)


def _quota(said: str) -> Why | None:
    """What keeps every flavor from fitting; hopeless where none of it goes away by itself."""
    waits = [f"{found[3]} more {found[1]} ({found[2]}) needed" for found in _LACKING.finditer(said)]
    if waits:
        return Why(f"quota: {', '.join(dict.fromkeys(waits))}")
    if found := _TOPOLOGY.search(said):
        fits = f"only {found[2]} of {found[3]}" if found[2] else f"none of {found[3]}"
        return Why(f"topology {found[1]}: {fits} pods fit close together now")
    never = [_too_large(found) for found in _TOO_LARGE.finditer(said)]
    never += [words.format(*found.groups()) for pattern, words in _MISFITS for found in pattern.finditer(said)]
    if not never:
        return None
    return Why(f"no quota can hold it: {'; '.join(never)}; ask for less, or have the queue changed", hopeless=True)


def _too_large(found: "re.Match[str]") -> str:
    asked, most = found["asked"] or found["asked_alone"], found["most"] or found["most_alone"]
    before = f" beside {found['before']}" if found["before"] not in (None, "0") else ""
    return f"it asks for {asked} {found['resource']} ({found['flavor']}){before}, the most is {most}"
