"""What is asked of Kubernetes, as data: names, labels, pods, and what is refused before anything is asked.

``tests/infra/test_cluster_manifests.py`` holds every manifest to the schemas.
"""

import dataclasses
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from telecine import kube, pods
from telecine.cluster_profile import Profile, Toleration
from telecine.component import Component, Resources
from telecine.config import Artifact, param
from telecine.errors import InputError
from telecine.launch import Launch
from telecine.settings import Settings

NASTY = "$(HOME) $$(HOME) $HOME `id` ; rm -rf / \"'\\ \n\t\x01 \u00e9\U0001f3ac $(echo no)"
PLACES = Settings(
    home=Path("/nowhere"), store_uri="s3://bucket/store", tracking_uri="http://mlflow:5000", runner="cluster"
)
KINDS = {"Job": {}, "TrainJob": {"nodes": 3}, "RayJob": {"ray_workers": 2}}
KEY = "0123456789abcdef" * 2


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inputs:
    """Of a toy."""

    clips_uri: Artifact = param(Artifact(""), help="Clips.")
    text: str = param("a", help="A text.")


def call(name: str = "toy.work", *, text: str = "a", clips_uri: str = "", **changes: Any) -> Launch:
    """A launch of a toy; what is no field of it is one of its resources."""
    fields = {field.name for field in dataclasses.fields(Launch)}
    needs = Resources(**{key: value for key, value in changes.items() if key not in fields})
    made = Component(name=name, inputs=Inputs, outputs=Inputs, entry="a:b", image="train", resources=needs)
    inputs = Inputs(text=text, clips_uri=Artifact(clips_uri))
    launch = Launch(component=made, inputs=inputs, run="flywheel-1", task="toy.work", key=KEY, settings=PLACES)
    return dataclasses.replace(launch, **{key: value for key, value in changes.items() if key in fields})


def pod_specs(value: Any) -> Iterator[dict[str, Any]]:
    """Every pod spec in a manifest."""
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        if isinstance(inner, dict) and "containers" in inner:
            yield inner
        yield from pod_specs(inner)


def expanded(text: str, variables: dict[str, str]) -> str:
    """What a process sees of a variable's value, by the rules of the kubelet: $(NAME), and $$ for one $."""
    return re.sub(
        r"\$\$|\$\(([^)]*)\)",
        lambda found: "$" if found[0] == "$$" else variables.get(found[1], found[0]),
        text,
    )


# Names


@pytest.mark.parametrize(
    ("component", "number", "expected"),
    [
        ("pretrain.train", 2, "pretrain-train-0123456789-2"),
        ("curate.scene_cut", 10, "curate-scene-cut-0123456789-10"),
        ("a" * 40 + "." + "b" * 40, 123, "a" * 32 + "-0123456789-123"),
        ("a" * 31 + "." + "b" * 40, 123, "a" * 31 + "-0123456789-123"),
    ],
)
def test_a_name_follows_from_component_key_and_number(component: str, number: int, expected: str) -> None:
    made = kube.name(call(component), number)
    assert made == expected
    assert len(made) <= kube.MAX_NAME
    assert re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", made)


def test_whoever_asks_for_the_same_attempt_asks_for_the_same_name() -> None:
    one = call(run="one", task="a", attempt=1)
    other = call(run="other", task="b", attempt=7, settings=dataclasses.replace(PLACES, store_uri="s3://b/c"))
    assert kube.name(one, 3) == kube.name(other, 3)
    assert kube.name(one, 3) != kube.name(one, 4)
    assert kube.name(one, 3) != kube.name(dataclasses.replace(one, key="f" * 32), 3)


@pytest.mark.parametrize("kind", KINDS)
def test_a_ref_says_where_the_object_lives(kind: str) -> None:
    made = kube.manifest(call(**KINDS[kind]), Profile(namespace="team"), 1)
    assert kube.kind(call(**KINDS[kind]), Profile()) == made["kind"] == kind
    assert kube.ref(made) == kube.Ref(
        api_version=made["apiVersion"],
        kind=kind,
        plural=kind.lower() + "s",
        namespace="team",
        name="toy-work-0123456789-1",
    )


