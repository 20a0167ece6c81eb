"""The objective: a pure function of weights, batch, seed and step."""

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
    return Batch(torch.zeros(64, 3, 2, 8, 8), ["a red square"] * 64)


def test_the_loss_of_a_step_is_the_same_each_time_and_differs_between_steps(batch: Batch) -> None:
    objective = FlowMatching(encode_text=encode, caption_dropout_ratio=0.5, seed=1)
    assert objective(Constant(0.0), batch, 3).item() == objective(Constant(0.0), batch, 3).item()
    assert objective(Constant(0.0), batch, 3).item() != objective(Constant(0.0), batch, 4).item()


def test_predicting_nothing_on_empty_pictures_costs_the_variance_of_the_noise(batch: Batch) -> None:
    objective = FlowMatching(encode_text=encode, caption_dropout_ratio=0.0, seed=1)
    assert objective(Constant(0.0), batch, 0).item() == pytest.approx(1.0, abs=0.03)
    assert objective(Constant(2.0), batch, 0).item() == pytest.approx(5.0, abs=0.1)


@pytest.mark.parametrize("ratio", [0.0, 0.5, 1.0])
def test_the_given_share_of_captions_is_dropped(batch: Batch, ratio: float) -> None:
    model = Constant(0.0)
    FlowMatching(encode_text=encode, caption_dropout_ratio=ratio, seed=1)(model, batch, 0)
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
