"""The objective: a pure function of weights, batch and seed."""

from collections.abc import Sequence

import pytest
import torch

from telecine_components.training.loader import Batch
from telecine_components.training.losses import FlowMatching
from telecine_components.training.text import CachedText
from telecine_models.text import HashTextEncoder


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


def test_cached_text_is_the_encoders_without_the_padding() -> None:
    encoder = HashTextEncoder(text_dim=8, max_tokens=6)
    captions = ["a red square", "", "a red square"]
    embeddings, mask = encoder.encode(captions)
    short_embeddings, short_mask = CachedText(encoder)(captions)
    assert short_embeddings.shape == (3, 3, 8)
    assert torch.equal(short_embeddings, embeddings[:, :3])
    assert torch.equal(short_mask, mask[:, :3])
    assert not mask[:, 3:].any()
