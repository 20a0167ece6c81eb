"""The objective: a pure function of weights, batch and seed."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
import pytest
import torch

from telecine_components.training.loader import Batch
from telecine_components.training.losses import FlowMatching
from telecine_components.training.text import CachedText
from telecine_models.text import HashTextEncoder
from telecine_models.video_dit.conditions import Conditions


class Constant(torch.nn.Module):
    """A denoiser that answers one constant and remembers the text masks it was given."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value
        self.masks: list[torch.Tensor] = []

    def forward(self, x: torch.Tensor, t: torch.Tensor, text: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        self.masks.append(mask)
        return torch.full_like(x, self.value)


def encode(captions: Sequence[str]) -> tuple[torch.Tensor, torch.Tensor]:
    return CachedText(HashTextEncoder(text_dim=8, max_tokens=6))(captions)


@pytest.fixture
def batch() -> Batch:
    return a_batch(range(64))


def a_batch(positions: Sequence[int]) -> Batch:
    return Batch(torch.zeros(len(positions), 3, 2, 8, 8), ["a red square"] * len(positions), positions=tuple(positions))


def objective(ratio: float = 0.0) -> FlowMatching:
    return FlowMatching(encode_text=encode, caption_dropout_ratio=ratio, seed=1, num_strata=64)


def test_a_sample_meets_the_same_noise_in_any_batch_and_another_one_later(batch: Batch) -> None:
    whole = objective(0.5)(Constant(0.0), [batch]).per_sample
    parts = [objective(0.5)(Constant(0.0), [a_batch(chosen)]).per_sample for chosen in (range(20), range(20, 64))]
    assert torch.equal(torch.cat(parts), whole)
    later = objective(0.5)(Constant(0.0), [a_batch(range(64, 128))]).per_sample
    assert not torch.isclose(later, whole).any()


def test_flow_times_of_a_step_lie_one_in_each_stratum() -> None:
    times = [objective().draw(position, (1,)).t for position in range(64, 128)]
    assert sorted(int(t * 64) for t in times) == list(range(64))
    assert times != sorted(times)


def test_predicting_nothing_on_empty_pictures_costs_the_variance_of_the_noise(batch: Batch) -> None:
    assert objective()(Constant(0.0), [batch]).per_sample.mean().item() == pytest.approx(1.0, abs=0.03)
    assert objective()(Constant(2.0), [batch]).per_sample.mean().item() == pytest.approx(5.0, abs=0.1)


@pytest.mark.parametrize("ratio", [0.0, 0.5, 1.0])
def test_the_given_share_of_captions_is_dropped(batch: Batch, ratio: float) -> None:
    model = Constant(0.0)
    objective(ratio)(model, [batch])
    dropped = (~model.masks[0].any(dim=1)).float().mean().item()
    assert dropped == pytest.approx(ratio, abs=0.2)


class Told(torch.nn.Module):
    """A denoiser that predicts nothing and remembers the conditions it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.conditions: list[Conditions] = []

    def forward(self, x: torch.Tensor, *_: torch.Tensor, conditions: Conditions) -> torch.Tensor:
        self.conditions.append(conditions)
        return torch.zeros_like(x)


def told(positions: Sequence[int], ratio: float, begun: Mapping[str, int] | None = None) -> dict[str, list[bool]]:
    """Which of the samples at these positions are given each kind."""
    batch, model = a_batch(positions), Told()
    given = Conditions(camera=torch.zeros(len(positions), 2, 12), depth=batch.x0)
    flow = dataclasses.replace(objective(), condition_dropout_ratio=ratio, condition_positions=begun or {})
    flow(model, [dataclasses.replace(batch, conditions=given)])
    return {kind: there.tolist() for kind, there in model.conditions[0].present.items()}


def test_each_kind_of_condition_is_dropped_by_itself_at_the_given_ratio() -> None:
    found = {kind: np.array(there) for kind, there in told(range(1000), 0.3).items()}
    for there in found.values():
        assert there.mean() == pytest.approx(0.7, abs=3 * (0.3 * 0.7 / 1000) ** 0.5)
    both = (found["camera"] & found["depth"]).mean()
    assert both == pytest.approx(0.49, abs=3 * (0.49 * 0.51 / 1000) ** 0.5), "every combination is met"
    assert all(map(all, told(range(50), 0.0).values())) and not any(map(any, told(range(50), 1.0).values()))


def test_which_conditions_a_sample_is_given_depends_on_its_position_alone() -> None:
    whole = told(range(64), 0.5)
    parts = [told(chosen, 0.5) for chosen in (range(20), range(20, 64))]
    assert {kind: parts[0][kind] + parts[1][kind] for kind in whole} == whole
    assert told(range(64, 128), 0.5) != whole


def test_a_condition_joins_at_its_position_and_stays() -> None:
    found = told(range(60, 70), 0.0, {"camera": 0, "depth": 64})
    assert found == {"camera": [True] * 10, "depth": [False] * 4 + [True] * 6}


def test_what_a_sample_lacks_it_is_not_given_and_its_noise_is_that_of_one_without_conditions(batch: Batch) -> None:
    model = Told()
    given = Conditions(depth=batch.x0, present={"depth": torch.arange(64) < 10})
    losses = objective(0.5)(model, [dataclasses.replace(batch, conditions=given)]).per_sample
    assert model.conditions[0].present["depth"].tolist() == [True] * 10 + [False] * 54
    assert torch.equal(losses, objective(0.5)(Constant(0.0), [batch]).per_sample)


def test_cached_text_is_the_encoders_without_the_padding() -> None:
    encoder = HashTextEncoder(text_dim=8, max_tokens=6)
    captions = ["a red square", "", "a red square"]
    embeddings, mask = encoder.encode(captions)
    short_embeddings, short_mask = CachedText(encoder)(captions)
    assert short_embeddings.shape == (3, 3, 8)
    assert torch.equal(short_embeddings, embeddings[:, :3])
    assert torch.equal(short_mask, mask[:, :3])
    assert not mask[:, 3:].any()
