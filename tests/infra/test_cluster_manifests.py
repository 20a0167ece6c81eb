"""Everything that Telecine asks of Kubernetes, held to the schemas: unknown fields and wrong types are errors.

Kubernetes' own schemas come with kubernetes-validate. Of the custom resources, ``custom_fields.json`` names each field
that we write with its type; beside a checkout with ``../shared/crds`` it is compared with the operators' own schemas.
"""

import dataclasses
import functools
import importlib.resources
import json
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest
import yaml
from kubernetes_validate.utils import all_versions  # type: ignore[import-untyped]
from referencing import Registry, Resource

from telecine import cluster_profile, component, config, kube, settings
from telecine.cluster_profile import Profile
from telecine.component import Component, Resources
from telecine.config import Artifact, param
from telecine.launch import Launch

REPOSITORY = Path(__file__).parents[2]
CLUSTER = REPOSITORY / "infra" / "cluster"
CRDS = REPOSITORY.parent / "shared" / "crds"
VERSIONS = all_versions()[-3:]
FIELDS: dict[str, dict[str, str]] = json.loads(Path(__file__).with_name("custom_fields.json").read_text())
PLACES = settings.Settings(
    home=Path("/nowhere"), store_uri="s3://bucket/store", tracking_uri="http://mlflow:5000", runner="cluster"
)
FLAGS = """
namespace = "team-a"
service_account = "somebody"
secret = "credentials"
image_pull_secrets = ["registry", "another"]
image_pull_policy = "Always"
gpu_resource = "amd.com/gpu"
gpu_product = "NVIDIA-H200"
ray_version = "2.61.0"
ray_auth = false
ray_linger_s = 0
runtime = "another"
queue = "video"
priority_class = "production"
pod_priority_class = "urgent"
topology = "kubernetes.io/hostname"
topology_required = true
cpu_limit = true
scratch_gib = 0.5
grace_s = 1
ttl_s = 0
max_run_s = 60
max_pending_s = 1
node_selector = {"topology.kubernetes.io/zone" = "a"}
tolerations = [{key = "spot"}, {key = "spot", operator = "Equal", value = "true", effect = "NoSchedule"}]
"""
RUNTIME_ONLY = ("image_pull_policy", "pod_priority_class")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inputs:
    """Of a toy."""

    clips_uri: Artifact = param(Artifact(""), help="Clips.")
    text: str = param("a", help="A text.")


def toy(verb: str, **needs: Any) -> Component:
    """A component that nobody runs."""
    made = Resources(memory_gib=2.5, **needs)
    return Component(name=f"toy.{verb}", inputs=Inputs, outputs=Inputs, entry="a:b", image="train", resources=made)


TOYS = [
    toy("one"),
    toy("gpu", gpus=8, cpus=16),
    toy("nodes", nodes=2),
    toy("many", nodes=4, gpus=8),
    toy("ray", ray_workers=2),
    toy("raygpu", ray_workers=2, gpus=1),
]


def launch_of(found: Component) -> Launch:
    """A call with made-up artifacts."""
    values = {
        field.name: "s3://bucket/clips"
        for field in dataclasses.fields(found.inputs)
        if field.default is dataclasses.MISSING and config.is_artifact(found.inputs, field.name)
    }
    missing = {
        field.name: "text"
        for field in dataclasses.fields(found.inputs)
        if field.default is dataclasses.MISSING and field.name not in values
    }
    inputs = found.inputs(**values, **missing)
    return Launch(component=found, inputs=inputs, run="a-run", task=found.name, key="0f" * 16, settings=PLACES)


def manifests() -> Iterator[tuple[str, dict[str, Any]]]:
    """Each component under no flag and under all; each toy, one for each kind of object, under each flag."""
    flags = tomllib.loads(FLAGS)
    every = {name: value for name, value in flags.items() if name not in RUNTIME_ONLY}
    for found in [*(component.find(name) for name in component.names()), *TOYS]:
        for what, values in (("no flag", {}), ("all flags", every)):
            built = cluster_profile.build(values, owner="test")
            yield f"{found.name}: {what}", kube.manifest(launch_of(found), built, 12, ["node-b", "node-a"])
    for found in TOYS:
        for name in flags if found.resources.nodes == 1 else every:
            built = cluster_profile.build({name: flags[name]}, owner="test")
            yield f"{found.name}: {name}", kube.manifest(launch_of(found), built, 1)


def files() -> Iterator[tuple[str, dict[str, Any]]]:
    """Every object in infra/cluster, and those of the cluster on a person's machine."""
    for file in sorted([*CLUSTER.glob("*.yaml"), *CLUSTER.with_name("local").glob("*.yaml")]):
        for number, document in enumerate(yaml.safe_load_all(file.read_text())):
            yield f"{file.name} {number}", document


