"""The state that ZeRO spreads over ranks, seen as whole tensors by parameter.

DeepSpeed's own checkpoints are not used: they load by pickle and bind a run to its number of ranks. What is read here
is one float32 tensor for each parameter and each slot of AdamW, the same whatever the stage and the number of ranks;
what is written is each rank's share of such a tensor. Reading is collective: every rank takes part, in one order.
"""

from collections.abc import Iterator
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch import Tensor, nn

SLOTS = ("exp_avg", "exp_avg_sq")
"""What AdamW (arXiv 1711.05101) remembers of a parameter, beside the number of steps."""


class State(Protocol):
    """Weights and optimizer state of the parameters that are trained."""

    def weight(self, parameter: nn.Parameter) -> Tensor:
        """The whole weight."""
        ...

    def slot(self, parameter: nn.Parameter, name: str) -> Tensor:
        """One of :data:`SLOTS`, whole; zeros where a parameter has met no gradient."""
        ...

    def begin(self, num_steps: int) -> None:
        """Make the optimizer one that has taken so many steps, its slots zero."""
        ...

    def set_weight(self, parameter: nn.Parameter, value: Tensor) -> None:
        """Put in a whole weight."""
        ...

    def set_slot(self, parameter: nn.Parameter, name: str, value: Tensor) -> None:
        """Put in a whole slot; :meth:`begin` comes first."""
        ...


class Whole:
    """Stage 0: every rank has all of it, in PyTorch's own places."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self._optimizer = optimizer

    def weight(self, parameter: nn.Parameter) -> Tensor:
        return parameter.detach()

    def slot(self, parameter: nn.Parameter, name: str) -> Tensor:
        # AdamW passes over a parameter without a gradient, one that the loss does not use.
        value: Tensor = self._optimizer.state[parameter].get(name, torch.zeros_like(parameter, requires_grad=False))
        return value

    def begin(self, num_steps: int) -> None:
        for group in self._optimizer.param_groups:
            _begin(self._optimizer, iter(group["params"]), num_steps)

    def set_weight(self, parameter: nn.Parameter, value: Tensor) -> None:
        with torch.no_grad():
            parameter.copy_(value)

    def set_slot(self, parameter: nn.Parameter, name: str, value: Tensor) -> None:
        self._optimizer.state[parameter][name].copy_(value)


class Sharded:
    """Stages 1 and 2: weights are whole on every rank, the optimizer's copy of them and its slots are spread."""

    def __init__(self, sharded: Any) -> None:
        self._sharded = sharded

    def weight(self, parameter: nn.Parameter) -> Tensor:
        return parameter.detach()

    def slot(self, parameter: nn.Parameter, name: str) -> Tensor:
        from deepspeed.utils import safe_get_full_optimizer_state

        value: Tensor = safe_get_full_optimizer_state(parameter, name)
        return value

    def begin(self, num_steps: int) -> None:
        _begin(self._sharded.optimizer, iter(self._sharded.single_partition_of_fp32_groups), num_steps)
        # DeepSpeed links parameters to their slots once, in its first step; these are new slots.
        self._sharded._hp_optimizer_states_linked = False
        self._sharded._lazy_init_hp_params_optimizer_state()

    def set_weight(self, parameter: nn.Parameter, value: Tensor) -> None:
        from deepspeed.utils import safe_set_full_fp32_param

        with torch.no_grad():
            parameter.copy_(value)
        safe_set_full_fp32_param(parameter, value)

    def set_slot(self, parameter: nn.Parameter, name: str, value: Tensor) -> None:
        from deepspeed.utils import safe_set_full_optimizer_state

        safe_set_full_optimizer_state(parameter, value, name)


class Partitioned:
    """Stage 3: weights are spread too."""

    def __init__(self, partitioned: Any) -> None:
        self._partitioned = partitioned

    def weight(self, parameter: nn.Parameter) -> Tensor:
        from deepspeed.utils import safe_get_full_fp32_param

        value: Tensor = safe_get_full_fp32_param(parameter)
        return value

    def slot(self, parameter: nn.Parameter, name: str) -> Tensor:
        from deepspeed.utils import safe_get_full_optimizer_state

        value: Tensor = safe_get_full_optimizer_state(parameter, name)
        return value

    def begin(self, num_steps: int) -> None:
        _begin(self._partitioned.optimizer, iter(self._partitioned.fp32_partitioned_groups_flat), num_steps)

    def set_weight(self, parameter: nn.Parameter, value: Tensor) -> None:
        from deepspeed.utils import safe_set_local_fp32_param

        mine = share_of(value, parameter)
        safe_set_local_fp32_param(parameter, mine)
        local_weight(parameter).copy_(mine)
        # DeepSpeed keeps small weights gathered between steps, and what is gathered is of before.
        parameter.partition()  # type: ignore[attr-defined]

    def set_slot(self, parameter: nn.Parameter, name: str, value: Tensor) -> None:
        from deepspeed.utils import safe_set_local_optimizer_state

        safe_set_local_optimizer_state(parameter, share_of(value, parameter), name)


def state_of(stage: int, engine: Any, optimizer: torch.optim.Optimizer) -> State:
    """The state behind a DeepSpeed engine of that ZeRO stage."""
    if stage == 0:
        return Whole(optimizer)
    return Sharded(engine.optimizer) if stage < 3 else Partitioned(engine.optimizer)


def local_weight(parameter: nn.Parameter) -> Tensor:
    """What this rank holds of a weight: all of it below stage 3."""
    shard: Tensor | None = getattr(parameter, "ds_tensor", None)
    return parameter.detach() if shard is None else shard.detach()


def share_of(value: Tensor, parameter: nn.Parameter) -> Tensor:
    """This rank's share of a whole tensor, with the zeros that make all shares equally long."""
    length = local_weight(parameter).numel()
    flat, start = value.flatten(), length * dist.get_rank()
    mine = flat[start : start + length]
    return nn.functional.pad(mine, (0, length - mine.numel()))


def _begin(optimizer: torch.optim.Optimizer, parameters: Iterator[Any], num_steps: int) -> None:
    for parameter in parameters:
        zeros = {name: torch.zeros_like(parameter, requires_grad=False) for name in SLOTS}
        # The fused AdamW counts on the parameter's device.
        optimizer.state[parameter] = {"step": torch.tensor(float(num_steps), device=parameter.device), **zeros}
