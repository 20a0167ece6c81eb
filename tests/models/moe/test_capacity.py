"""The capacity meter and the parameter counts against the known answers of the paper (arXiv 2503.14487)."""

import subprocess
import sys
from typing import Any

import pytest
import torch

from telecine_models.moe.capacity import CapacityMeter, activated_parameters, expert_capacities
from telecine_models.moe.counts import PAPER_SIZES, count_parameters
from telecine_models.moe.diffmoe import DiffMoE

X = torch.randn(4, 16, 16, generator=torch.Generator().manual_seed(0))


def measured(layer: DiffMoE) -> float:
    meter, found = CapacityMeter(), layer(X)[1]
    meter.add([found.tokens_per_expert.tolist()], found.num_tokens)
    return meter.average


def test_capacity_is_measured_without_torch() -> None:
    code = "import sys, telecine_models.moe.capacity; print({'torch', 'diffusers', 'numpy'} & set(sys.modules))"
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert child.stdout.strip() == "set()"


def test_capacity_is_the_number_of_experts_if_all_pass_nothing_if_none_and_1_in_training() -> None:
    layer = DiffMoE(16, 4)
    assert measured(layer) == 1.0
    layer.eval()
    assert measured(layer) == 4.0, "no threshold yet"
    layer.thresholds.fill_(1.0)
    assert measured(layer) == 0.0
    layer.routing = "static"
    assert measured(layer) == 1.0


@pytest.mark.parametrize("routing", ["count", "mask"])
def test_a_higher_threshold_never_raises_capacity(routing: Any) -> None:
    torch.manual_seed(0)
    layer, found = DiffMoE(16, 4, routing=routing).eval(), []
    for threshold in torch.linspace(0, 1, 21):
        layer.thresholds.fill_(threshold)
        found.append(measured(layer))
    assert found == sorted(found, reverse=True) and len(set(found)) > 5


def test_the_meter_is_the_mean_over_experts_layers_and_passes() -> None:
    assert expert_capacities([10, 0, 5, 1], 20) == [2.0, 0.0, 1.0, 0.2]
    meter = CapacityMeter()
    meter.add([[10, 10], [0, 5]], num_tokens=10)
    meter.add([[4, 4], [4, 4]], num_tokens=8)
    assert meter.per_layer == [1.5, 0.75] and meter.average == 1.125


@pytest.mark.parametrize(
    ("size", "num_experts", "total", "without_predictors"),
    [
        ("L", 1, 458.1, 458.1),
        ("XL", 1, 675.1, 675.1),
        ("S", 16, 140.3, 139.3),
        ("B", 16, 559.2, 555.5),
        ("L", 2, 571.5, None),
        ("L", 4, 773.0, None),
        ("L", 8, 1176.0, None),
        ("L", 16, 1982.0, None),
        ("XL", 16, 2925.0, None),
    ],
)
def test_models_have_as_many_parameters_as_published(
    size: str, num_experts: int, total: float, without_predictors: float | None
) -> None:
    found = count_parameters(PAPER_SIZES[size], num_experts)
    assert found.total / 1e6 == pytest.approx(total, rel=1e-3)
    if without_predictors is not None:
        assert (found.total - found.predictor) / 1e6 == pytest.approx(without_predictors, rel=1e-3)


def test_the_parts_of_the_large_model_are_as_published() -> None:
    found = count_parameters(PAPER_SIZES["L"], 16)
    parts = [found.ffn, found.attention, found.adaln, found.other]
    assert [round(part / 1e6, 1) for part in parts] == [1725.3, 100.8, 151.1, 4.7]


def test_activated_parameters_follow_equation_40() -> None:
    assert activated_parameters(1.0, 16, ffn=1_725_300_000, rest=256_700_000) == pytest.approx(459.6e6, abs=0.5e6)
    assert activated_parameters(0.95, 16, ffn=1_725_300_000, rest=256_700_000) == pytest.approx(454.6e6, abs=0.5e6)
    for size, num_experts, activated in (("S", 16, 33.1), ("B", 16, 130.9), ("L", 8, 460.9), ("XL", 16, 677.4)):
        assert count_parameters(PAPER_SIZES[size], num_experts).activated(1.0) / 1e6 == pytest.approx(
            activated, abs=0.5
        )
    assert count_parameters(PAPER_SIZES["L"], 16).activated(0.95) / 1e6 == pytest.approx(454.6, abs=0.5)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: expert_capacities([1], 0), "num_tokens must be at least 1, got 0"),
        (lambda: expert_capacities([], 4), "tokens_per_expert must name at least one expert, got none"),
        (lambda: expert_capacities([5], 4), r"tokens_per_expert must lie between 0 and num_tokens = 4, got \[5\]"),
        (lambda: CapacityMeter().average, "there must be at least one pass to take a mean of, got none"),
        (lambda: CapacityMeter().add([], 4), r"layers must hold at least one layer, .* got 0"),
        (lambda: activated_parameters(17.0, 16, 1, 1), r"average_capacity must lie in \[0, 16\], .* got 17.0"),
    ],
)
def test_what_cannot_be_counted_is_named(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_a_meter_wants_the_same_layers_each_time() -> None:
    meter = CapacityMeter()
    meter.add([[1], [1]], 4)
    with pytest.raises(ValueError, match=r"as many each time \(2 before\), got 1"):
        meter.add([[1]], 4)