EVERYTHING = dict([*manifests(), *files()])
CUSTOM = {name: made for name, made in EVERYTHING.items() if made["kind"] in FIELDS}


# Kubernetes' own schemas


@functools.cache
def schema_of(version: str, file: str) -> Any:
    folder = importlib.resources.files("kubernetes_validate") / "kubernetes-json-schema" / f"v{version}-local-strict"
    return json.loads((folder / file).read_text())


@functools.cache
def validator(version: str, kind: str, api_version: str) -> Any:
    """What kubernetes-validate checks an object by, kept: reading the schemas takes longer than checking."""
    group, _, number = api_version.rpartition("/")
    file = f"{kind.lower()}-{group.partition('.')[0]}-{number}.json".replace("--", "-")
    schema = schema_of(version, file)
    registry = Resource.from_contents(schema) @ Registry()
    registry = Resource.from_contents(schema_of(version, "_definitions.json")) @ registry
    return jsonschema.Draft202012Validator(schema, registry=registry)


def complaints(document: dict[str, Any], version: str) -> list[str]:
    """What one version of Kubernetes has against an object."""
    found = validator(version, document["kind"], document["apiVersion"]).iter_errors(document)
    return [f"{'.'.join(map(str, error.absolute_path))}: {error.message}" for error in found]


def parts(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """What of an object Kubernetes itself has a schema for: all of its own, metadata and pods of the others."""
    if document["kind"] not in FIELDS:
        yield document
        return
    yield {"apiVersion": "v1", "kind": "ConfigMap", "metadata": document["metadata"]}
    for template in pod_templates(document.get("spec")):
        yield {"apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": "any"}, "template": template}


def pod_templates(value: Any) -> Iterator[dict[str, Any]]:
    """Every pod template in an object."""
    if isinstance(value, list):
        for each in value:
            yield from pod_templates(each)
    elif isinstance(value, dict) and "containers" in value.get("spec", {}):
        yield value
    elif isinstance(value, dict):
        yield from pod_templates(list(value.values()))


@pytest.mark.parametrize("version", VERSIONS)
def test_kubernetes_takes_every_object(version: str) -> None:
    assert len(VERSIONS) == 3
    wrong = {
        name: found
        for name, document in EVERYTHING.items()
        for part in parts(document)
        if (found := complaints(part, version))
    }
    assert wrong == {}


def test_a_misspelt_field_and_a_wrong_type_are_seen() -> None:
    job = json.loads(json.dumps(EVERYTHING["toy.one: no flag"]))
    job["spec"]["template"]["spec"]["containers"][0]["imagePullPolice"] = "Always"
    job["spec"]["backoffLimit"] = "0"
    assert len(complaints(job, VERSIONS[-1])) == 2


def test_every_flag_of_a_profile_is_tried() -> None:
    flags = tomllib.loads(FLAGS)
    assert set(flags) == {field.name for field in dataclasses.fields(Profile)} - {"components"}
    same = [name for name, value in flags.items() if cluster_profile.build({name: value}, owner="test") == Profile()]
    assert same == []


def test_every_kind_of_object_is_among_them() -> None:
    kinds = {document["kind"] for document in EVERYTHING.values()}
    assert kinds >= {"Job", "RayJob", "TrainJob", "ClusterTrainingRuntime", "ClusterQueue", "LocalQueue"}
    assert {name.partition(":")[0] for name in EVERYTHING} >= set(component.names())


# The schemas of custom resources


def leaves(value: Any, known: dict[str, str], path: str = "") -> Iterator[tuple[str, str]]:
    """Each field of an object with its type, but for metadata, the insides of whole pods, and free names."""
    names = {bool: "boolean", int: "integer", float: "number", str: "string", dict: "object", list: "array"}
    if path and path != "metadata":
        free = known.get(path) == "map" and isinstance(value, dict)
        quantity = known.get(path) == "quantity" and type(value) in (int, str)
        yield path, "map" if free else "quantity" if quantity else names[type(value)]
    if path == "metadata" or known.get(path) == "map":
        return
    if isinstance(value, dict) and "containers" in value.get("spec", {}) and "runtimePatches" not in path:
        return
    for name, inner in value.items() if isinstance(value, dict) else ():
        yield from leaves(inner, known, f"{path}.{name}".strip("."))
    for inner in value if isinstance(value, list) else ():
        yield from leaves(inner, known, f"{path}[]")


