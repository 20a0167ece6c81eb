"""Samples of several shapes in one pass: each as if it were alone, forward and backward."""

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

from telecine_models.video_dit.model import VideoDiT

Build = Callable[..., VideoDiT]
Batch = tuple[Tensor, ...]
SHAPES = [(2, 2, 8, 8), (1, 4, 8, 12), (3, 2, 4, 4)]
"""Samples, frames, height and width of each batch."""


def batches(shapes: list[tuple[int, int, int, int]]) -> list[Batch]:
    """Noisy videos, flow times, text of several lengths and its mask; one sample has no text at all."""
    draw = torch.Generator().manual_seed(0)
    made: list[Batch] = []
    for count, *shape in shapes:
        lengths = torch.randint(1, 6, (count, 1), generator=draw)
        lengths[0] = 0
        mask = torch.arange(5) < lengths
        video, text = torch.randn(count, 3, *shape, generator=draw), torch.randn(count, 5, 8, generator=draw)
        made.append((video, torch.rand(count, generator=draw), text, mask))
    return made


def packed(model: VideoDiT, given: list[Batch]) -> list[Tensor]:
    return model.forward_packed(*(list(part) for part in zip(*given, strict=True)))[0]


def gradients(model: VideoDiT, velocities: list[Tensor]) -> dict[str, Tensor]:
    model.zero_grad()
    sum(velocity.square().sum() for velocity in velocities).backward()
    return {name: each.grad.clone() for name, each in model.named_parameters() if each.grad is not None}


@pytest.mark.parametrize("checkpointing", [False, True])
def test_velocities_and_gradients_are_those_of_separate_passes(awake_model: Build, checkpointing: bool) -> None:
    model, given = awake_model(patch_size=(2, 4, 4)), batches(SHAPES)
    alone = [model(*(part[i : i + 1] for part in batch)) for batch in given for i in range(len(batch[0]))]
    expected = gradients(model, alone)
    if checkpointing:
        model.train()
        model.enable_gradient_checkpointing()
    together = packed(model, given)
    assert [velocity.shape for velocity in together] == [video.shape for video, *_ in given]
    singles = [one for velocity in together for one in velocity.split(1)]
    for one, other in zip(singles, alone, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)
    found = gradients(model, together)
    assert found.keys() == expected.keys()
    for name, gradient in found.items():
        scale = float(expected[name].abs().max())
        torch.testing.assert_close(gradient, expected[name], rtol=1e-5, atol=1e-5 * scale, msg=name)


def test_a_sample_does_not_hear_its_neighbours(awake_model: Build) -> None:
    model, given = awake_model(), batches(SHAPES)
    before = packed(model, given)
    video, *rest = given[1]
    after = packed(model, [given[0], (video + 1, *rest), given[2]])
    assert torch.equal(before[0], after[0]) and torch.equal(before[2], after[2])
    assert not torch.allclose(before[1], after[1])


@pytest.mark.parametrize("mixture", ["diffmoe", "token_choice"])
def test_experts_see_the_tokens_of_all_batches_as_one_pool(awake_model: Build, mixture: str) -> None:
    """Two batches of one shape are packed: what one batch of all their samples gives is what they get."""
    model, (batch,) = awake_model(num_experts=4, mixture=mixture), batches([(4, 2, 8, 8)])
    model.train()
    whole_text = (*batch[:3], torch.ones_like(batch[3]))
    expected, (expected_routing,) = model(*whole_text, return_routings=True)
    halves = [tuple(part[:1] for part in whole_text), tuple(part[1:] for part in whole_text)]
    together, (routing,) = model.forward_packed(*(list(part) for part in zip(*halves, strict=True)))
    torch.testing.assert_close(torch.cat(together), expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(routing.loss, expected_routing.loss)
    assert routing.num_tokens == expected_routing.num_tokens
    assert torch.equal(routing.tokens_per_expert, expected_routing.tokens_per_expert)


@pytest.fixture
def given(unchecked: Iterator[None]) -> list[Batch]:
    return batches(SHAPES)


def test_what_cannot_be_packed_is_refused(awake_model: Build, given: list[Batch]) -> None:
    model = awake_model()
    with pytest.raises(ValueError, match="hidden_states must hold at least one batch"):
        model.forward_packed([], [], [], [])
    with pytest.raises(ValueError, match="timestep must be one for each sample"):
        packed(model, [(video, t[:, None].expand(-1, video.shape[2]), *rest) for video, t, *rest in given])
    with pytest.raises(ValueError, match="F of hidden_states must be a positive multiple of 3"):
        packed(awake_model(patch_size=(3, 4, 4)), given)
    with pytest.raises(ValueError, match="mixture must not be 'expert_choice'"):
        packed(awake_model(num_experts=4, mixture="expert_choice"), given)
    with pytest.raises(ValueError, match=r"encoder_hidden_states must be shaped"):
        packed(model, [(video, t, text[..., :4], mask) for video, t, text, mask in given])
