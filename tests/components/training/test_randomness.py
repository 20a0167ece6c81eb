"""Random streams named by integers."""

import torch

from telecine_components.training.randomness import generator, permutation, stratified_times


def test_a_stream_depends_on_its_key_and_on_nothing_else() -> None:
    torch.manual_seed(1)
    first = torch.randn(4, generator=generator(7, 2, 100))
    torch.manual_seed(2)
    assert torch.equal(first, torch.randn(4, generator=generator(7, 2, 100)))
    assert not torch.equal(first, torch.randn(4, generator=generator(7, 2, 101)))
    assert not torch.equal(first, torch.randn(4, generator=generator(7, 3, 100)))


def test_stratified_times_put_one_time_into_each_stratum() -> None:
    times = stratified_times(16, generator(0))
    assert sorted((times * 16).floor().int().tolist()) == list(range(16))


def test_a_permutation_holds_every_item_once() -> None:
    order = permutation(50, 0, 1)
    assert sorted(order.tolist()) == list(range(50))
    assert order.tolist() == permutation(50, 0, 1).tolist() != permutation(50, 0, 2).tolist()
