"""Flow-RWR against the known answer: Gaussian data under a linear reward become the tilted Gaussian."""

from collections.abc import Sequence

import pytest
import torch

from telecine_components.training.loader import WeightedBatch
from telecine_components.training.losses import FlowMatching, RewardWeighted, reward_weights

MEAN, STD, SLOPE, TEMPERATURE = 1.0, 0.5, 0.8, 0.5
NUM_SAMPLES = 20_000


class Affine(torch.nn.Module):
    """The exact velocity of N(mean, STD**2), v = -m + (t - (1-t) s^2) / q (x - (1-t) m), q = (1-t)^2 s^2 + t^2."""

    def __init__(self) -> None:
        super().__init__()
        self.mean = torch.nn.Parameter(torch.tensor(0.0))

    def forward(self, x: torch.Tensor, t: torch.Tensor, text: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        t = t.view(-1, 1, 1, 1, 1)
        gain = (t - (1 - t) * STD**2) / ((1 - t) ** 2 * STD**2 + t**2)
        return -self.mean + gain * (x - (1 - t) * self.mean)


def no_text(captions: Sequence[str]) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.zeros(len(captions), 1, 2), torch.zeros(len(captions), 1, dtype=torch.bool)


def fitted_mean(slope: float) -> float:
    """Mean of the affine model that the weighted loss fits, for the reward ``slope * x``."""
    x0 = MEAN + STD * torch.randn(NUM_SAMPLES, 1, 1, 1, 1, generator=torch.Generator().manual_seed(0))
    captions = ["same"] * NUM_SAMPLES
    weights = torch.tensor(reward_weights((slope * x0.flatten()).tolist(), captions, TEMPERATURE))
    batch = WeightedBatch(x0, captions, weights, positions=tuple(range(NUM_SAMPLES)))
    flow = FlowMatching(encode_text=no_text, caption_dropout_ratio=0.0, seed=0, num_strata=NUM_SAMPLES)
    loss = RewardWeighted(flow=flow)
    model = Affine()
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=20)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        value = loss(model, [batch]).per_sample.mean()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    return model.mean.item()


def test_the_optimum_for_a_linear_reward_is_the_tilted_gaussian() -> None:
    assert fitted_mean(SLOPE) == pytest.approx(MEAN + STD**2 * SLOPE / TEMPERATURE, abs=0.03)
    assert fitted_mean(-SLOPE) == pytest.approx(MEAN - STD**2 * SLOPE / TEMPERATURE, abs=0.03)


def test_without_a_reward_the_optimum_is_the_data() -> None:
    assert fitted_mean(0.0) == pytest.approx(MEAN, abs=0.02)
