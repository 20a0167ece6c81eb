"""A sequence in slices: ranks that are threads say together what one says; real processes are in test_ranks.py."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import Tensor

from telecine_models.video_dit.conditions import Conditions
from telecine_models.video_dit.model import VideoDiT
from telecine_models.video_dit.sharing import Share, Sharing

Build = Callable[..., VideoDiT]


class Ranks:
    """Threads that meet to exchange tensors."""

    def __init__(self, size: int) -> None:
        self.size, self._barrier, self._left = size, threading.Barrier(size), [torch.empty(0)] * size

    def sharing(self, rank: int) -> Sharing:
        def everybody(value: Tensor) -> list[Tensor]:
            self._left[rank] = value
            self._barrier.wait(30)
            found = list(self._left)
            self._barrier.wait(30)
            return found

        def attend(locally: Callable[..., Tensor], *slices: Tensor) -> Tensor:
            whole = [torch.cat(everybody(each), dim=1) for each in slices]
            heard = locally(*(each.chunk(self.size, dim=2)[rank] for each in whole))
            return torch.cat(everybody(heard), dim=2).chunk(self.size, dim=1)[rank]

        return Sharing(rank, self.size, attend, lambda x: torch.cat(everybody(x), dim=1))


def unshared(rank: int, size: int) -> Sharing:
    """Of a rank whose neighbours are not needed."""
    return Sharing(rank, size, lambda locally, *parts: locally(*parts), lambda x: x)


def given(**changes: Any) -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(0)
    found = {
        "hidden_states": torch.randn(2, 3, 3, 8, 8, generator=draw),
        "timestep": torch.rand(2, generator=draw),
        "encoder_hidden_states": torch.randn(2, 5, 8, generator=draw),
        "encoder_attention_mask": torch.arange(5) < torch.tensor([[3], [0]]),
    }
    return found | changes


@pytest.mark.parametrize("size", [2, 4])
@pytest.mark.parametrize("changes", [{}, {"timestep": torch.tensor([[0.0, 0.2, 0.9], [0.0, 0.0, 0.4]])}])
def test_ranks_together_say_what_one_says(awake_model: Build, size: int, changes: dict[str, Tensor]) -> None:
    arguments = given(**changes)
    with torch.no_grad():
        expected = awake_model(num_heads=4)(**arguments)
    ranks, models = Ranks(size), [awake_model(num_heads=4) for _ in range(size)]

    def say(rank: int) -> Tensor:
        models[rank].sharing = ranks.sharing(rank)
        with torch.no_grad():
            said: Tensor = models[rank](**arguments)
        return said

    with ThreadPoolExecutor(size) as threads:
        for said in threads.map(say, range(size)):
            torch.testing.assert_close(said, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("num_tokens", "size"), [(7, 2), (8, 2), (3, 4), (13, 4)])
def test_slices_are_equally_long_and_know_whose_tokens_they_have(num_tokens: int, size: int) -> None:
    samples = [num_tokens // 3, 0, num_tokens - num_tokens // 3]
    values, owner = torch.arange(num_tokens), torch.repeat_interleave(torch.arange(3), torch.tensor(samples))
    shares = [Share(unshared(rank, size), num_tokens) for rank in range(size)]
    slices = torch.cat([share.mine(values, 0) for share in shares])
    assert len(slices) == size * shares[0].length and slices[num_tokens:].eq(0).all()
    assert torch.equal(shares[0].whole(slices[None, :, None])[0, :, 0], values)
    lengths = torch.tensor([share.lengths(samples) for share in shares])
    assert lengths.sum(1).eq(shares[0].length).all()
    found = torch.cat([torch.repeat_interleave(torch.arange(3), each) for each in lengths])
    assert torch.equal(found[:num_tokens], owner)


@pytest.mark.parametrize(
    ("sizes", "arguments"),
    [({"num_experts": 2}, {}), ({"conditions": ("first_frame",)}, {"first_frame": torch.ones(2, 3, 8, 8)})],
)
def test_what_ranks_cannot_share_is_refused(
    awake_model: Build, sizes: dict[str, Any], arguments: dict[str, Tensor]
) -> None:
    model = awake_model(**sizes)
    model.sharing = unshared(0, 2)
    with pytest.raises(ValueError, match="ranks share text and video alone, not experts, conditions or actions"):
        model(**given(), conditions=Conditions(**arguments) if arguments else None)
