"""Randomness without state: every stream of random numbers is a pure function of integers.

The generator of step ``s`` is seeded from ``(seed, stream, s)``, so a resumed run draws what the undisturbed
one drew although no generator state was ever saved.
"""

import numpy as np
import torch


def torch_seed(*key: int) -> int:
    """Seed of the stream named by non-negative integers ``key``, for example ``(seed, stream, step)``."""
    return int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0]) >> 1


def generator(*key: int) -> torch.Generator:
    """CPU generator of the stream ``key``."""
    return torch.Generator(device="cpu").manual_seed(torch_seed(*key))


def permutation(num_items: int, *key: int) -> np.ndarray:
    """Order of ``num_items`` items [num_items] int64 in the stream ``key``."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(key))).permutation(num_items)


def stratified_times(num_times: int, generator: torch.Generator) -> torch.Tensor:
    """Flow times [num_times] in (0, 1), one from each of ``num_times`` equal strata, in random order.

    Each time alone is uniform; together they cover the interval, which lowers the variance of a batch's loss.
    """
    strata = torch.randperm(num_times, generator=generator)
    return (strata + torch.rand(num_times, generator=generator)) / num_times
