"""Several real processes train one model: the losses of one process, whatever is sharded, and exact resumption."""

import dataclasses
import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from telecine_components.training.loop import STEPS_COMPARED

SCRIPT = Path(__file__).with_name("shared_training.py")
STAGES = (0, 1, 2, 3)


@dataclasses.dataclass(frozen=True)
class Ended:
    """What a task left; ``stopped`` is what it said where it did not come to its end, ``words`` what was logged."""

    losses: list[float]
    grad_norms: list[float]
    history: dict[str, Any]
    weights: dict[str, torch.Tensor]
    average: dict[str, torch.Tensor]
    stopped: str
    straggler_s: float
    words: str
    again: float | None


def task(
    name: str, folder: Path, *, stop_after: int = 10**9, num_experts: int = 0, slow_s: float = 0.0, **config: Any
) -> dict[str, Any]:
    folder.mkdir(parents=True, exist_ok=True)
    return {
        "name": name,
        "folder": str(folder),
        "config": config,
        "stop_after": stop_after,
        "num_experts": num_experts,
        "slow_s": slow_s,
    }


def train(num_processes: int, tasks: Sequence[dict[str, Any]]) -> dict[str, Ended]:
    """Train one task after the other in processes of their own."""
    words = run(num_processes, tasks)
    return {each["name"]: ended(Path(each["folder"]), each["name"], words) for each in tasks}


def run(num_processes: int, tasks: Sequence[dict[str, Any]]) -> str:
    """What the processes said."""
    command = [sys.executable, str(SCRIPT), json.dumps({"num_processes": num_processes, "tasks": tasks})]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stderr


