"""A cluster's profile: read strictly, laid over a component, and never more than the component was written for."""

import dataclasses
import re
from pathlib import Path

import pytest

from telecine import cluster_profile, component
from telecine.cluster_profile import Profile, Toleration
from telecine.component import Component, Resources
from telecine.errors import InputError

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def train() -> Component:
    """A component that takes two nodes and four Ray workers, in turns."""
    found = component.find("pretrain.train")
    needs = Resources(cpus=2, memory_gib=3.0, nodes=2, ray_workers=4)
    return dataclasses.replace(found, resources=needs, max_nodes=1)


def read(tmp_path: Path, text: str) -> Profile:
    file = tmp_path / "cluster.toml"
    file.write_text(text)
    return cluster_profile.load({"TELECINE_CLUSTER": str(file)})


def test_an_empty_file_gives_the_defaults(tmp_path: Path) -> None:
    assert read(tmp_path, "") == Profile()


def test_the_default_version_of_ray_is_the_pinned_one() -> None:
    pinned = re.search(r"^ray==(.+)$", (REPOSITORY / "constraints.txt").read_text(), re.MULTILINE)
    assert pinned is not None
    assert Profile().ray_version == pinned[1]


def test_tables_become_values(tmp_path: Path) -> None:
    read_back = read(
        tmp_path,
        """
        image_pull_secrets = ["registry"]
        [node_selector]
        zone = "a"
        [[tolerations]]
        key = "spot"
        effect = "NoSchedule"
        """,
    )
    assert read_back.image_pull_secrets == ("registry",)
    assert read_back.node_selector == {"zone": "a"}
    assert read_back.tolerations == (Toleration(key="spot", effect="NoSchedule"),)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("quue = 'a'", "there is no 'quue'; did you mean 'queue'?"),
        ("grace_s = 0", "grace_s must be at least 1, got 0"),
        ("grace_s = '60'", "grace_s must be of type int, got '60'"),
        ("queue = 'Video A'", "queue must be a Kubernetes name of a-z, 0-9, - and ., got 'Video A'"),
        ("queue = 'a..b'", "queue must be a Kubernetes name of a-z, 0-9, - and ., got 'a..b'"),
        ("namespace = 'a.b'", "namespace must be a DNS label of a-z, 0-9 and -, got 'a.b'"),
        ("namespace = ''", "namespace must be a DNS label of a-z, 0-9 and -, got ''"),
        ("[components.'curate.split']\nnamespace = 'a.b'", "namespace must be a DNS label"),
        ("image_pull_policy = 'Sometimes'", "image_pull_policy must be one of"),
        ("image_pull_secrets = 'registry'", "image_pull_secrets must be a list, got 'registry'"),
        ("node_selector = {zone = 1}", "node_selector must be a table of labels, each a text, got {'zone': 1}"),
        ("tolerations = {key = 'spot'}", "tolerations must be tables under [[tolerations]]"),
        ("[[tolerations]]\noperator = 'Equal'", "tolerations: key must be given"),
        ("[[tolerations]]\nkey = 'a'\neffect = 'Never'", "tolerations: effect must be one of"),
        ("components = 1", "components must be tables"),
        ("[components]\n'curate.split' = 1", "components must be tables"),
        ("[components.'curate.splitt']\ncpus = 1", "there is no component 'curate.splitt'"),
        (
            "[components.'curate.split']\ncpu = 1",
            "[components.\"curate.split\"]: there is no 'cpu'; did you mean 'cpus'?",
        ),
        ("[components.'curate.split']\ncpus = 0", '[components."curate.split"]: cpus must be at least 1, got 0'),
        ("[components.'curate.split']\nttl = 1", "[components.\"curate.split\"]: there is no 'ttl'"),
        ("[components.'curate.split']\ncomponents = {}", "[components.\"curate.split\"]: there is no 'components'"),
        ("= 1", "not valid TOML"),
    ],
)
def test_what_cannot_be_is_refused_with_its_place(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        read(tmp_path, text)
    assert str(caught.value).startswith(str(tmp_path / "cluster.toml"))


def test_no_profile_says_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"TELECINE_CLUSTER must name .* infra/cluster/cluster.toml; it is not set"):
        cluster_profile.load({})
    with pytest.raises(InputError, match="got '.*nowhere.toml'"):
        cluster_profile.load({"TELECINE_CLUSTER": str(tmp_path / "nowhere.toml")})


def test_a_components_table_wins_for_it_alone(train: Component) -> None:
    table = {"queue": "urgent", "cpus": 8, "tolerations": [{"key": "spot"}]}
    built = Profile(queue="video", grace_s=60, components={"pretrain.train": table})
    assert built.of(train) == Profile(queue="urgent", grace_s=60, tolerations=(Toleration(key="spot"),))
    assert built.resources(train) == dataclasses.replace(train.resources, cpus=8)
    other = component.find("curate.split")
    assert built.of(other) == Profile(queue="video", grace_s=60)
    assert built.resources(other) == other.resources


@pytest.mark.parametrize(("name", "declared"), [("nodes", 2), ("ray_workers", 4)])
def test_nobody_runs_a_component_on_more_than_it_was_written_for(train: Component, name: str, declared: int) -> None:
    fewer = Profile(components={"pretrain.train": {name: declared - 1}})
    assert getattr(fewer.resources(train), name) == declared - 1
    more = Profile(components={"pretrain.train": {name: declared + 1}})
    with pytest.raises(InputError, match=rf"{name} must be at most {declared}, .* got {declared + 1}"):
        more.resources(train)


def test_a_file_that_starts_a_single_node_component_twice_is_refused(tmp_path: Path) -> None:
    for name, line in (("curate.split", "nodes = 2"), ("curate.filter", "ray_workers = 1")):
        with pytest.raises(InputError, match="each of more would do all of the work again"):
            read(tmp_path, f'[components."{name}"]\n{line}')


def test_a_component_whose_items_are_made_in_stages_takes_ray_workers(tmp_path: Path) -> None:
    found = component.find("curate.split")
    assert found.resources.ray_workers == 0
    assert read(tmp_path, '[components."curate.split"]\nray_workers = 8').resources(found).ray_workers == 8


def test_a_component_that_others_can_follow_takes_several_nodes(tmp_path: Path) -> None:
    found = component.find("pretrain.train")
    assert found.resources.nodes == 1
    profile = read(tmp_path, '[components."pretrain.train"]\nnodes = 3\ngpus = 8')
    assert (profile.resources(found).nodes, profile.resources(found).gpus) == (3, 8)
    with pytest.raises(InputError, match="nodes must be at most 64"):
        read(tmp_path, '[components."pretrain.train"]\nnodes = 65')
