"""A thin client of the Kubernetes API: plain JSON in and out, every error in words of ours.

KUBECONFIG              which kubeconfig to use (default: the pod's service account in a cluster, else ~/.kube/config)
TELECINE_KUBE_CONTEXT   which of its contexts   (default: the current one)
"""

import contextlib
import dataclasses
import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from telecine.errors import InputError, RetryLater
from telecine.kube import Ref
from telecine.redaction import mask

TIMEOUT_S = (5.0, 30.0)
MAX_LOG_BYTES = 2**20
MAX_LOG_LINES = 5000
OPERATORS = {"ray.io": "KubeRay", "trainer.kubeflow.org": "Kubeflow Trainer", "kueue.x-k8s.io": "Kueue"}
_RBAC = re.compile(r'cannot (?P<verb>\w+) resource "(?P<resource>[^"]+)"(?: in API group "(?P<group>[^"]*)")?')
_QUOTA = re.compile(r"exceeded quota: .*", re.DOTALL)

Object = dict[str, Any]


class Away(RetryLater):
    """The API server cannot answer now; nothing is known about the job, and nothing happened to it.

    Attributes:
        after_s: how long it asked to be left alone; 0 where it did not say.
    """

    def __init__(self, message: str, after_s: float = 0.0) -> None:
        super().__init__(message)
        self.after_s = after_s


class NoLog(InputError):
    """Nothing is kept of what a container wrote, or its pod is gone; asking again would not help."""


class NotInstalled(InputError):
    """The cluster has no such kind."""


@dataclasses.dataclass(frozen=True)
class Refused:
    """A quota has no room for the object now."""

    reason: str


@dataclasses.dataclass(frozen=True)
class Answer:
    """What the server said to a request that it did not grant."""

    status: int
    message: str
    status_reason: str
    details: Mapping[str, Any]