def test_a_component_that_was_written_for_several_nodes_may_get_one() -> None:
    one = Profile(components={"toy.work": {"nodes": 1, "ray_workers": 0}})
    assert kube.kind(call(nodes=3), one) == "Job"
    assert kube.kind(call(ray_workers=2), one) == "Job"


def test_nodes_and_ray_workers_exclude_each_other() -> None:
    with pytest.raises(InputError, match="2 Ray workers and 3 nodes exclude each other"):
        kube.manifest(call(nodes=3, ray_workers=2), Profile(), 1)


# Labels


@pytest.mark.parametrize(
    "text", ["pretrain.train", "a" * 64, "_private", "round_1.align.tune", "a" * 62 + ".-", "a-", "___"]
)
def test_any_task_gives_a_legal_label(text: str) -> None:
    made = pods.label(text)
    assert re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?", made)
    assert pods.label(text + "x") != made


@pytest.mark.parametrize("kind", KINDS)
def test_object_and_pods_carry_run_component_task_and_key(kind: str) -> None:
    made = kube.manifest(call(task="round_1.toy.work-" + "x" * 60, **KINDS[kind]), Profile(), 1)
    for template in [made, *templates(made["spec"])]:
        labels, annotations = template["metadata"]["labels"], template["metadata"]["annotations"]
        assert labels["telecine.io/run"] == annotations["telecine.io/run"] == "flywheel-1"
        assert labels["telecine.io/component"] == "toy-work"
        assert labels["telecine.io/key"] == KEY
        assert labels["app.kubernetes.io/managed-by"] == "telecine"
        assert len(labels["telecine.io/task"]) <= 63
        assert annotations["telecine.io/task"] == "round_1.toy.work-" + "x" * 60
        assert annotations["telecine.io/component"] == "toy.work"


def templates(value: Any) -> Iterator[dict[str, Any]]:
    """Every pod template in a manifest's spec."""
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        if isinstance(inner, dict) and "containers" in inner.get("spec", {}):
            yield inner
        else:
            yield from templates(inner)


# Inputs and secrets


def variables_of(manifest: dict[str, Any]) -> dict[str, str]:
    """What the component's process finds in its environment."""
    spec = manifest["spec"]
    env = spec["trainer"]["env"] if "trainer" in spec else next(pod_specs(spec))["containers"][0]["env"]
    given: dict[str, str] = {}
    for each in env:
        if "value" in each:
            given[each["name"]] = expanded(each["value"], given)
    return given


@pytest.mark.parametrize("kind", KINDS)
def test_inputs_arrive_as_they_are(kind: str) -> None:
    made = kube.manifest(call(text=NASTY, **KINDS[kind]), Profile(), 1)
    seen = variables_of(yaml.safe_load(yaml.safe_dump(made)))
    assert json.loads(seen["TELECINE_INPUTS"]) == {"clips_uri": "", "text": NASTY}
    assert (seen["HOME"], seen["TELECINE_HOME"], seen["TELECINE_RUNNER"]) == (
        pods.HOME,
        f"{pods.HOME}/telecine",
        "process",
    )
    assert seen["TELECINE_STORE"] == PLACES.store_uri


@pytest.mark.parametrize("text", ["$(A)", "$$(A)", "$", "$$", "$(", "$(A", "$$$(A)", "a$(B)$$c", "\\$(A)"])
def test_an_escaped_value_means_itself(text: str) -> None:
    assert expanded(pods.escape(text), {"A": "no", "B": "no"}) == text


@pytest.mark.parametrize("kind", KINDS)
def test_inputs_reach_no_command_line(kind: str) -> None:
    spec = kube.manifest(call(text=NASTY, **KINDS[kind]), Profile(), 1)["spec"]
    words = ["telecine", "run", "toy.work", "--inputs", "env:TELECINE_INPUTS", "--run", "flywheel-1"]
    words += ["--task", "toy.work", "--key", KEY]
    if kind == "RayJob":
        assert spec["entrypoint"] == " ".join(words)
    elif kind == "TrainJob":
        assert spec["trainer"]["command"] == words
    else:
        assert spec["template"]["spec"]["containers"][0]["command"] == words


