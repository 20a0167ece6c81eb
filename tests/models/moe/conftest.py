"""Layers whose parts are all awake, and the plain formula that their fast ways of computing have to meet."""

from collections.abc import Callable, Iterator
from typing import Any

import jaxtyping
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from telecine_models.moe.experts import Experts

Answer = Callable[[Experts, int, Tensor], Tensor]
Combine = Callable[[Any, Tensor, Tensor], Tensor]


@pytest.fixture
def awake() -> Callable[[nn.Module], Any]:
    """Fill all parameters of a layer, so that scores differ clearly and every bias counts."""

    def fill(layer: nn.Module) -> nn.Module:
        torch.manual_seed(0)
        for parameter in layer.parameters():
            nn.init.normal_(parameter, std=0.3)
        return layer

    return fill


@pytest.fixture
def answer_of() -> Answer:
    """What one expert answers, written plainly: ``answer_of(experts, expert, x [..., D])``."""

    def answer(experts: Experts, expert: int, x: Tensor) -> Tensor:
        if experts.activation == "gelu":
            hidden = F.gelu(x @ experts.weight_in[expert] + experts.bias_in[expert], approximate="tanh")
            return hidden @ experts.weight_out[expert] + experts.bias_out[expert]
        gate, value = (x @ experts.weight_in[expert]).chunk(2, dim=-1)
        return (F.silu(gate) * value) @ experts.weight_out[expert]

    return answer


@pytest.fixture
def combine(answer_of: Answer) -> Combine:
    """y_s = sum_i mask[s, i] score[s, i] E_i(x_s), with every expert run on every token."""

    def combined(layer: Any, x: Tensor, mask: Tensor) -> Tensor:
        scores = (x @ layer.router.weight.T).softmax(-1)
        answers = [answer_of(layer.experts, expert, x) for expert in range(layer.num_experts)]
        return torch.einsum("bse,bsed->bsd", mask * scores, torch.stack(answers, dim=2))

    return combined


@pytest.fixture
def unchecked() -> Iterator[None]:
    """As in production, where nobody checks annotations before a layer sees its arguments."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