def ended(folder: Path, name: str, words: str) -> Ended:
    told = json.loads((folder / f"{name}.json").read_text())
    stopped = told.get("stopped", "")
    weights, average = ({} if stopped else load_file(folder / f"{name}.{kind}") for kind in ("weights", "average"))
    numbers = {each: told[each] for each in ("losses", "grad_norms", "straggler_s")}
    return Ended(
        **numbers,
        history=told.get("history", {}),
        weights=weights,
        average=average,
        stopped=stopped,
        words=words,
        again=told.get("again"),
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("trainings")


@pytest.fixture(scope="module")
def pair(folder: Path) -> dict[str, Ended]:
    """Two processes: for each stage the plain training, and a mixture's whole, first and second part."""
    tasks = [task("first", folder / "chain", zero_stage=3, stop_after=2)]
    for stage in STAGES:
        tasks.append(task(f"shared-{stage}", folder / f"shared-{stage}", zero_stage=stage, sequence_parallel=2))
    for stage in STAGES:
        tasks.append(task(f"plain-{stage}", folder / f"plain-{stage}", zero_stage=stage))
        if stage < 3:  # it never packs
            tasks.append(task(f"bound-{stage}", folder / f"bound-{stage}", zero_stage=stage, max_tokens=1))
        tasks += in_parts(folder, f"{stage}", zero_stage=stage)
    return train(2, tasks)


@pytest.fixture(scope="module")
def alone(folder: Path, pair: dict[str, Ended]) -> dict[str, Ended]:
    """One process: the same, and the second part of what two processes began."""
    tasks = [
        task("plain", folder / "plain"),
        *in_parts(folder, "alone"),
        task("second", folder / "chain", stop_after=2),
    ]
    return train(1, tasks)


def in_parts(folder: Path, name: str, **config: Any) -> list[dict[str, Any]]:
    parts = folder / f"parts-{name}"
    return [
        task(f"whole-{name}", folder / f"whole-{name}", num_experts=2, **config),
        task(f"before-{name}", parts, num_experts=2, stop_after=6, **config),
        task(f"after-{name}", parts, num_experts=2, **config),
    ]


@pytest.mark.parametrize(
    "name",
    [f"{kind}-{stage}" for kind in ("plain", "shared") for stage in STAGES] + [f"bound-{stage}" for stage in range(3)],
)
def test_two_processes_have_the_losses_norms_and_weights_of_one(
    alone: dict[str, Ended], pair: dict[str, Ended], name: str
) -> None:
    """Whether they share out the samples or the tokens of each.

    Also of a step in which one has nothing to do, and where they accumulate what one computes at once.
    """
    found, expected = pair[name], alone["plain"]
    assert found.again == pytest.approx(found.losses[-1], rel=1e-6), "it has gone back, small weights too"
    assert found.losses == pytest.approx(expected.losses, rel=2e-5)
    assert found.grad_norms == pytest.approx(expected.grad_norms, rel=2e-4)
    assert found.weights.keys() == expected.weights.keys()
    for parameter, tensor in expected.average.items():
        torch.testing.assert_close(found.average[parameter], tensor, rtol=1e-3, atol=2e-5, msg=parameter)


@pytest.mark.parametrize(
    ("num_processes", "configs"),
    [
        (2, [{}, {"max_tokens": 1, "recompute": True}]),  # samples of several shapes as one pack, and one by one
        (4, [{}]),
    ],
)
def test_ranks_that_share_tokens_have_the_loss_and_the_gradients_of_one(
    folder: Path, num_processes: int, configs: list[dict[str, Any]]
) -> None:
    def asked(name: str, **config: Any) -> dict[str, Any]:
        return task(name, folder, **config) | {"only_gradients": True}

    names = [f"share-{num_processes}-{number}" for number in range(len(configs))]
    run(1, [asked("gradients")])
    run(num_processes, [asked(name, sequence_parallel=2, **each) for name, each in zip(names, configs, strict=True)])
    for name in names:
        expected, found = (load_file(folder / f"{each}.gradients") for each in ("gradients", name))
        assert found.keys() == expected.keys()
        for part, values in expected.items():
            scale = float(values.abs().max())
            assert scale > 0, part
            torch.testing.assert_close(found[part], values, rtol=1e-5, atol=1e-5 * scale, msg=part)


@pytest.mark.parametrize("name", ["alone", *map(str, STAGES)])
def test_a_stopped_training_goes_on_bit_for_bit(alone: dict[str, Ended], pair: dict[str, Ended], name: str) -> None:
    every = alone | pair
    whole, before, after = (every[f"{part}-{name}"] for part in ("whole", "before", "after"))
    assert before.stopped == "stopped after step 6 of 9; its checkpoint is saved"
    assert [*before.losses, *after.losses] == whole.losses and after.history == whole.history
    for tensors, others in ((after.weights, whole.weights), (after.average, whole.average)):
        assert tensors.keys() == others.keys()
        assert all(torch.equal(tensors[name], others[name]) for name in others)
    thresholds = [tensor for name, tensor in whole.weights.items() if name.endswith("thresholds")]
    assert len(thresholds) == 1 and thresholds[0].min() > 0


def test_a_training_goes_on_with_other_numbers_of_processes_and_stages(
    folder: Path, alone: dict[str, Ended], pair: dict[str, Ended]
) -> None:
    last = train(2, [task("last", folder / "chain", zero_stage=1)])["last"]
    assert [len(each.losses) for each in (pair["first"], alone["second"], last)] == [2, 2, 5]
    assert [value for _, value in last.history["train/loss"]] == pytest.approx(alone["plain"].losses, rel=5e-5)


def test_a_rank_that_is_slow_to_read_is_named_and_what_waiting_for_it_costs_is_accounted_for(folder: Path) -> None:
    """Also at stage 3, where the others wait for it in their forward pass."""
    slow = {"slow_s": 0.1, "num_steps": STEPS_COMPARED, "checkpoint_every_steps": 1000}
    found = train(2, [task(f"slow-{stage}", folder / f"slow-{stage}", zero_stage=stage, **slow) for stage in (0, 3)])
    for each in found.values():
        named = re.findall(rf"event=straggler step={STEPS_COMPARED} reason='rank (\d) takes .* s a step", each.words)
        assert named == ["1", "1"]
        assert 0.5 < each.straggler_s / (STEPS_COMPARED * 0.1) < 2.0