@pytest.mark.parametrize("task", ["a;b", "a b", "$(a)", "", "-x", "a\nb"])
def test_only_plain_words_reach_a_command_line(task: str) -> None:
    with pytest.raises(InputError, match="must be a plain word"):
        kube.manifest(call(task=task, ray_workers=1), Profile(), 1)


@pytest.mark.parametrize("kind", KINDS)
def test_no_manifest_holds_a_secret(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in kube.CREDENTIALS:
        monkeypatch.setenv(variable, f"hush-{variable}")
    name = "keys"
    text = json.dumps(kube.manifest(call(**KINDS[kind]), Profile(secret=name), 1))
    assert "hush" not in text
    if kind == "TrainJob":
        refs = re.findall(r'"secretKeyRef": \{"name": "keys", "key": "(\w+)"', text)
        assert tuple(refs) == kube.CREDENTIALS
    else:
        assert '"envFrom": [{"secretRef": {"name": "keys"}}]' in text
    without = json.dumps(kube.manifest(call(**KINDS[kind]), Profile(secret=""), 1))
    assert "envFrom" not in without
    assert "secretKeyRef" not in without


def test_the_pod_that_submits_to_ray_gets_neither_inputs_nor_credentials_nor_gpus() -> None:
    here = Profile(gpu_product="NVIDIA-H200", topology="rack", tolerations=(Toleration(key="spot"),))
    template = kube.manifest(call(ray_workers=1, gpus=4), here, 1)["spec"]["submitterPodTemplate"]
    [container] = template["spec"]["containers"]
    assert container["env"] == [{"name": "HOME", "value": pods.HOME}]
    assert container["resources"]["limits"] == {"memory": "1024Mi"}
    assert template["spec"]["tolerations"] == [{"key": "spot", "operator": "Exists"}]
    assert not {"nodeSelector", "affinity"} & set(template["spec"])
    assert not [name for name in template["metadata"]["annotations"] if "topology" in name]
    assert not {"envFrom", "command"} & set(container)


# The pod


@pytest.mark.parametrize("kind", KINDS)
def test_pods_are_restricted(kind: str) -> None:
    made = kube.manifest(call(gpus=1, **KINDS[kind]), Profile(), 1)
    specs = list(pod_specs(made["spec"]))
    assert len(specs) == {"Job": 1, "TrainJob": 1, "RayJob": 3}[kind]
    for spec in specs:
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["runAsUser"] == 10001
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert {key for volume in spec["volumes"] for key in volume} == {"name", "emptyDir"}
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec)
        for container in spec["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "capabilities": {"drop": ["ALL"]},
                "readOnlyRootFilesystem": True,
                "runAsNonRoot": True,
            }
        if kind != "TrainJob":  # the runtime says it
            assert spec["restartPolicy"] == "Never"
            assert spec["automountServiceAccountToken"] is spec["enableServiceLinks"] is False


def container_of(launch: Launch, here: Profile) -> dict[str, Any]:
    """The container of the one pod template."""
    [container] = kube.pod_template(launch, here)["spec"]["containers"]
    return dict(container)


def test_memory_and_gpus_are_bounded_by_what_is_asked_for() -> None:
    launch = call(cpus=4, memory_gib=2.5, gpus=8)
    assert container_of(launch, Profile())["resources"] == {
        "requests": {"cpu": "4", "memory": "2560Mi", "nvidia.com/gpu": "8"},
        "limits": {"memory": "2560Mi", "nvidia.com/gpu": "8"},
    }
    bounded = container_of(launch, Profile(cpu_limit=True, gpu_resource="amd.com/gpu"))["resources"]
    assert bounded["limits"] == bounded["requests"] == {"cpu": "4", "memory": "2560Mi", "amd.com/gpu": "8"}


