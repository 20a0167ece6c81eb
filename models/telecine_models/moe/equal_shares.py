"""The experts' product where each takes the same number of tokens: gather, two batched products, index_add.

Axes: T tokens of the pool, E experts, K tokens that each expert takes, D width, H hidden channels.
"""

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

Activation = Literal["gelu", "swiglu"]

# The product works through the capacity in slices, so that no more than a slice of hidden activations exists beside
# those that backward needs. A slice has about this many hidden numbers (4 MiB in fp32: large enough for full speed,
# small enough for caches), but never so few tokens that adding its share to the weights' gradients shows: a token
# brings 2 FLOPs for every 8 bytes of gradient that are read and written again.
SLICE_NUMBERS = 2**20
_MIN_SLICE_TOKENS = {"cpu": 128}
_MIN_SLICE_TOKENS_ELSEWHERE = 1024


def activate(activation: Activation, hidden: Tensor) -> Tensor:
    """Tanh GELU, or SiLU of the first half of the channels times the second half."""
    if activation == "gelu":
        return F.gelu(hidden, approximate="tanh")
    gate, value = hidden.chunk(2, dim=-1)
    return F.silu(gate) * value


class EqualShares(torch.autograd.Function):
    """``apply(activation, index, gate, pool, weight_in, weight_out, bias_in, bias_out)``: what each token gets, [T, D].

    ``index`` and ``gate`` are [E, K], ``pool`` is [T, D], weights are [E, D, H] and [E, 4 D, D], biases [E, 1, H] and
    [E, 1, D], or both None. Of hidden activations, backward
    needs those before the activation function and no others; plain autograd would keep those after it, the gathered
    tokens and the experts' answers as well, almost twice the memory at no gain in time. They are computed and gathered
    again here, slice by slice. It has no second derivative.
    """

    @staticmethod
    def forward(
        ctx: Any,
        activation: Activation,
        index: Tensor,
        gate: Tensor,
        pool: Tensor,
        weight_in: Tensor,
        weight_out: Tensor,
        bias_in: Tensor | None,
        bias_out: Tensor | None,
    ) -> Tensor:
        out, kept = torch.zeros_like(pool), []
        for part in _slices(pool, index, weight_in):
            rows = index[:, part].flatten()
            kept.append(_product(_gather(pool, rows, len(index)), weight_in, bias_in))
            answers = _product(activate(activation, kept[-1]), weight_out, bias_out)
            out.index_add_(0, rows, answers.mul_(gate[:, part, None]).flatten(0, 1))
        ctx.activation = activation
        ctx.save_for_backward(index, gate, pool, weight_in, weight_out, bias_in, bias_out, *kept)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        index, gate, pool, weight_in, weight_out, bias_in, bias_out, *kept = ctx.saved_tensors
        inputs = (gate, pool, weight_in, weight_out, bias_in, bias_out)
        grads: list[Any] = [None if each is None else torch.zeros_like(each) for each in inputs]
        grad_gate, grad_pool, grad_in, grad_out, grad_bias_in, grad_bias_out = grads
        for part, hidden in zip(_slices(pool, index, weight_in), kept, strict=True):
            rows = index[:, part].flatten()
            grad_answers = _gather(grad, rows, len(index)).mul_(gate[:, part, None])
            if bias_out is not None:
                grad_bias_out += grad_answers.sum(1, keepdim=True)
            grad_gate[:, part], grad_hidden = _second_product_backward(
                ctx.activation, grad_answers, gate[:, part], hidden, weight_out, bias_out, grad_out
            )
            grad_in.baddbmm_(_gather(pool, rows, len(index)).mT, grad_hidden)
            if bias_in is not None:
                grad_bias_in += grad_hidden.sum(1, keepdim=True)
            grad_pool.index_add_(0, rows, torch.bmm(grad_hidden, weight_in.mT).flatten(0, 1))
            del grad_answers, grad_hidden  # or they would live on beside those of the next slice
        return None, None, *grads


def _slices(pool: Tensor, index: Tensor, weight_in: Tensor) -> list[slice]:
    """Parts of the capacity axis, one after the other."""
    num_experts, num_taken = index.shape
    least = _MIN_SLICE_TOKENS.get(pool.device.type, _MIN_SLICE_TOKENS_ELSEWHERE)
    length = max(least, SLICE_NUMBERS // (num_experts * weight_in.shape[2]))
    return [slice(start, start + length) for start in range(0, num_taken, length)]


def _gather(pool: Tensor, rows: Tensor, num_experts: int) -> Tensor:
    return pool.index_select(0, rows).view(num_experts, -1, pool.shape[1])


def _product(tokens: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return torch.bmm(tokens, weight) if bias is None else torch.baddbmm(bias, tokens, weight)


def _second_product_backward(
    activation: Activation,
    grad_answers: Tensor,
    gate: Tensor,
    hidden: Tensor,
    weight_out: Tensor,
    bias_out: Tensor | None,
    grad_out: Tensor,
) -> tuple[Tensor, Tensor]:
    """Gradients of the gates and of ``hidden``; that of the weights is added to ``grad_out``."""
    active, grad_active = activate(activation, hidden), torch.bmm(grad_answers, weight_out.mT)
    grad_out.baddbmm_(active.mT, grad_answers)
    # A gate's gradient is <answer, its gradient>, found without the answer: through activation and bias.
    gated = active.mul_(grad_active).sum(-1, dtype=gate.dtype)
    if bias_out is not None:
        gated += torch.bmm(grad_answers, bias_out.mT).squeeze(-1)
    # A gate that underflowed to 0 cannot be divided out again; the softmax multiplies its gradient by that 0 anyway.
    return torch.where(gate > 0, gated / gate, 0), _activation_backward(activation, grad_active, hidden)


def _activation_backward(activation: Activation, grad: Tensor, hidden: Tensor) -> Tensor:
    """Gradient of ``hidden``; that of the activation is overwritten."""
    if activation == "gelu":
        found: Tensor = torch.ops.aten.gelu_backward.grad_input(grad, hidden, approximate="tanh", grad_input=grad)
        return found
    gate, value = hidden.chunk(2, dim=-1)
    grad_gate: Tensor = torch.ops.aten.silu_backward(grad * value, gate)
    return torch.cat((grad_gate, grad.mul_(F.silu(gate))), dim=-1)
