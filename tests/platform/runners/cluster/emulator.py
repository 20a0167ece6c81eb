"""A Kubernetes API over HTTP for tests: kmock's emulator, with what a client of the real one relies on.

kmock keeps objects and speaks the paths. Added here: uids and resource versions, preconditions of a delete, the bodies
of refusals, logs of pods, kinds that are not installed, and faults on demand. No controller runs: a test plays them.
"""

import asyncio
import copy
import dataclasses
import itertools
import json
import re
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, TypeVar

import aiohttp.web
import attrs
import kmock

T = TypeVar("T")
TOKEN = "kube-token-of-the-tests"  # noqa: S105 - looked for in messages, which must not hold it
NAMESPACE = "video"
PLURALS = {
    "Job": "batch/v1/jobs",
    "RayJob": "ray.io/v1/rayjobs",
    "TrainJob": "trainer.kubeflow.org/v1alpha1/trainjobs",
    "Pod": "v1/pods",
    "Event": "v1/events",
    "Workload": "kueue.x-k8s.io/v1beta2/workloads",
    "LocalQueue": "kueue.x-k8s.io/v1beta2/localqueues",
    "ClusterQueue": "kueue.x-k8s.io/v1beta2/clusterqueues",
}


@dataclasses.dataclass
class Fault:
    """An answer instead of the real one.

    Attributes:
        request: pattern of ``METHOD path``.
        status: of the answer; 0 cuts the connection, -1 answers nothing for longer than a client waits.
        after: the request is carried out first, and only its answer is lost.
        times: how often.
    """

    request: str
    status: int
    message: str = ""
    headers: dict[str, str] = dataclasses.field(default_factory=dict)
    after: bool = False
    times: int = 10**9
    hits: int = 0


def status_body(code: int, reason: str, message: str, **details: Any) -> dict[str, Any]:
    """A ``Status`` as the API server writes it."""
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": message,
        "reason": reason,
        "details": details,
        "code": code,
    }


@attrs.define(kw_only=True)
class Emulator(kmock.KubernetesEmulator):
    """The handler; see :class:`Cluster` for its use."""

    faults: list[Fault] = attrs.field(factory=list)
    installed: set[str] = attrs.field(factory=lambda: set(PLURALS.values()))
    logs: dict[str, str] = attrs.field(factory=dict)
    served: list[str] = attrs.field(factory=list)
    before: list[Callable[[str], None]] = attrs.field(factory=list)
    waiting: list[Any] | None = None
    numbers: Any = attrs.field(factory=lambda: itertools.count(1))

    async def _handle(self, request: Any) -> Any:
        line = f"{request.method.value} {request.url.path}"
        self.served.append(line)
        del self._requests[:-20]  # kmock compares each request with all before it
        for hook in list(self.before):
            hook(line)
        if request.headers.get("Authorization") != f"Bearer {TOKEN}":
            return _json(401, status_body(401, "Unauthorized", "Unauthorized"))
        fault = next((f for f in self.faults if f.hits < f.times and re.search(f.request, line)), None)
        if fault is not None:
            fault.hits += 1
            if fault.after:
                await self._answer(request)
            return await _broken(request, fault)
        return await self._answer(request)

    async def _answer(self, request: Any) -> Any:
        if request.subresource == "pendingworkloads" and self.waiting is not None:
            return _json(200, {"items": self.waiting})
        if request.resource is None or self._name(request) not in self.installed:
            return aiohttp.web.Response(text="404 page not found\n", status=404)
        found = self._find(request)
        if request.subresource == "log" and found is not None:
            return self._log(request.name, request.params.get("container", ""))
        if request.action == kmock.action.CREATE and found is not None:
            what = f'{request.resource.plural} "{found["metadata"]["name"]}" already exists'
            return _json(409, status_body(409, "AlreadyExists", what))
        if request.action == kmock.action.CREATE:
            self._be_born(request)
        elif found is None and request.name is not None:
            what = f'{request.resource.plural} "{request.name}" not found'
            details = {"name": request.name, "kind": request.resource.plural}
            return _json(404, status_body(404, "NotFound", what, **details))
        elif request.action == kmock.action.DELETE and not _holds((request.data or {}).get("preconditions"), found):
            return _json(409, status_body(409, "Conflict", "the object has been modified", name=request.name))
        answer = await super()._handle(request)
        if request.action == kmock.action.DELETE:
            self._drop_pods(request.namespace, request.name)
        return answer

    def _log(self, pod: str, container: str) -> aiohttp.web.Response:
        """What a node keeps of a container; the refusal is that of pkg/kubelet/kubelet_pods.go in Kubernetes."""
        if pod in self.logs:
            return aiohttp.web.Response(text=self.logs[pod])
        what = f'container "{container}" in pod "{pod}" is not available'
        return _json(400, status_body(400, "BadRequest", what))

    def _name(self, request: Any) -> str:
        resource = request.resource
        return "/".join(part for part in (resource.group, resource.version, resource.plural) if part)

    def _find(self, request: Any) -> Any:
        name = request.data["metadata"]["name"] if request.action == kmock.action.CREATE else request.name
        key = (request.resource, request.namespace, name)
        found = self.objects[key] if name and key in self.objects else None
        return None if found is None or found.deleted else found

    def _be_born(self, request: Any) -> None:
        number = next(self.numbers)
        born = {"uid": f"uid-{number}", "resourceVersion": str(number), "creationTimestamp": now()}
        request.data["metadata"] |= {"namespace": request.namespace} | born

    def _drop_pods(self, namespace: str, owner: str) -> None:
        for resource, where, name in list(self.objects):
            if resource.plural == "pods" and where == namespace and name.startswith(f"{owner}-"):
                found = self.objects[resource, where, name]
                if not found.deleted:
                    found.delete()


