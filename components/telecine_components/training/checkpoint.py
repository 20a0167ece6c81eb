"""What a run needs to go on bit for bit: safetensors for tensors, JSON for the rest, no pickle.

DeepSpeed computes, we persist: its own checkpoints load by pickle. ``weights.safetensors`` holds the float32 master
weights and buffers, ``ema.safetensors`` their average, ``optimizer.safetensors`` AdamW's state as
``<parameter>.<slot>``, ``state.json`` the step, the data position and the history. Random states are not there,
because every draw is a function of (seed, step); neither is the schedule, a function of the step.
"""

import dataclasses
import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from telecine.errors import InputError

FORMAT = 1
_SLOTS = ("step", "exp_avg", "exp_avg_sq")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingState:
    """Position of a run: optimiser steps done, samples consumed, and series of (step, value) points by metric name."""

    step: int = 0
    position: int = 0
    history: dict[str, list[tuple[int, float]]] = dataclasses.field(default_factory=dict)


def save(
    folder: Path,
    state: TrainingState,
    module: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    ema: dict[str, torch.Tensor],
) -> None:
    """Write the four files into ``folder``. Their bytes depend on the state alone."""
    save_file({name: tensor.detach() for name, tensor in module.state_dict().items()}, folder / "weights.safetensors")
    save_file(ema, folder / "ema.safetensors")
    save_file(_optimizer_tensors(module, optimizer), folder / "optimizer.safetensors")
    document = {"format": FORMAT, **dataclasses.asdict(state)}
    (folder / "state.json").write_text(json.dumps(document, sort_keys=True))


def load(
    folder: Path, module: torch.nn.Module, optimizer: torch.optim.Optimizer, ema: dict[str, torch.Tensor]
) -> TrainingState:
    """Put a saved state into the module, its optimizer and the average, in place.

    Raises:
        InputError: where the checkpoint is of another format or another architecture.
    """
    document = json.loads((folder / "state.json").read_text())
    if document.pop("format", None) != FORMAT:
        raise InputError(f"{folder}: checkpoint format must be {FORMAT}; start again with --force")
    weights = load_file(folder / "weights.safetensors")
    _check_same(folder, module.state_dict(), weights)
    module.load_state_dict(weights)
    averaged = load_file(folder / "ema.safetensors")
    _check_same(folder, ema, averaged)
    for name, tensor in ema.items():
        tensor.copy_(averaged[name])
    _restore_optimizer(module, optimizer, load_file(folder / "optimizer.safetensors"))
    history = {
        name: [(int(step), float(value)) for step, value in points] for name, points in document["history"].items()
    }
    return TrainingState(step=document["step"], position=document["position"], history=history)


def _optimizer_tensors(module: torch.nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    tensors = {}
    for name, parameter in module.named_parameters():
        for slot, value in optimizer.state.get(parameter, {}).items():
            tensors[f"{name}.{slot}"] = value.detach()
    return tensors


def _restore_optimizer(
    module: torch.nn.Module, optimizer: torch.optim.Optimizer, tensors: dict[str, torch.Tensor]
) -> None:
    for name, parameter in module.named_parameters():
        state: dict[str, Any] = {slot: tensors[f"{name}.{slot}"] for slot in _SLOTS if f"{name}.{slot}" in tensors}
        if state:
            optimizer.state[parameter] = state


def _check_same(folder: Path, expected: dict[str, torch.Tensor], found: dict[str, torch.Tensor]) -> None:
    wanted = {name: tuple(tensor.shape) for name, tensor in expected.items()}
    got = {name: tuple(tensor.shape) for name, tensor in found.items()}
    if wanted != got:
        odd = sorted(name for name in wanted.keys() | got.keys() if wanted.get(name) != got.get(name))
        raise InputError(f"{folder}: checkpoint of another architecture: {odd[0]} and {len(odd) - 1} more differ")