def test_custom_resources_hold_only_fields_that_are_known() -> None:
    met = {
        (document["kind"], path, kind)
        for document in CUSTOM.values()
        for path, kind in leaves(
            {key: value for key, value in document.items() if key not in ("apiVersion", "kind")},
            FIELDS[document["kind"]],
        )
    }
    assert met == {(name, path, kind) for name, fields in FIELDS.items() for path, kind in fields.items()}


def crd(kind: str) -> dict[str, Any]:
    """The operator's schema of a kind, of the version that we write."""
    if not CRDS.is_dir():
        pytest.skip("there are no schemas of the operators beside this checkout")
    versions = {document["apiVersion"] for document in CUSTOM.values() if document["kind"] == kind}
    assert len(versions) == 1
    group, _, version = versions.pop().partition("/")
    found: dict[str, Any] = json.loads((CRDS / f"{group}_{version}_{kind}.json").read_text())
    return found


def strict(schema: Any) -> Any:
    """The schema with each object closed that names its fields, as the API server prunes what it does not know."""
    if not isinstance(schema, dict):
        return schema
    made = {key: strict(value) for key, value in schema.items() if key not in ("properties", "format")}
    if "properties" in schema:
        made["properties"] = {key: strict(value) for key, value in schema["properties"].items()}
        if "additionalProperties" not in schema and not schema.get("x-kubernetes-preserve-unknown-fields"):
            made["additionalProperties"] = False
    if schema.get("x-kubernetes-int-or-string"):
        made["type"] = ["integer", "string"]
    return made


@pytest.mark.parametrize("kind", sorted(FIELDS))
def test_the_operators_take_every_object(kind: str) -> None:
    checker = jsonschema.Draft202012Validator(strict(crd(kind)["schema"]))
    wrong = {
        name: [f"{'.'.join(map(str, error.absolute_path))}: {error.message}" for error in found]
        for name, document in CUSTOM.items()
        if document["kind"] == kind and (found := list(checker.iter_errors(document)))
    }
    assert wrong == {}


@pytest.mark.parametrize("kind", sorted(FIELDS))
def test_the_known_fields_are_those_of_the_operators(kind: str) -> None:
    schema = crd(kind)["schema"]
    assert {path: at for path, at in FIELDS[kind].items() if type_at(schema, path) != at} == {}


def type_at(schema: Any, path: str) -> str | None:
    """Type of a field by the schema."""
    for word in path.replace("[]", ".[]").split("."):
        schema = schema.get("items") if word == "[]" else (schema.get("properties") or {}).get(word)
        if schema is None:
            return None
    if schema.get("x-kubernetes-int-or-string"):
        return "quantity"
    kind: str = "map" if "additionalProperties" in schema else schema["type"]
    return kind


@pytest.mark.parametrize("kind", sorted(FIELDS))
def test_scope_and_plural_are_those_of_the_operators(kind: str) -> None:
    found = crd(kind)
    objects = [document for document in CUSTOM.values() if document["kind"] == kind]
    assert all(("namespace" in document["metadata"]) == (found["scope"] == "Namespaced") for document in objects)
    assert kube.PLURALS.get(kind, found["plural"]) == found["plural"]


# The files


def test_the_example_profile_shows_every_key_and_says_what_is_no_default() -> None:
    text = (CLUSTER / "cluster.toml").read_text()
    example = tomllib.loads(text)
    assert set(example) | {"node_selector", "tolerations"} == {field.name for field in dataclasses.fields(Profile)}
    assert "[node_selector]" in text
    assert "[[tolerations]]" in text
    built, defaults = cluster_profile.build(example, owner="example"), Profile()
    differing = {name for name in example if getattr(built, name) != getattr(defaults, name)}
    said = {line.partition("=")[0].strip() for line in text.splitlines() if '# default ""' in line}
    assert differing - {"components"} == said


def test_the_example_profile_names_what_the_files_make() -> None:
    built = cluster_profile.load({"TELECINE_CLUSTER": str(CLUSTER / "cluster.toml")})
    made = {(document["kind"], document["metadata"]["name"]) for _, document in files()}
    assert made >= {
        ("Namespace", built.namespace),
        ("ServiceAccount", built.service_account),
        ("LocalQueue", built.queue),
        ("WorkloadPriorityClass", built.priority_class),
        ("ClusterTrainingRuntime", built.runtime),
    }
    classes = {name for kind, name in made if kind == "WorkloadPriorityClass"}
    assert {table["priority_class"] for table in built.components.values() if "priority_class" in table} <= classes
    [levels] = [document["spec"]["levels"] for _, document in files() if document["kind"] == "Topology"]
    assert {"nodeLabel": built.topology} in levels