def _holds(conditions: Any, found: Any) -> bool:
    metadata = found["metadata"]
    return all(str(metadata[name]) == str(value) for name, value in (conditions or {}).items())


def _json(status: int, body: Any, headers: dict[str, str] | None = None) -> aiohttp.web.Response:
    return aiohttp.web.json_response(body, status=status, headers=headers)


async def _broken(request: Any, fault: Fault) -> aiohttp.web.StreamResponse:
    if fault.status == -1:
        await asyncio.sleep(3)
    if fault.status <= 0:
        request._raw_request.transport.abort()
        return aiohttp.web.Response(status=500)
    reason = {403: "Forbidden", 404: "NotFound", 409: "Conflict", 429: "TooManyRequests"}.get(fault.status, "Fault")
    return _json(fault.status, status_body(fault.status, reason, fault.message), fault.headers)


def now() -> str:
    """A time as Kubernetes writes it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class Cluster:
    """A running emulator, and the hands of a test on it; each change is made in the emulator's own thread."""

    def __init__(self, emulator: Emulator, loop: asyncio.AbstractEventLoop, url: str) -> None:
        self.emulator, self.url = emulator, url
        self._loop = loop

    def reset(self) -> None:
        """Empty it for the next test; raises what went wrong in the emulator itself."""
        emulator = self.emulator
        broken = [error for error in emulator.errors if not isinstance(error, kmock.KubernetesError)]
        emulator.errors.clear()
        emulator.installed, emulator.waiting = set(PLURALS.values()), None
        for kept in (emulator.faults, emulator.served, emulator.before, emulator.logs):
            kept.clear()
        self._do(emulator.objects.clear)
        assert broken == [], "the emulator itself failed"

    def fault(self, request: str, status: int, message: str = "", **more: Any) -> Fault:
        """Answer requests such as ``POST .*/jobs$`` with a fault, until :meth:`mend` or ``times``."""
        made = Fault(request, status, message, **more)
        self.emulator.faults.append(made)
        return made

    def mend(self) -> None:
        """No more faults."""
        self.emulator.faults.clear()

    def uninstall(self, kind: str) -> None:
        """The cluster has no such kind."""
        self.emulator.installed.discard(PLURALS[kind])

    def requests(self, pattern: str) -> list[str]:
        """What was asked so far, as ``METHOD path``."""
        return [line for line in self.emulator.served if re.search(pattern, line)]

    def all(self, kind: str) -> list[dict[str, Any]]:
        """Objects of a kind that stand, oldest first."""
        return self._do(lambda: [copy.deepcopy(raw) for raw in self._raws(kind)])

    def one(self, kind: str) -> dict[str, Any]:
        """The only object of a kind."""
        (found,) = self.all(kind)
        return found

    def add(self, kind: str, name: str, namespace: str | None = NAMESPACE, **fields: Any) -> None:
        """Make an object as a controller would; ``labels`` and ``owners`` go into its metadata."""
        number = next(self.emulator.numbers)
        metadata = {"name": name, "namespace": namespace, "uid": f"uid-{number}", "resourceVersion": str(number)}
        metadata |= {"creationTimestamp": now(), "labels": fields.pop("labels", {})}
        metadata["ownerReferences"] = fields.pop("owners", [])
        made = {"metadata": metadata, **fields}

        def put() -> None:
            self.emulator.objects[PLURALS[kind], namespace, name] = made

        self._do(put)

    def put(self, kind: str, raw: dict[str, Any], namespace: str | None = NAMESPACE, **metadata: Any) -> None:
        """Let an object stand as it is given, with this metadata beside its own."""
        if "owners" in metadata:
            metadata["ownerReferences"] = metadata.pop("owners")
        made = {**raw, "metadata": {"namespace": namespace, **raw.get("metadata", {}), **metadata}}
        name = made["metadata"]["name"]

        def put() -> None:
            self.emulator.objects[PLURALS[kind], namespace, name] = made

        self._do(put)

    def patch(self, kind: str, name: str, namespace: str | None = NAMESPACE, **fields: Any) -> None:
        """Change an object, as a controller would."""
        version = {"metadata": {"resourceVersion": str(next(self.emulator.numbers))}}
        patch = {**fields, "metadata": {**fields.get("metadata", {}), **version["metadata"]}}
        self._do(lambda: self.emulator.objects[PLURALS[kind], namespace, name].patch(patch))

    def remove(self, kind: str, name: str, namespace: str | None = NAMESPACE) -> None:
        """Take an object away, with its pods where it is a job."""

        def drop() -> None:
            self.emulator.objects[PLURALS[kind], namespace, name].delete()
            if kind != "Pod":
                self.emulator._drop_pods(str(namespace), name)

        self._do(drop)

    def _raws(self, kind: str) -> Iterator[dict[str, Any]]:
        wanted = PLURALS[kind]
        for (resource, _, _), found in self.emulator.objects.items():
            name = "/".join(part for part in (resource.group, resource.version, resource.plural) if part)
            if name == wanted and not found.deleted:
                yield found.raw

    def _do(self, act: Callable[[], T]) -> T:
        done: Future[T] = Future()

        def run() -> None:
            try:
                done.set_result(act())
            except BaseException as error:
                done.set_exception(error)
                raise

        self._loop.call_soon_threadsafe(run)
        return done.result(10)


@contextmanager
def running() -> Iterator[Cluster]:
    """A cluster that listens on a port of its own."""
    ready: Future[tuple[Emulator, asyncio.AbstractEventLoop, asyncio.Event, str]] = Future()

    async def serve() -> None:
        async with Emulator() as emulator, kmock.Server(emulator) as server:
            for resource in PLURALS.values():
                emulator.resources[resource].namespaced = True
            stop = asyncio.Event()
            ready.set_result((emulator, asyncio.get_running_loop(), stop, str(server.url).rstrip("/")))
            await stop.wait()

    thread = threading.Thread(target=lambda: asyncio.run(serve()), daemon=True)
    thread.start()
    emulator, loop, stop, url = ready.result(20)
    yield Cluster(emulator, loop, url)
    loop.call_soon_threadsafe(stop.set)
    thread.join(10)


def kubeconfig(url: str, token: str = TOKEN) -> str:
    """A kubeconfig for the emulator."""
    return json.dumps(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "test",
            "clusters": [{"name": "test", "cluster": {"server": url}}],
            "users": [{"name": "test", "user": {"token": token}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test", "namespace": NAMESPACE}}],
        }
    )
