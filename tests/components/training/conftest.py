"""What the tests of the trainer share, and what they must not leave behind in a process that runs others after them."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

COPY_S = 0.3


class _SlowToCopy(Tensor):
    """Takes COPY_S to be copied into another tensor."""

    @classmethod
    def __torch_function__(cls, function: Any, types: Any, arguments: Any = (), options: Any = None) -> Any:
        if function is Tensor.copy_:
            time.sleep(COPY_S)
        return super().__torch_function__(function, types, arguments, options)


@pytest.fixture
def slow_to_copy() -> Callable[[Tensor], Tensor]:
    """The same memory as a tensor that takes COPY_S to be copied."""
    return lambda tensor: tensor.as_subclass(_SlowToCopy)


@pytest.fixture(autouse=True)
def pytorchs_linear() -> Iterator[None]:
    """At ZeRO stage 3 DeepSpeed replaces it for the whole process by one whose last bits differ."""
    linear = torch.nn.functional.linear
    yield
    torch.nn.functional.linear = linear
