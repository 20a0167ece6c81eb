"""What a run needs to go on bit for bit: safetensors for tensors, JSON for the rest, no pickle.

DeepSpeed computes, we persist. ``weights.safetensors`` holds the float32 weights that are trained and the buffers,
``ema.safetensors`` the average of those weights, ``optimizer.safetensors`` AdamW's state as ``<parameter>.<slot>``,
``history.safetensors`` the series of metrics, ``state.json`` the rest. A weight that is not trained is part of the
model that the run began with. Random states are not there, because every draw is a function of (seed, position);
neither is the schedule, a function of the step. Nothing depends on the number of ranks or on the stage of ZeRO, so a
run goes on with others.
"""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
import torch.distributed as dist
from safetensors.torch import load_file
from torch import Tensor, nn

from telecine.errors import InputError
from telecine_components.training.ema import Ema, trained
from telecine_components.training.ranks import Ranks
from telecine_components.training.saver import DOCUMENT
from telecine_components.training.zero import SLOTS, State, share_of

FORMAT = 2
WEIGHTS, AVERAGE, OPTIMIZER, HISTORY = (f"{name}.safetensors" for name in ("weights", "ema", "optimizer", "history"))

History = dict[str, list[tuple[int, float]]]
Files = dict[str, dict[str, Tensor]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingState:
    """Where a run is.

    Attributes:
        step: optimiser steps done.
        data_step: steps of the data's plan consumed; more than ``step`` where a rollback left some out.
        num_samples: that the weights have seen.
        history: series of (step, value) points by metric name.
        guard: what :class:`telecine_components.training.guard.Guard` remembers.
        rollbacks: one line each.
    """

    step: int = 0
    data_step: int = 0
    num_samples: int = 0
    history: History = dataclasses.field(default_factory=dict)
    guard: dict[str, Any] = dataclasses.field(default_factory=dict)
    rollbacks: list[dict[str, Any]] = dataclasses.field(default_factory=list)

    def document(self) -> dict[str, Any]:
        """What ``state.json`` holds."""
        rest = {name: getattr(self, name) for name in ("step", "data_step", "num_samples", "guard", "rollbacks")}
        return {"format": FORMAT, **rest}


def collect(module: nn.Module, state: State, ema: Ema, training: TrainingState, ranks: Ranks) -> Files:
    """The checkpoint's tensors by file, on rank 0; empty elsewhere. Every rank has to call it."""
    weights: dict[str, Tensor] = {}
    optimizer: dict[str, Tensor] = {}
    for name, parameter in trained(module):
        found = {name: state.weight(parameter)}
        slots = {f"{name}.{slot}": state.slot(parameter, slot) for slot in SLOTS} if training.step else {}
        if ranks.leads:
            weights |= found
            optimizer |= slots
    average = whole_average(module, ema, ranks)
    if not ranks.leads:
        return {}
    weights |= _kept_buffers(module)
    return {WEIGHTS: weights, AVERAGE: average, OPTIMIZER: optimizer, HISTORY: _series(training.history)}


def whole_average(module: nn.Module, ema: Ema, ranks: Ranks) -> dict[str, Tensor]:
    """The averaged weights, whole, on rank 0; every rank has to call it."""
    parameters, whole = dict(trained(module)), {}
    for name, mine in ema.weights.items():
        parameter: Any = parameters[name]
        shape = getattr(parameter, "ds_shape", None)
        if shape is None:
            whole[name] = mine
            continue
        parts = [torch.empty_like(mine) for _ in range(ranks.size)]
        dist.all_gather(parts, mine)
        if ranks.leads:
            whole[name] = torch.cat(parts)[: parameter.ds_numel].view(shape).cpu()
    return whole


def restore(folder: Path | None, module: nn.Module, state: State, ema: Ema, ranks: Ranks) -> TrainingState:
    """Put a saved state into the module, its optimizer and the average, in place; every rank has to call it.

    Args:
        folder: where rank 0 finds it; the others are sent what they need, and give None.

    Raises:
        InputError: on every rank, where the checkpoint is of another format or another architecture.
    """
    document, found, problem = _read(folder, module, ranks) if ranks.leads else ({}, {}, "")
    document, problem = ranks.told([document, problem])
    if problem:
        raise InputError(problem)
    files = {name: ranks.tensors(found.get(name, {})) for name in (WEIGHTS, AVERAGE, OPTIMIZER, HISTORY)}
    training = _state(document)
    with torch.no_grad():
        buffers = _kept_buffers(module)
        for name, buffer in buffers.items():
            buffer.copy_(files[WEIGHTS][name])
        if training.step:
            state.begin(training.step)
        for name, parameter in trained(module):
            state.set_weight(parameter, files[WEIGHTS][name].to(parameter.device))
            for slot in SLOTS if training.step else ():
                state.set_slot(parameter, slot, files[OPTIMIZER][f"{name}.{slot}"].to(parameter.device))
    _restore_average(module, ema, files[AVERAGE])
    return dataclasses.replace(training, history=_points(files[HISTORY]))


def _restore_average(module: nn.Module, ema: Ema, average: Mapping[str, Tensor]) -> None:
    parameters = dict(trained(module))
    for name, mine in ema.weights.items():
        spread = hasattr(parameters[name], "ds_tensor")
        mine.copy_(share_of(average[name], parameters[name]) if spread else average[name])


def _read(folder: Path | None, module: nn.Module, ranks: Ranks) -> tuple[dict[str, Any], Files, str]:
    """Document and files, or what is wrong with them, in words: the other ranks wait for either."""
    assert folder is not None and ranks.leads
    document = json.loads((folder / DOCUMENT).read_text())
    if document.get("format") != FORMAT:
        return {}, {}, f"{folder}: checkpoint format must be {FORMAT}; start again with --force"
    files = {name: load_file(folder / name) for name in (WEIGHTS, AVERAGE, OPTIMIZER, HISTORY)}
    wanted = {name: _shape(parameter) for name, parameter in trained(module)}
    buffers = {name: tuple(buffer.shape) for name, buffer in _kept_buffers(module).items()}
    expected = {WEIGHTS: wanted | buffers, AVERAGE: wanted}
    if document["step"]:
        expected[OPTIMIZER] = {f"{name}.{slot}": shape for name, shape in wanted.items() for slot in SLOTS}
    for file, shapes in expected.items():
        got = {name: tuple(tensor.shape) for name, tensor in files[file].items()}
        odd = sorted(name for name in shapes.keys() | got.keys() if shapes.get(name) != got.get(name))
        if odd:
            rest = f" and {len(odd) - 1} more differ" if odd[1:] else " differs"
            return {}, {}, f"{folder}: checkpoint of another architecture: {odd[0]}{rest}; start again with --force"
    return document, files, ""


def _shape(parameter: nn.Parameter) -> tuple[int, ...]:
    return tuple(cast(Any, getattr(parameter, "ds_shape", parameter.shape)))


def _kept_buffers(module: nn.Module) -> dict[str, Tensor]:
    """Buffers that belong to a module's state: DiffMoE's thresholds."""
    parameters = {name for name, _ in module.named_parameters()}
    return {name: tensor for name, tensor in module.state_dict().items() if name not in parameters}


def _state(document: dict[str, Any]) -> TrainingState:
    return TrainingState(**{name: value for name, value in document.items() if name != "format"})


def _series(history: History) -> dict[str, Tensor]:
    """Two tensors a metric: a long run's series as text would be what its checkpoints mostly wait for."""
    found: dict[str, Tensor] = {}
    for name, points in history.items():
        found[f"{name}.steps"] = torch.tensor([step for step, _ in points], dtype=torch.int64)
        found[f"{name}.values"] = torch.tensor([value for _, value in points], dtype=torch.float64)
    return found


def _points(series: Mapping[str, Tensor]) -> History:
    names = [name.removesuffix(".steps") for name in series if name.endswith(".steps")]
    return {
        name: list(zip(series[f"{name}.steps"].tolist(), series[f"{name}.values"].tolist(), strict=True))
        for name in sorted(names)
    }
