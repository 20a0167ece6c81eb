"""Experts inside the video DiT: every second block has them, padding never reaches one, and thresholds move outside."""

import dataclasses
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from telecine_models.moe.diffmoe import DiffMoE
from telecine_models.moe.thresholds import update_thresholds
from telecine_models.video_dit.conditions import Conditions
from telecine_models.video_dit.config import MIXTURES, VideoDiTConfig
from telecine_models.video_dit.model import VideoDiT

Build = Callable[..., VideoDiT]


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


VIDEO, TIME, TEXT = random(2, 3, 2, 8, 8), torch.tensor([0.2, 0.9]), random(2, 5, 8, seed=1)
MASK = torch.tensor([[True, True, False, False, False], [True, True, True, True, False]])
DEPTH = Conditions(depth=random(2, 3, 2, 8, 8, seed=2), present={"depth": torch.tensor([True, False])})


@pytest.mark.parametrize("mixture", MIXTURES)
def test_every_second_block_has_experts_and_every_parameter_learns(awake_model: Build, mixture: str) -> None:
    model = awake_model(num_layers=4, num_experts=2, mixture=mixture).train()
    assert [block.is_mixture for block in model.blocks] == [False, True, False, True]
    velocity, routings = model(VIDEO, TIME, TEXT, MASK, return_routings=True)
    assert len(routings) == 2
    (velocity.square().mean() + sum(routing.loss for routing in routings)).backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in model.parameters())


def test_a_fresh_model_with_experts_predicts_zero_velocity_and_dense_models_return_no_routing() -> None:
    assert torch.equal(VideoDiT(num_layers=2, head_dim=16, text_dim=8, num_experts=4)(VIDEO, TIME, TEXT), 0 * VIDEO)
    _, routings = VideoDiT(num_layers=2, head_dim=16, text_dim=8)(VIDEO, TIME, TEXT, return_routings=True)
    assert routings == []


def test_padding_of_text_and_absent_conditions_reaches_no_expert(awake_model: Build) -> None:
    model = awake_model(num_experts=2, conditions=("depth",)).train()
    _, (routing,) = model(VIDEO, TIME, TEXT, MASK, conditions=DEPTH, return_routings=True)
    reached = routing.mask.any(-1)
    assert routing.num_tokens == int(MASK.sum()) + 16 + 8
    assert not bool(reached[:, :5][~MASK].any())
    assert not bool(reached[1, 13:].any())
    assert bool(reached[0, 13:].any())


@pytest.mark.parametrize("checkpointing", [False, True])
def test_thresholds_move_once_a_step_whatever_forward_does_again(awake_model: Build, checkpointing: bool) -> None:
    model = awake_model(num_experts=2).train()
    layers = model.mixtures
    for layer in layers:
        layer.thresholds.zero_()
    if checkpointing:
        model.enable_gradient_checkpointing()
    steps = []
    for seed in (3, 4):
        velocity, routings = model(random(2, 3, 2, 8, 8, seed=seed), TIME, TEXT, return_routings=True)
        velocity.square().mean().backward()
        steps.append(routings)
    assert all(bool((layer.thresholds == 0).all()) for layer in layers)
    update_thresholds(layers, steps)
    expected = 0.05 * torch.stack([step[0].quantiles for step in steps]).mean(0)
    torch.testing.assert_close(layers[0].thresholds, expected)


def test_routed_for_serving_a_sample_does_not_depend_on_its_batch(awake_model: Build) -> None:
    model = awake_model(num_experts=4)
    for layer in model.mixtures:
        layer.thresholds.fill_(0.5)
    model.route("mask")
    alone = torch.cat([model(VIDEO[i : i + 1], TIME[i : i + 1], TEXT[i : i + 1]) for i in (0, 1)])
    torch.testing.assert_close(model(VIDEO, TIME, TEXT), alone, rtol=1e-5, atol=1e-5)
    model.route("static")
    alone = torch.cat([model(VIDEO[i : i + 1], TIME[i : i + 1], TEXT[i : i + 1]) for i in (0, 1)])
    assert not torch.allclose(model(VIDEO, TIME, TEXT), alone, atol=1e-3)


def test_what_an_expert_costs_is_what_the_dense_block_costs() -> None:
    size = VideoDiTConfig.from_depth(8, num_experts=4)
    model = VideoDiT(**dataclasses.asdict(size))
    experts = [module for module in model.modules() if isinstance(module, DiffMoE)]
    assert len(experts) == 4
    each = experts[0].experts
    assert each.weight_in[0].numel() + each.weight_out[0].numel() == 12 * size.width**2


def test_a_saved_model_keeps_its_thresholds(awake_model: Build, tmp_path: object) -> None:
    model = awake_model(num_experts=2)
    model.mixtures[0].thresholds.copy_(torch.tensor([0.25, 0.75]))
    model.save_pretrained(tmp_path)
    again = VideoDiT.from_pretrained(tmp_path)
    assert again.mixtures[0].thresholds.tolist() == [0.25, 0.75]
    assert torch.equal(again.eval()(VIDEO, TIME, TEXT), model(VIDEO, TIME, TEXT))


def test_thresholds_stay_exact_where_weights_are_loaded_in_low_precision(awake_model: Build, tmp_path: object) -> None:
    model = awake_model(num_experts=2)
    model.mixtures[0].thresholds.fill_(0.3)
    model.save_pretrained(tmp_path)
    small = VideoDiT.from_pretrained(tmp_path, torch_dtype=torch.bfloat16)
    assert small.dtype == torch.bfloat16
    assert torch.equal(small.mixtures[0].thresholds, model.mixtures[0].thresholds)
