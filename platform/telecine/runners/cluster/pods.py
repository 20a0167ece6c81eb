"""Why a pod does not run yet: no node, no quota, no image, no secret, no volume.

The sentences are those of kubelet, kube-scheduler and the controllers in https://github.com/kubernetes/kubernetes.
"""

import re
from collections.abc import Sequence

from telecine.runners.cluster.answers import Object, Why, about, at, condition, last_line, message, objects, text

_BACK_OFF = re.compile(r'Back-off pulling image "[^"]*"(?:: (?:ErrImagePull: )?)?')
_IMAGE = re.compile(r'image "([^"]+)"')
_PULLS = (
    (
        "may require|(?:access|requested access).*denied",
        "no such image, or the registry wants a login; check the name (TELECINE_IMAGE_PREFIX, TELECINE_IMAGE_TAG) and "
        "image_pull_secrets in the cluster's file",
        True,
    ),
    (
        "unauthorized|denied|forbidden|authentication required|no basic auth|authorization failed",
        "the registry wants a login; name a Secret of it in image_pull_secrets of the cluster's file",
        True,
    ),
    ("toomanyrequests|too many requests|rate limit", "the registry limits how often one may pull", False),
    ("no space left", "the node's disk is full", False),
    (
        r"no such host|time-?d? ?out|connection refused|TLS handshake|deadline exceeded|unreachable|\bEOF\b",
        "the registry does not answer",
        False,
    ),
    ("x509|certificate", "the node does not trust the registry's certificate", False),
    (
        "not found|manifest unknown|does not exist|no match for platform",
        "no such image; push it, or correct TELECINE_IMAGE_PREFIX and TELECINE_IMAGE_TAG",
        True,
    ),
)
_QUOTA = re.compile(
    r"exceeded quota: (?P<name>[^,]+), requested: (?P<asked>.+?), used: (?P<used>.+?), limited: (?P<hard>.+)"
)
_MISSING = re.compile(r'(secret|configmap|serviceaccount|persistentvolumeclaim)s? "([^"]+)" not found')
_NODES = re.compile(r"^(\d+)/(\d+) nodes are available: (.*)", re.DOTALL)
_NODE_CAUSES = (
    (re.compile(r"(\d+) Insufficient (\S+?)$"), ("has too little free {0}", "have too little free {0}")),
    (
        re.compile(r"(\d+) node\(s\) had untolerated taints? \{(.+?):? *\}$"),
        ("has a taint not tolerated ({0})", "have a taint not tolerated ({0})"),
    ),
    (
        re.compile(r"(\d+) node\(s\) had untolerated taint\(s\)$"),
        ("has a taint not tolerated", "have a taint not tolerated"),
    ),
    (
        re.compile(r"(\d+) node\(s\) didn't match Pod's node affinity/selector$"),
        ("is of another kind", "are of another kind"),
    ),
    (re.compile(r"(\d+) node\(s\) (?:were|was) unschedulable$"), ("is closed for new pods", "are closed for new pods")),
    (re.compile(r"(\d+) Too many pods$"), ("holds as many pods as it may", "hold as many pods as they may")),
)
"""What kube-scheduler says of some nodes, and what of one and of several of them."""
_REFUSED_FOR_GOOD = re.compile(
    r"failed quota|must specify|violates PodSecurity|no PriorityClass|maximum .* usage per|denied the request|"
    r"error looking up service account|is invalid",
    re.IGNORECASE,
)


def refusal(said: str) -> Why | None:
    """What a refusal to create means; None where the text is no refusal by quota or rule.

    Args:
        said: the API's own words, of a 403 or of a FailedCreate event.
    """
    if found := _QUOTA.search(said):
        asked, used, hard = (found[key].strip().rstrip(")") for key in ("asked", "used", "hard"))
        return Why(f"quota {found['name']}: asks for {asked}; {used} of {hard} used")
    if missing := _MISSING.search(said):
        return Why(_create(missing), hopeless=True)
    if _REFUSED_FOR_GOOD.search(said):
        return Why(f"refused: {said.rpartition('is forbidden: ')[2]}", hopeless=True)
    return None


def refused(events: Sequence[Object]) -> Why | None:
    """Why no pod could be made, if the newest thing that a controller said of making pods is that it could not."""
    for event in reversed(events):
        reason = text(event, "reason")
        if reason.startswith(("SuccessfulCreate", "Created", "Resumed", "Suspended")):
            return None
        if reason.startswith(("FailedCreate", "FailedToCreate")) and reason != "FailedCreatePodSandBox":
            said = message(event)
            return refusal(said) or Why(f"no pod could be made: {said or reason}")
    return None


def waiting(pod: Object, events: Sequence[Object]) -> Why:
    """Why a pod that exists does not run."""
    own = [event for event in events if about(event) == text(pod, "metadata", "name")]
    if not text(pod, "spec", "nodeName"):
        return _unscheduled(pod, own)
    for status in _containers(pod):
        why = _held(status, own)
        if why:
            return why
    return _preparing(own)


def _containers(pod: Object) -> list[Object]:
    return [*objects(pod, "status", "initContainerStatuses"), *objects(pod, "status", "containerStatuses")]


