"""Thresholds move once per optimizer step whatever the trainer does, over all ranks, and are copied, never averaged."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from telecine_models.moe.diffmoe import DiffMoE
from telecine_models.moe.routing import Routing
from telecine_models.moe.thresholds import copy_buffers, update_thresholds


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def two_layers() -> nn.ModuleList:
    torch.manual_seed(0)
    return nn.ModuleList(DiffMoE(8, num_experts) for num_experts in (4, 2))


def step(layers: nn.ModuleList, micro_batches: list[Tensor], checkpointed: bool) -> list[Tensor | None]:
    """One optimizer step without the optimizer: gradients over all micro-batches, then the thresholds."""
    routings = []
    for x in micro_batches:
        routings.append([])
        for layer in layers:
            y, routing = checkpoint(layer, x, use_reentrant=False) if checkpointed else layer(x)
            x = x + y
            routings[-1].append(routing)
        (x.square().mean() + sum(routing.loss for routing in routings[-1])).backward()
    update_thresholds(list(layers), routings)
    return [p.grad for p in layers.parameters()]


def test_a_constant_quantile_is_approached_as_published() -> None:
    layer, quantile = DiffMoE(8, 4), torch.tensor([0.1, 0.4, 0.7, 1.0])
    routing = Routing(torch.ones(1, 4, 4, dtype=torch.bool), torch.zeros(()), quantile, 4)
    for number in range(1, 101):
        update_thresholds([layer], [[routing]])
        if number in (1, 10, 100):
            torch.testing.assert_close(layer.thresholds, quantile * (1 - 0.95**number))
    torch.testing.assert_close(layer.thresholds, 0.99408 * quantile, rtol=1e-5, atol=0)


def test_activation_checkpointing_changes_neither_thresholds_nor_gradients() -> None:
    plain, checkpointed, batches = two_layers(), two_layers(), [random(2, 8, 8)]
    assert all(
        torch.equal(a, b) for a, b in zip(step(plain, batches, False), step(checkpointed, batches, True), strict=True)
    )
    for one, other in zip(plain, checkpointed, strict=True):
        assert one.thresholds.all() and torch.equal(one.thresholds, other.thresholds)


@pytest.mark.parametrize("checkpointed", [False, True])
def test_accumulated_micro_batches_move_thresholds_once_by_the_mean_of_their_quantiles(checkpointed: bool) -> None:
    layers, batches = two_layers(), [random(2, 8, 8, seed=seed) for seed in range(3)]
    quantiles = torch.stack([layers[0](x)[1].quantiles for x in batches]).mean(0)
    step(layers, batches, checkpointed)
    torch.testing.assert_close(layers[0].thresholds, 0.05 * quantiles)


RANK = """
import json, sys, torch
from torch import distributed
from telecine_models.moe.diffmoe import DiffMoE
from telecine_models.moe.thresholds import update_thresholds
rank, meeting = int(sys.argv[1]), sys.argv[2]
torch.set_num_threads(1)
torch.manual_seed(0)
layers = [DiffMoE(8, 4), DiffMoE(8, 2)]
random = torch.Generator().manual_seed(rank)
steps = [torch.randn(2, 8, 8, generator=random) for _ in range(2 - rank)]
routings = [[layer(x)[1] for layer in layers] for x in steps]
distributed.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=3)
update_thresholds(layers, routings)
distributed.destroy_process_group()
own = [[routing.quantiles.tolist() for routing in step] for step in routings]
print(json.dumps({"own": own, "thresholds": [layer.thresholds.tolist() for layer in layers]}))
"""


def test_ranks_agree_on_the_mean_of_all_their_quantiles_though_one_has_two_and_another_none(tmp_path: Path) -> None:
    command = [sys.executable, "-P", "-c", RANK]
    ranks = [
        subprocess.Popen([*command, str(rank), str(tmp_path / "meeting")], stdout=subprocess.PIPE, text=True)
        for rank in (0, 1, 2)
    ]
    told = [json.loads(rank.communicate(timeout=60)[0].splitlines()[-1]) for rank in ranks]
    met = [step for each in told for step in each["own"]]
    assert [len(each["own"]) for each in told] == [2, 1, 0] and all(one != met[0] for one in met[1:])
    for each in told:
        for layer in (0, 1):
            mean = torch.tensor([step[layer] for step in met]).mean(0)
            torch.testing.assert_close(torch.tensor(each["thresholds"][layer]), 0.05 * mean)


def test_thresholds_survive_a_checkpoint_and_a_change_of_precision(tmp_path: Path) -> None:
    layer, fresh = DiffMoE(8, 4), DiffMoE(8, 4)
    layer.thresholds.copy_(torch.tensor([0.1234567, 0.5, 0.7, 0.9]))
    save_file(layer.state_dict(), tmp_path / "layer.safetensors")
    fresh.load_state_dict(load_file(tmp_path / "layer.safetensors"))
    assert torch.equal(fresh.thresholds, layer.thresholds)
    assert torch.equal(fresh.bfloat16().thresholds, layer.thresholds) and fresh.router.weight.dtype == torch.bfloat16


def test_an_averaged_copy_of_a_model_gets_its_thresholds_as_they_are() -> None:
    model, average = two_layers(), two_layers()
    for layer in model:
        layer.thresholds.fill_(0.4)
    copy_buffers(model, average)
    assert all(torch.equal(a.thresholds, b.thresholds) for a, b in zip(model, average, strict=True))
    average[0].thresholds.zero_()
    assert model[0].thresholds.all(), "a copy shares no memory"
    with pytest.raises(ValueError, match="copy_buffers: target must have the buffers"):
        copy_buffers(model, nn.Linear(8, 8))


ROUTED = Routing(torch.ones(1, 4, 4, dtype=torch.bool), torch.zeros(()), torch.ones(4), 4)


@pytest.mark.parametrize(
    ("routings", "decay", "message"),
    [
        ([], 0.95, "routings must hold at least one micro-step, got none"),
        ([[ROUTED], [ROUTED, ROUTED]], 0.95, "a micro-step must hold 1 routings, as layers, got 2"),
        ([[ROUTED._replace(quantiles=None)]], 0.95, "routings must come from training, got one without quantiles"),
        ([[ROUTED]], 1.0, r"decay must lie in \[0, 1\), got 1.0"),
    ],
)
def test_an_update_that_makes_no_sense_is_refused(routings: Any, decay: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        update_thresholds([DiffMoE(8, 4)], routings, decay)
