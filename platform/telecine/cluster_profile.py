"""The cluster's profile: one TOML file that says where pods run and what a component may use there.

TELECINE_CLUSTER names the file; ``infra/cluster/cluster.toml`` is a commented one. What holds for everything stands at
the top; ``[components."area.verb"]`` overrides it, and the component's own resources, for one component.
"""

import dataclasses
import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from telecine import component as components
from telecine import config
from telecine.component import Component, Resources
from telecine.config import param
from telecine.errors import InputError

VARIABLE = "TELECINE_CLUSTER"
_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_NAME = re.compile(rf"(?=.{{1,63}}\Z){_LABEL.pattern}(\.{_LABEL.pattern})*")
_NAMES = {"service_account", "secret", "runtime", "queue", "priority_class", "pod_priority_class"}
_TABLES = ("node_selector", "tolerations")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Toleration:
    """A taint that pods accept, as Kubernetes spells it."""

    key: str = param(help="Key of the taint.")
    operator: str = param("Exists", help="Exists for any value, Equal for one.", choices=("Exists", "Equal"))
    value: str = param("", help="Value of the taint where the operator is Equal.")
    effect: str = param(
        "", help="Effect to accept; any by default.", choices=("", "NoSchedule", "PreferNoSchedule", "NoExecute")
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Needs:
    """What a component's table may say of its resources."""

    cpus: int = param(1, help="Processors.", ge=1)
    memory_gib: float = param(1.0, help="Memory.", gt=0)
    gpus: int = param(0, help="GPUs.", ge=0)
    nodes: int = param(1, help="Nodes; at most what the component was written for.", ge=1)
    ray_workers: int = param(0, help="Ray workers; at most what the component was written for.", ge=0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Values:
    """What of a profile is a plain value."""

    namespace: str = param("telecine", help="Namespace of every object.")
    service_account: str = param("", help="Service account of the pods; none of its token is mounted.")
    secret: str = param("telecine", help="Secret whose keys are the credentials' variables; '' for none.")
    image_pull_secrets: tuple[str, ...] = param((), help="Secrets that images are pulled with.")
    image_pull_policy: str = param(
        "IfNotPresent", help="When a node pulls an image.", choices=("Always", "IfNotPresent", "Never")
    )
    gpu_resource: str = param("nvidia.com/gpu", help="Resource by which GPUs are counted.")
    gpu_product: str = param("", help="Value of the label nvidia.com/gpu.product of nodes with the wanted GPU.")
    ray_version: str = param("2.60.0", help="Version of Ray in the images.")
    ray_auth: bool = param(True, help="Whether Ray's dashboard and jobs ask for a token.")
    ray_linger_s: int = param(60, help="Time that a finished RayJob keeps its Ray cluster.", ge=0)
    runtime: str = param("telecine-torch", help="ClusterTrainingRuntime of a TrainJob.")
    queue: str = param("", help="Kueue's LocalQueue; '' where nothing queues.")
    priority_class: str = param("", help="Kueue's WorkloadPriorityClass.")
    pod_priority_class: str = param("", help="Kubernetes' PriorityClass of the pods.")
    topology: str = param("", help="Node label of the level that the pods of a job with GPUs should share, for Kueue.")
    topology_required: bool = param(False, help="Whether they must share it.")
    cpu_limit: bool = param(False, help="Whether the processors asked for are also the most that a pod gets.")
    scratch_gib: float = param(20.0, help="Most that a pod may write below /tmp.", gt=0)
    grace_s: int = param(120, help="Time to save between SIGTERM and SIGKILL.", ge=1)
    ttl_s: int = param(3600, help="Time that a finished job stays.", ge=0)
    max_run_s: int = param(0, help="Most that a job may run; 0 for no limit.", ge=0)
    max_pending_s: int = param(86400, help="Most that a job may wait to start.", ge=1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Anywhere(_Values):
    """What a profile may say at the top and in a component's table."""

    node_selector: Mapping[str, str] = dataclasses.field(default_factory=dict)
    tolerations: tuple[Toleration, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Table(_Anywhere, _Needs):
    """What a component's table may say."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Profile(_Anywhere):
    """One cluster, checked.

    Attributes:
        node_selector: labels that a pod's node must have.
        tolerations: taints that pods accept, spot nodes' among them.
        components: by component, what differs for it; see :meth:`of` and :meth:`resources`.
    """

    components: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)

    def of(self, component: Component) -> "Profile":
        """What holds for one component: its table laid over the rest."""
        _, values = self._table(component)
        return dataclasses.replace(self, components={}, **values)

    def resources(self, component: Component) -> Resources:
        """What one component gets: its table laid over its own resources.

        Raises:
            InputError: more nodes or Ray workers than the component was written for.
        """
        needs, _ = self._table(component)
        for name in ("nodes", "ray_workers"):
            declared = max(getattr(component.resources, name), getattr(component, f"max_{name}"))
            if needs.get(name, declared) > declared:
                raise InputError(
                    f"{_owner(component.name)}: {name} must be at most {declared}, which is what {component.name} was "
                    f"written for, got {needs[name]}; each of more would do all of the work again"
                )
        return dataclasses.replace(component.resources, **needs)

    def _table(self, component: Component) -> tuple[dict[str, Any], dict[str, Any]]:
        """A component's table, checked: what it says of resources, and all else."""
        table, owner = self.components.get(component.name, {}), _owner(component.name)
        for name in table:
            config.check_name(_Table, name, owner=owner)
        known = {field.name for field in dataclasses.fields(_Needs)}
        needs = {name: table[name] for name in table if name in known}
        return _checked(_Needs, needs, owner), _values(
            {name: table[name] for name in table if name not in known}, owner
        )


def load(environment: Mapping[str, str] = os.environ) -> Profile:
    """Read the profile that TELECINE_CLUSTER names.

    Raises:
        InputError: no such file, no TOML, an unknown component or key, or a value that cannot be.
    """
    path = Path(environment.get(VARIABLE) or "")
    if not path.is_file():
        given = f"got {str(path)!r}" if environment.get(VARIABLE) else "it is not set"
        raise InputError(
            f"{VARIABLE} must name the cluster's profile, a TOML file such as infra/cluster/cluster.toml; {given}"
        )
    try:
        return build(tomllib.loads(path.read_text()), owner=str(path))
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{path}: not valid TOML: {error}") from error


def build(values: Mapping[str, Any], *, owner: str) -> Profile:
    """Make a profile from plain values; raises :class:`InputError`, opened by ``owner``, for what cannot be."""
    tables = values.get("components", {})
    if not isinstance(tables, dict) or not all(isinstance(table, dict) for table in tables.values()):
        raise InputError(f'{owner}: components must be tables such as [components."pretrain.train"], got {tables!r}')
    for name in values:
        config.check_name(Profile, name, owner=owner)
    rest = {name: value for name, value in values.items() if name != "components"}
    profile = Profile(components=tables, **_values(rest, owner))
    try:
        for name in tables:
            found = components.find(name)
            profile.of(found)
            profile.resources(found)
    except InputError as error:
        raise InputError(f"{owner}: {error}") from None
    return profile


def _owner(name: str) -> str:
    return f'[components."{name}"]'


def _checked(cls: type, values: Mapping[str, Any], owner: str) -> dict[str, Any]:
    """The given values, checked as fields of ``cls``, and none of its defaults."""
    built: Any = config.build(cls, values, owner=owner)
    return {name: getattr(built, name) for name in values}


def _values(values: Mapping[str, Any], owner: str) -> dict[str, Any]:
    """What a profile may say anywhere, checked."""
    plain = _checked(_Values, {name: value for name, value in values.items() if name not in _TABLES}, owner)
    if "namespace" in plain and not _LABEL.fullmatch(plain["namespace"]):
        raise InputError(f"{owner}: namespace must be a DNS label of a-z, 0-9 and -, got {plain['namespace']!r}")
    for name in _NAMES & set(plain):
        _check_name(name, plain[name], owner)
    if "node_selector" in values:
        plain["node_selector"] = _labels(values["node_selector"], owner)
    if "tolerations" in values:
        plain["tolerations"] = _tolerations(values["tolerations"], owner)
    return plain


def _check_name(field: str, value: str, owner: str) -> None:
    if value and not _NAME.fullmatch(value):
        raise InputError(f"{owner}: {field} must be a Kubernetes name of a-z, 0-9, - and ., got {value!r}")


def _labels(value: Any, owner: str) -> dict[str, str]:
    if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
        raise InputError(f"{owner}: node_selector must be a table of labels, each a text, got {value!r}")
    return value


def _tolerations(value: Any, owner: str) -> tuple[Toleration, ...]:
    if not isinstance(value, list) or not all(isinstance(each, dict) for each in value):
        raise InputError(f"{owner}: tolerations must be tables under [[tolerations]], got {value!r}")
    return tuple(config.build(Toleration, each, owner=f"{owner}: tolerations") for each in value)