def _create(missing: "re.Match[str]") -> str:
    kind, name = missing[1], missing[2]
    what = {"serviceaccount": "service account", "persistentvolumeclaim": "volume claim"}.get(kind, kind)
    return f"{what} {name} does not exist: create it in the job's namespace, or correct the cluster's file"


def _unscheduled(pod: Object, events: Sequence[Object]) -> Why:
    placed = condition(pod, "PodScheduled")
    if text(placed, "reason") == "SchedulingGated":
        return Why("held back by a scheduling gate until its group may start")
    said = text(placed, "message") or next(
        (message(event) for event in reversed(events) if text(event, "reason") == "FailedScheduling"), ""
    )
    if missing := _MISSING.search(said):
        return Why(_create(missing), hopeless=True)
    return Why(_nodes(said)) if said else Why("waits for a node")


def _nodes(said: str) -> str:
    """What kube-scheduler says of nodes: ``0/5 nodes are available: 3 Insufficient …`` in plain words."""
    found = _NODES.match(said)
    if not found:
        return f"no node fits: {said}"
    causes = re.split(r",\s*(?=\d+ )", re.split(r"\.(?:\s|$)|,?\s*preemption:", found[3])[0].strip())
    told = [_node_cause(cause.strip().rstrip(".")) for cause in causes if cause.strip(". ")]
    return f"no node of {found[2]} fits: {', '.join(told)}" if told else f"no node fits: {said}"


def _node_cause(cause: str) -> str:
    for pattern, words in _NODE_CAUSES:
        if found := pattern.match(cause):
            one = found[1] == "1"
            detail = [part.replace(": ", "=") for part in found.groups()[1:]]
            return f"{found[1]} {words[0 if one else 1].format(*detail)}"
    return cause


def _held(status: Object, events: Sequence[Object]) -> Why | None:
    """What keeps a container from starting; None where it is only on its way."""
    state = at(status, "state", "waiting")
    reason, said = text(state, "reason"), text(state, "message")
    image = text(status, "image") or next(iter(_IMAGE.findall(said)), "its image")
    if reason in ("ErrImagePull", "ImagePullBackOff", "RegistryUnavailable"):
        return _pull(image, said, events)
    if reason in ("InvalidImageName", "ErrImageNeverPull", "ImageInspectError"):
        words = {
            "InvalidImageName": "is no image name; correct TELECINE_IMAGE_PREFIX and TELECINE_IMAGE_TAG",
            "ErrImageNeverPull": "is not on the node, and image_pull_policy Never forbids to pull it",
        }
        return Why(f"image {image} {words.get(reason, 'cannot be read on the node')}", reason != "ImageInspectError")
    if reason == "CreateContainerConfigError":
        missing = _MISSING.search(said)
        words_of_it = _create(missing) if missing else f"its configuration is wrong: {said or reason}"
        return Why(words_of_it, hopeless="timed out" not in said)
    if reason in ("CreateContainerError", "RunContainerError"):
        return Why(f"the container cannot be made: {said or reason}", hopeless="not found" in said)
    if reason == "CrashLoopBackOff":
        ended = at(status, "lastState", "terminated")
        told = last_line(text(ended, "message")) or text(ended, "reason")
        return Why(f"it crashes again and again: {told or said}")
    return None if reason in ("", "ContainerCreating", "PodInitializing") else Why(f"{reason}: {said}".rstrip(": "))


def _pull(image: str, said: str, events: Sequence[Object]) -> Why:
    """Why an image cannot be pulled; a back-off alone does not say it, an earlier event does."""
    told = [said] + [message(event) for event in reversed(events) if text(event, "reason") == "Failed"]
    for one in told:
        for pattern, words, hopeless in _PULLS:
            if re.search(pattern, one, re.IGNORECASE):
                return Why(f"image pull back-off: {image}: {words}", hopeless)
    failed = next((one for one in told[1:] if "image" in one), _BACK_OFF.sub("", said))
    return Why(f"image pull back-off: {image}: {failed.rpartition('desc = ')[2] or 'no cause is told'}")


def _preparing(events: Sequence[Object]) -> Why:
    """A pod that has its node and no complaint of a container: what the node did last with it."""
    for event in reversed(events):
        reason, said = text(event, "reason"), message(event)
        if reason in ("FailedMount", "FailedAttachVolume", "FailedMapVolume"):
            missing = _MISSING.search(said)
            return Why(_create(missing), hopeless=True) if missing else Why(f"a volume cannot be mounted: {said}")
        if reason in ("FailedCreatePodSandBox", "FailedCreatePodContainer"):
            return Why(f"the node cannot make the pod: {said}")
        if reason == "Pulling":
            image = next(iter(_IMAGE.findall(said)), "its image")
            return Why(f"pulls image {image}{_since(event)}")
        if reason in ("Pulled", "Created", "Started"):
            break
    return Why("its container is being made")


def _since(event: Object) -> str:
    """When an event was first seen: a time, not a duration, so that the reason stays the same from look to look."""
    stamp = text(event, "firstTimestamp") or text(event, "eventTime") or text(event, "lastTimestamp")
    clock = re.match(r"\d{4}-\d\d-\d\dT(\d\d:\d\d:\d\d)", stamp)
    return f" since {clock[1]} UTC" if clock else ""