class Api:
    """One cluster.

    Args:
        client: ``kubernetes.client.ApiClient``.
        place: where its credentials come from, for messages.
        timeout_s: seconds to connect, and to wait for an answer.

    Raises:
        Away: by every method, where the server is overloaded, broken or out of reach.
        InputError: by every method, where it knows us not, forbids it, or lacks the kind (:class:`NotInstalled`).
    """

    def __init__(self, client: Any, place: str, timeout_s: tuple[float, float] = TIMEOUT_S) -> None:
        self._client, self._timeout_s = client, timeout_s
        self.place = place
        self.host = client.configuration.host

    def get(self, ref: Ref) -> Object | None:
        """An object, or None."""
        try:
            return self._json("GET", _path(ref, ref.name))
        except _NoSuchObject:
            return None

    def create(self, manifest: Object, ref: Ref) -> Object | Refused:
        """Make an object; returns it as it stands, be it by this call or an earlier one."""
        try:
            return self._json("POST", _path(ref), body=manifest)
        except _OverQuota as refused:
            return Refused(str(refused))
        except _AlreadyExists:
            found = self.get(ref)
        if found is None:
            raise Away(f"{ref.kind} {ref.name} went while it was asked for; asking again")
        return found

    def delete(self, ref: Ref, *, uid: str, resource_version: str | None = None) -> bool:
        """Delete exactly this object with what it owns; False where it is another or has changed since.

        Its pods get their grace period to save, and it stands until they are gone.
        """
        conditions = {"uid": uid} | ({"resourceVersion": resource_version} if resource_version else {})
        body = {"propagationPolicy": "Foreground", "preconditions": conditions}
        try:
            self._json("DELETE", _path(ref, ref.name), body=body)
        except _NoSuchObject:
            return True
        except _Conflict:
            return False
        return True

    def items(self, path: str, **query: str) -> list[Object]:
        """The items of a list, such as ``/api/v1/namespaces/video/pods``."""
        found: list[Object] = self._json("GET", path, query=query).get("items") or []
        return found

    def optional(self, path: str, **query: str) -> Object | None:
        """What makes a reason clearer where it can be had: None where it is absent, forbidden or out of order."""
        with contextlib.suppress(InputError, RetryLater, _NoSuchObject):
            return self._json("GET", path, query=query)
        return None

    def log(self, namespace: str, pod: str, container: str) -> str:
        """The last lines of what a container wrote; raises :class:`NoLog` where nothing is kept of it."""
        query = {"container": container, "tailLines": str(MAX_LOG_LINES), "limitBytes": str(MAX_LOG_BYTES)}
        path = f"/api/v1/namespaces/{namespace}/pods/{pod}/log"
        try:
            return self._request("GET", path, query=query).decode(errors="replace")
        except (_NoSuchObject, _BadRequest) as error:
            raise NoLog(f"{pod}: {error}") from None

    def _json(self, method: str, path: str, *, query: Mapping[str, str] | None = None, body: Any = None) -> Object:
        data = self._request(method, path, query=query, body=body)
        try:
            found = json.loads(data)
        except ValueError:
            raise Away(f"the cluster at {self.host} answered {method} {path} with no JSON; asking again") from None
        if not isinstance(found, dict):
            raise Away(f"the cluster at {self.host} answered {method} {path} with no object; asking again")
        return found

    def _request(self, method: str, path: str, *, query: Mapping[str, str] | None = None, body: Any = None) -> bytes:
        headers = {"Accept": "application/json"}
        pairs = list((query or {}).items())
        with self._translated(method, path):
            self._client.update_params_for_auth(headers, pairs, ["BearerToken"])
            url = f"{self.host}{path}"
            response = self._client.request(
                method, url, query_params=pairs, headers=headers, body=body, _request_timeout=self._timeout_s
            )
            return bytes(response.data)

    @contextlib.contextmanager
    def _translated(self, method: str, path: str) -> Iterator[None]:
        from kubernetes.client.exceptions import ApiException
        from kubernetes.config import ConfigException
        from urllib3.exceptions import HTTPError

        try:
            yield
        except ApiException as error:
            self._raise(method, path, error)
        except HTTPError as error:
            raise Away(f"the cluster at {self.host} cannot be reached ({_first_line(error)})") from None
        except ConfigException as error:
            raise InputError(f"{self.place}: {_first_line(error)}; log in to the cluster again") from None

    def _raise(self, method: str, path: str, error: Any) -> None:
        answer = _answer(error)
        if answer.status == 0:
            self._raise_tls(answer)
        if answer.status == 401:
            raise InputError(
                f"the cluster at {self.host} does not know us (401): the credentials of {self.place} are wrong or have "
                "expired; log in again to renew them, then clear the task: it finds its job where it is"
            ) from None
        if answer.status == 403:
            raise self._forbidden(method, path, answer) from None
        if answer.status == 404:
            raise self._not_found(path, answer) from None
        if answer.status == 409:
            self._raise_conflict(method, answer)
        if answer.status in (408, 409, 429) or answer.status >= 500:
            said = f"{answer.status}: {answer.message}".rstrip(": ")
            raise Away(f"the cluster at {self.host} cannot answer now ({said})", _retry_after_s(error)) from None
        refused = _BadRequest if answer.status == 400 else InputError
        raise refused(
            f"the cluster at {self.host} refused {method} {path} ({answer.status}): {answer.message}"
        ) from None

    def _raise_tls(self, answer: Answer) -> None:
        if "CERTIFICATE_VERIFY_FAILED" in answer.message:
            raise InputError(
                f"the certificate of the cluster at {self.host} is not signed by the authority of "
                f"{self.place}; correct its certificate-authority"
            ) from None
        raise Away(f"the cluster at {self.host} cannot be reached ({answer.message})") from None

    def _raise_conflict(self, method: str, answer: Answer) -> None:
        """A create may also meet a conflict over the quota that it counts against, which passes."""
        if method == "POST" and answer.status_reason == "AlreadyExists":
            raise _AlreadyExists(answer.message) from None
        if method == "DELETE":
            raise _Conflict(answer.message) from None

    def _forbidden(self, method: str, path: str, answer: Answer) -> Exception:
        over = _QUOTA.search(answer.message)
        if over and method == "POST":
            return _OverQuota(over.group())
        found = _RBAC.search(answer.message)
        namespace = _namespace(path)
        if found is None:
            return InputError(f"the cluster at {self.host} forbids {method} {path} (403): {answer.message}")
        verb, resource = found["verb"], found["resource"] + (f".{found['group']}" if found["group"] else "")
        where = f" in namespace {namespace}" if namespace else ""
        flag = f" -n {namespace}" if namespace else ""
        return InputError(
            f"{self.place} may not {verb} {resource}{where}: the Role telecine-airflow of infra/cluster/namespace.yaml "
            f"allows it; bind it there (kubectl auth can-i {verb} {resource}{flag} tells)"
        )

    def _not_found(self, path: str, answer: Answer) -> Exception:
        if answer.details.get("kind") == "namespaces":
            name = answer.details.get("name")
            return InputError(
                f"the cluster at {self.host} has no namespace {name!r}: create it (kubectl create namespace {name}) or "
                "correct the namespace of the profile that TELECINE_CLUSTER names"
            )
        if answer.status_reason == "NotFound" and answer.details.get("name"):
            return _NoSuchObject(answer.message)
        group, plural = _group_and_plural(path)
        operator = OPERATORS.get(group)
        cure = f"install {operator} there, or" if operator else "install what defines it there, or"
        owner = f"{operator}'s " if operator else ""
        return NotInstalled(
            f"{owner}{plural} ({group or 'core'}) are not installed in the cluster at {self.host}: {cure} let the "
            "profile that TELECINE_CLUSTER names give the component no Ray workers and one node"
        )