def test_the_files_of_the_queue_name_each_other() -> None:
    made = {(document["kind"], document["metadata"]["name"]): document for _, document in files()}
    for (kind, _), document in made.items():
        if kind == "LocalQueue":
            assert ("ClusterQueue", document["spec"]["clusterQueue"]) in made
        if kind == "ResourceFlavor" and "topologyName" in document.get("spec", {}):
            assert ("Topology", document["spec"]["topologyName"]) in made
        if kind == "ClusterQueue":
            for group in document["spec"]["resourceGroups"]:
                covered = group["coveredResources"]
                for flavor in group["flavors"]:
                    assert ("ResourceFlavor", flavor["name"]) in made
                    assert [quota["name"] for quota in flavor["resources"]] == covered


def test_the_queue_covers_every_resource_that_a_pod_asks_for() -> None:
    [queue] = [document for _, document in files() if document["kind"] == "ClusterQueue"]
    covered = {name for group in queue["spec"]["resourceGroups"] for name in group["coveredResources"]}
    asked = {
        name
        for found in TOYS
        for template in pod_templates(kube.manifest(launch_of(found), Profile(), 1)["spec"])
        for container in template["spec"]["containers"]
        for name in container.get("resources", {}).get("requests", {})
    }
    assert asked - covered == set(), "Kueue admits no workload that asks for a resource the queue does not cover"


def test_the_rights_of_airflow_are_few() -> None:
    [role] = [document for _, document in files() if document["kind"] == "Role"]
    verbs = {resource: rule["verbs"] for rule in role["rules"] for resource in rule["resources"]}
    assert not [rule for rule in role["rules"] if "*" in rule["verbs"] + rule["resources"] + rule["apiGroups"]]
    for plural in kube.PLURALS.values():
        swept = ["list"] if plural != "jobs" else []
        assert verbs.pop(plural) == ["create", "get", *swept, "delete"]
    assert {verb for each in verbs.values() for verb in each} == {"get", "list"}
    assert set(verbs) == {
        "pods",
        "events",
        "pods/log",
        "workloads",
        "localqueues",
        "localqueues/pendingworkloads",
    }
    groups = {group for rule in role["rules"] for group in rule["apiGroups"]}
    assert {ref.api_version.rpartition("/")[0] for ref in refs()} <= groups
    [wide] = [document for _, document in files() if document["kind"] == "ClusterRole"]
    [queue] = [document["metadata"]["name"] for _, document in files() if document["kind"] == "ClusterQueue"]
    [rule] = wide["rules"]
    assert (rule["resources"], rule["resourceNames"], rule["verbs"]) == (["clusterqueues"], [queue], ["get"])


def test_every_role_is_given_to_airflow_and_to_nobody_else() -> None:
    made = {(document["kind"], document["metadata"]["name"]): document for _, document in files()}
    bindings = [document for (kind, _), document in made.items() if kind.endswith("Binding")]
    assert {(each["roleRef"]["kind"], each["roleRef"]["name"]) for each in bindings} == {
        key for key in made if key[0].endswith("Role")
    }
    for each in bindings:
        [subject] = each["subjects"]
        assert subject == {"kind": "ServiceAccount", "name": "telecine-airflow", "namespace": "telecine"}
        assert (subject["kind"], subject["name"]) in made


def refs() -> list[kube.Ref]:
    return [kube.ref(kube.manifest(launch_of(found), Profile(), 1)) for found in TOYS]


def test_a_runtime_holds_what_a_trainjob_cannot_say() -> None:
    [made] = [document for _, document in files() if document["kind"] == "ClusterTrainingRuntime"]
    [template] = pod_templates(made["spec"])
    runtime = template["spec"]
    pod = kube.pod_template(launch_of(TOYS[0]), Profile())["spec"]
    for name in ("restartPolicy", "automountServiceAccountToken", "enableServiceLinks", "securityContext"):
        assert runtime[name] == pod[name]
    [inner], [container] = runtime["containers"], pod["containers"]
    assert inner["name"] == kube.TRAINER_CONTAINER
    for name in ("imagePullPolicy", "terminationMessagePolicy", "securityContext"):
        assert inner[name] == container[name]
    said = kube.manifest(launch_of(TOYS[2]), Profile(), 1)["spec"]
    [patched] = pod_templates(said["runtimePatches"])
    assert set(pod) - set(runtime) <= set(patched["spec"])
    resources = {"resources": "resourcesPerNode"}
    missing = {name for name in container if name not in inner and name not in patched["spec"]["containers"][0]}
    assert {name for name in missing if resources.get(name, name) not in said["trainer"]} == {"envFrom"}
