"""Two nodes, as Kubeflow Trainer starts them: the same command on each, and variables that say which one it is."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from telecine import component, settings
from telecine.errors import InputError, RetryLater
from telecine.nodes import Follower, Nodes, load_follower
from telecine.reading import Reader
from telecine.storage import Store
from telecine_components.training import ranks

MAIN = "import sys; from telecine.cli import main; sys.exit(main())"
SIZES = {"num_steps": 6, "checkpoint_every_steps": 3, "eval_every_steps": 3, "zero_stage": 1}


def start(
    deployment: settings.Settings, dataset: Path, result: Path, inputs: dict[str, Any], **variables: str
) -> "subprocess.Popen[str]":
    command = [sys.executable, "-P", "-c", MAIN, "run", "pretrain.train", "--result", str(result)]
    command += ["--set", f"dataset_uri={dataset}", "--run", "nodes"]
    command += [part for name, value in inputs.items() for part in ("--set", f"{name}={json.dumps(value)}")]
    environment = os.environ | deployment.environment() | {"GLOO_SOCKET_IFNAME": "lo"} | variables
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def test_two_nodes_of_one_rank_make_the_model_of_one_node_with_two(
    deployment: settings.Settings, make_dataset: Callable[..., Path], tiny_training: dict[str, Any], tmp_path: Path
) -> None:
    dataset, inputs = make_dataset(deployment), {**tiny_training, **SIZES}
    place = {"PET_NNODES": "2", "PET_MASTER_ADDR": "127.0.0.1", "PET_MASTER_PORT": str(free_port())}
    results = [tmp_path / f"{number}.json" for number in range(3)]
    nodes = [
        start(deployment, dataset, results[number], inputs, PET_NODE_RANK=str(number), **place) for number in (1, 0)
    ]
    said = [node.communicate(timeout=240)[0] for node in nodes]
    assert [node.returncode for node in nodes] == [0, 0], "\n".join(said)
    assert "event=followed component=pretrain.train" in said[0] and not results[1].exists()
    one = start(deployment, dataset, results[2], inputs | {"num_processes": 2})
    assert one.wait(timeout=240) == 0, one.stdout and one.stdout.read()
    first, second = (json.loads(results[number].read_text())["outputs"] for number in (0, 2))
    weights = [Path(out["model_uri"].removeprefix("file://")) / "transformer" for out in (first, second)]
    names = [path.name for path in weights[0].glob("*.safetensors")]
    assert names and all((weights[0] / name).read_bytes() == (weights[1] / name).read_bytes() for name in names)
    late = start(deployment, dataset, tmp_path / "late.json", inputs, PET_NODE_RANK="1", **place)
    assert late.wait(timeout=120) == 0, "the work is done: a node that comes late has nothing to follow"


def test_a_node_that_is_gone_makes_the_others_say_try_again(
    deployment: settings.Settings, make_dataset: Callable[..., Path], tiny_training: dict[str, Any], tmp_path: Path
) -> None:
    dataset, inputs = make_dataset(deployment), {**tiny_training, **SIZES, "num_steps": 5000}
    place = {"PET_NNODES": "2", "PET_MASTER_ADDR": "127.0.0.1", "PET_MASTER_PORT": str(free_port())}
    other, leader = (
        start(deployment, dataset, tmp_path / f"{number}.json", inputs, PET_NODE_RANK=str(number), **place)
        for number in (1, 0)
    )
    deadline = time.monotonic() + 120
    while not list((deployment.home / "store").glob("work/pretrain.train/*/checkpoints/*/commit.json")):
        assert time.monotonic() < deadline and leader.poll() is None
        time.sleep(0.05)
    other.kill()
    said = leader.communicate(timeout=120)[0]
    other.communicate()
    assert leader.returncode == 75, said
    assert "another node is gone, or could not be reached; call again to go on" in said


def test_what_trainer_says_is_read_whole_or_refused() -> None:
    assert Nodes.from_environment({}) == Nodes() == Nodes.from_environment({"PET_NNODES": "1"})
    said = {"PET_NNODES": "4", "PET_NODE_RANK": "3", "PET_MASTER_ADDR": "job-node-0-0.job", "PET_MASTER_PORT": "29400"}
    assert Nodes.from_environment(said) == Nodes(3, 4, "tcp://job-node-0-0.job:29400")
    with pytest.raises(InputError, match="PET_NNODES=4 needs PET_NODE_RANK, .*PET_MASTER_PORT: KeyError"):
        Nodes.from_environment({"PET_NNODES": "4", "PET_NODE_RANK": "3"})
    for rank in ("-1", "4"):
        with pytest.raises(InputError, match=f"PET_NODE_RANK must be from 0 to below PET_NNODES=4, got {rank}"):
            Nodes.from_environment(said | {"PET_NODE_RANK": rank})


def test_a_node_whose_leader_is_not_there_in_time_says_try_again() -> None:
    place = f"127.0.0.1:{free_port()}"
    with (
        pytest.raises(RetryLater, match=f"rank 0 was not at {place} within 1 s"),
        ranks.together(1, print, nodes=Nodes(1, 2, f"tcp://{place}"), patience_s=1.0),
    ):
        pass


def test_a_component_of_one_node_has_no_follower(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"curate\.split runs on one node"):
        load_follower(component.find("curate.split"))
    reader = Reader(Store(f"file://{tmp_path}"), tmp_path)
    assert callable(load_follower(component.find("pretrain.train"))) and Follower(reader).path("x") == tmp_path / "x"