def test_a_pod_with_gpus_goes_where_they_are() -> None:
    here = Profile(gpu_product="NVIDIA-H200", node_selector={"zone": "a"}, topology="rack")
    plain, gpu = kube.pod_template(call(), here), kube.pod_template(call(gpus=1), here)
    assert plain["spec"]["nodeSelector"] == {"zone": "a"}
    assert gpu["spec"]["nodeSelector"] == {"zone": "a", "nvidia.com/gpu.product": "NVIDIA-H200"}
    assert "tolerations" not in plain["spec"]
    assert gpu["spec"]["tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
    assert gpu["metadata"]["annotations"]["kueue.x-k8s.io/podset-preferred-topology"] == "rack"
    required = kube.pod_template(call(gpus=1), dataclasses.replace(here, topology_required=True))
    assert required["metadata"]["annotations"]["kueue.x-k8s.io/podset-required-topology"] == "rack"
    assert "kueue.x-k8s.io/podset-preferred-topology" not in plain["metadata"]["annotations"]


@pytest.mark.parametrize("kind", KINDS)
def test_broken_nodes_are_avoided(kind: str) -> None:
    made = kube.manifest(call(**KINDS[kind]), Profile(), 1, ["b", "a", "b"])
    for spec in pod_specs(made["spec"]):
        terms = spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
        rules = [{"key": "metadata.name", "operator": "NotIn", "values": [name]} for name in ("a", "b")]
        assert terms == [{"matchFields": rules}], "terms are alternatives, and a field takes one value"
    assert "affinity" not in json.dumps(kube.manifest(call(**KINDS[kind]), Profile(), 1))


@pytest.mark.parametrize("kind", KINDS)
def test_a_queue_gets_a_suspended_job(kind: str) -> None:
    queued = kube.manifest(call(**KINDS[kind]), Profile(queue="video-a", priority_class="urgent"), 1)
    assert queued["spec"]["suspend"] is True
    assert queued["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "video-a"
    assert queued["metadata"]["labels"]["kueue.x-k8s.io/priority-class"] == "urgent"
    free = kube.manifest(call(**KINDS[kind]), Profile(priority_class="urgent"), 1)
    assert "suspend" not in free["spec"]
    assert not [name for name in free["metadata"]["labels"] if name.startswith("kueue")]


@pytest.mark.parametrize("kind", KINDS)
def test_time_is_bounded_as_the_profile_says(kind: str) -> None:
    made = kube.manifest(call(**KINDS[kind]), Profile(max_run_s=600, grace_s=77), 1)
    assert made["spec"]["activeDeadlineSeconds"] == 600
    assert {spec["terminationGracePeriodSeconds"] for spec in pod_specs(made["spec"])} == {77}
    assert "activeDeadlineSeconds" not in kube.manifest(call(**KINDS[kind]), Profile(), 1)["spec"]


def test_only_a_disruption_costs_no_attempt() -> None:
    spec = kube.manifest(call(), Profile(ttl_s=5), 1)["spec"]
    assert (spec["backoffLimit"], spec["ttlSecondsAfterFinished"]) == (0, 5)
    disrupted = {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}
    assert spec["podFailurePolicy"]["rules"] == [disrupted], "a rule on exit codes also fails a Job that Kueue suspends"
    assert spec["podReplacementPolicy"] == "Failed"


def test_training_gets_shared_memory_within_its_own() -> None:
    volumes = {v["name"]: v["emptyDir"] for v in kube.pod_template(call(memory_gib=8.0), Profile())["spec"]["volumes"]}
    assert volumes == {"tmp": {"sizeLimit": "20480Mi"}, "shm": {"medium": "Memory", "sizeLimit": "4096Mi"}}
    light = call()
    light = dataclasses.replace(light, component=dataclasses.replace(light.component, image="curate"))
    [only] = kube.pod_template(light, Profile())["spec"]["volumes"]
    assert only["name"] == "tmp"
    assert container_of(light, Profile())["volumeMounts"] == [{"name": "tmp", "mountPath": pods.HOME}]


def test_the_rest_of_the_profile_reaches_the_pod(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TELECINE_IMAGE_PREFIX", "registry.example/video/")
    monkeypatch.setenv("TELECINE_IMAGE_TAG", "v7")
    here = Profile(
        service_account="worker",
        image_pull_secrets=("one", "two"),
        image_pull_policy="Always",
        pod_priority_class="urgent",
        tolerations=(Toleration(key="spot", operator="Equal", value="true", effect="NoSchedule"),),
    )
    spec = kube.pod_template(call(), here)["spec"]
    assert spec["serviceAccountName"] == "worker"
    assert spec["imagePullSecrets"] == [{"name": "one"}, {"name": "two"}]
    assert spec["priorityClassName"] == "urgent"
    assert spec["tolerations"] == [{"key": "spot", "operator": "Equal", "value": "true", "effect": "NoSchedule"}]
    [container] = spec["containers"]
    assert container["image"] == "registry.example/video/telecine-train:v7"
    assert container["imagePullPolicy"] == "Always"
    assert container["terminationMessagePolicy"] == "FallbackToLogsOnError"


# Several pods


def test_a_ray_job_brings_its_own_cluster_and_takes_it_away() -> None:
    spec = kube.manifest(call(ray_workers=3, cpus=4, gpus=1), Profile(ray_version="2.60.0", ray_linger_s=9), 1)["spec"]
    assert (spec["submissionMode"], spec["backoffLimit"]) == ("K8sJobMode", 0)
    assert (spec["shutdownAfterJobFinishes"], spec["ttlSecondsAfterFinished"]) == (True, 9)
    cluster = spec["rayClusterSpec"]
    assert cluster["rayVersion"] == "2.60.0"
    assert cluster["authOptions"] == {"mode": "token"}
    [workers] = cluster["workerGroupSpecs"]
    assert [workers[name] for name in ("replicas", "minReplicas", "maxReplicas")] == [3, 3, 3]
    assert workers["rayStartParams"] == {"num-cpus": "4", "num-gpus": "1"}
    assert workers["template"] == cluster["headGroupSpec"]["template"]
    assert "command" not in workers["template"]["spec"]["containers"][0]
    bare = kube.manifest(call(ray_workers=3), Profile(ray_auth=False), 1)["spec"]["rayClusterSpec"]
    assert "authOptions" not in bare


def test_a_train_job_is_the_pod_template_in_pieces() -> None:
    launch, here = call(nodes=4, gpus=8), Profile(runtime="another", topology="rack")
    spec = kube.manifest(launch, here, 1, ["a"])["spec"]
    template = kube.pod_template(launch, here, ["a"])
    [container] = template["spec"]["containers"]
    assert spec["runtimeRef"]["name"] == "another"
    trainer = spec["trainer"]
    assert (trainer["numNodes"], trainer["numProcPerNode"]) == (4, 8)
    assert trainer["command"] == container["command"]
    assert trainer["resourcesPerNode"] == container["resources"]
    [patch] = spec["runtimePatches"]
    [job] = patch["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"]
    patched = job["template"]["spec"]["template"]
    assert job["name"] == patched["spec"]["containers"][0]["name"] == kube.TRAINER_CONTAINER
    assert patched["metadata"] == template["metadata"]
    for name in ("affinity", "tolerations", "volumes", "securityContext", "terminationGracePeriodSeconds"):
        assert patched["spec"][name] == template["spec"][name]
    names = [each["name"] for each in trainer["env"]]
    assert len(names) == len(set(names))


@pytest.mark.parametrize(("flag", "value"), [("pod_priority_class", "urgent"), ("image_pull_policy", "Always")])
def test_what_only_a_runtime_can_say_is_not_lost_in_silence(flag: str, value: str) -> None:
    with pytest.raises(InputError, match=f"takes {flag} from its ClusterTrainingRuntime, got '{value}'"):
        kube.manifest(call(nodes=2), Profile(**{flag: value}), 1)


# What a pod cannot reach


@pytest.mark.parametrize(
    ("clips", "message"),
    [
        ("/disk/clips", "cannot read clips_uri='/disk/clips', which lies on this machine's disk; copy it to"),
        ("file:///disk/clips", "cannot read clips_uri='file:///disk/clips'"),
        ("clips", "cannot read clips_uri='clips'"),
    ],
)
@pytest.mark.parametrize("kind", KINDS)
def test_what_lies_on_this_machine_is_refused(kind: str, clips: str, message: str) -> None:
    launch = call(clips_uri=clips, **KINDS[kind])
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        kube.manifest(launch, Profile(), 1)
    assert str(caught.value).startswith("toy.work: a pod")


def test_an_artifact_in_a_bucket_is_fine() -> None:
    kube.manifest(call(clips_uri="s3://another/clips"), Profile(), 1)