class _NoSuchObject(Exception):
    pass


class _BadRequest(InputError):
    pass


class _AlreadyExists(Exception):
    pass


class _Conflict(Exception):
    pass


class _OverQuota(Exception):
    pass


def connect(environment: Mapping[str, str] = os.environ, timeout_s: tuple[float, float] = TIMEOUT_S) -> Api:
    """The cluster that the environment names; raises :class:`InputError` where it names none."""
    from kubernetes import client, config

    configuration = client.Configuration()
    given, context = environment.get("KUBECONFIG", ""), environment.get("TELECINE_KUBE_CONTEXT") or None
    file = given or str(Path.home() / ".kube" / "config")
    in_cluster = not given and bool(environment.get("KUBERNETES_SERVICE_HOST"))
    place = "the pod's service account" if in_cluster else f"kubeconfig {file}, {_named(context)}"
    try:
        if in_cluster:
            config.load_incluster_config(client_configuration=configuration)
        else:
            config.load_kube_config(config_file=file, context=context, client_configuration=configuration)
    except (config.ConfigException, OSError) as error:
        raise InputError(
            f"{place}: {_first_line(error)}; KUBECONFIG must name the kubeconfig of the cluster, and "
            "TELECINE_KUBE_CONTEXT one of its contexts where it is not the current one"
        ) from None
    configuration.retries = False  # who waits is decided where the job is watched, not request by request
    return Api(client.ApiClient(configuration), place, timeout_s)


def _named(context: str | None) -> str:
    return f"context {context}" if context else "its current context"


def _path(ref: Ref, name: str = "") -> str:
    root = "/api" if "/" not in ref.api_version else "/apis"
    path = f"{root}/{ref.api_version}/namespaces/{ref.namespace}/{ref.plural}"
    return f"{path}/{name}" if name else path


def _group_and_plural(path: str) -> tuple[str, str]:
    parts = path.strip("/").split("/")
    group = parts[1] if parts[0] == "apis" else ""
    rest = parts[3:] if group else parts[2:]
    return group, rest[2] if rest[0] == "namespaces" and len(rest) > 2 else rest[0]


def _namespace(path: str) -> str:
    found = re.search(r"/namespaces/([^/]+)/", path)
    return found[1] if found else ""


def _answer(error: Any) -> Answer:
    """An ``ApiException`` as plain values; its body is a Status, or whatever a proxy had to say."""
    body = error.body.decode(errors="replace") if isinstance(error.body, bytes) else str(error.body or "")
    try:
        said = json.loads(body)
    except ValueError:
        said = None
    said = said if isinstance(said, dict) else {"message": body or str(error.reason or "")}
    message = mask(str(said.get("message") or error.reason or "").strip().partition("\n")[0])
    return Answer(int(error.status or 0), message, str(said.get("reason") or ""), said.get("details") or {})


def _retry_after_s(error: Any) -> float:
    text = str((error.headers or {}).get("Retry-After") or "")
    return float(text) if text.isdigit() else 0.0


def _first_line(error: Exception) -> str:
    return mask(str(error).partition("\n")[0])
