"""LoRA (arXiv 2106.09685): small factors learned beside frozen linear layers, by peft, kept apart from the weights.

A folder of weights stays as it is; the factors lie in a folder ``lora`` inside it, and whoever loads the weights says
whether they join. ``lora.safetensors`` has the layout that diffusers reads: ``<layer>.lora_A.weight`` and ``…lora_B…``.
"""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from telecine.errors import InputError
from telecine_components.training.randomness import torch_seed
from telecine_models.moe.diffmoe import DiffMoE

FOLDER, WEIGHTS, CONFIG = "lora", "lora.safetensors", "config.json"
_ADAPTER, _FIRST = ".default.", ".lora_A.weight"
_STREAM = 6
# Attention and feed-forwards, as the video DiT and Wan call them.
_PARTS = {"attention", "feed_forward", "attn1", "attn2", "ffn"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class LoraConfig:
    """Rank of the factors, and the layers that have them. Their product is not scaled."""

    rank: int
    layers: tuple[str, ...]


def add_lora(model: nn.Module, rank: int, seed: int) -> None:
    """Freeze a model and put a LoRA beside the linear layers of its attention and feed-forwards, in place.

    It begins as nothing: one factor is random, a function of the seed, and the other zero.

    Raises:
        InputError: a model without such layers, or one with DiffMoE layers, whose thresholds move in training and are
            no part of a LoRA.
    """
    if any(isinstance(module, DiffMoE) for module in model.modules()):
        raise InputError("lora: a model with experts is trained as a whole, got lora_rank above 0; leave it out")
    layers = tuple(name for name, module in model.named_modules() if _is_target(name, module))
    if not layers:
        raise InputError(
            f"lora: {type(model).__name__} has no linear layers of attention or feed-forwards to go beside"
        )
    _inject(model, LoraConfig(rank=rank, layers=layers), seed)


def lora_of(model: nn.Module) -> dict[str, Tensor]:
    """The factors by name, without those of a model that has none."""
    return {name.replace(_ADAPTER, "."): each for name, each in model.named_parameters() if _ADAPTER in name}


def save_lora(model: nn.Module, folder: Path) -> None:
    """Write the factors and their configuration into a folder that is made."""
    factors = {name: each.detach().cpu().contiguous() for name, each in sorted(lora_of(model).items())}
    ranks = _ranks(factors)
    config = LoraConfig(rank=next(iter(ranks.values())), layers=tuple(ranks))
    folder.mkdir(parents=True)
    save_file(factors, folder / WEIGHTS, metadata={"format": "pt"})
    (folder / CONFIG).write_text(json.dumps(dataclasses.asdict(config), indent=1, sort_keys=True))


def read_config(folder: Path) -> LoraConfig:
    """Of a folder that :func:`save_lora` wrote; raises :class:`InputError` for any other."""
    path = folder / CONFIG
    if not (path.is_file() and (folder / WEIGHTS).is_file()):
        raise InputError(f"{folder}: no LoRA in it; expected {WEIGHTS} and {CONFIG} as pretrain.train writes them")
    try:
        document = json.loads(path.read_text())
        return LoraConfig(rank=int(document["rank"]), layers=tuple(document["layers"]))
    except (ValueError, TypeError, KeyError) as error:
        raise InputError(f"{path}: it must say rank and layers as pretrain.train wrote them; copy it again") from error


def load_lora(model: nn.Module, folder: Path) -> None:
    """Put the LoRA of a folder beside a model's layers, in place; the rest is frozen.

    Raises:
        InputError: no LoRA there, or one of another architecture.
    """
    config = read_config(folder)
    try:
        factors = load_file(folder / WEIGHTS)
    except SafetensorError as error:
        raise InputError(f"{folder / WEIGHTS}: it must be a safetensors file: {error}; copy it again") from error
    if tuple(_ranks(factors)) != config.layers:
        raise InputError(f"{folder}: {WEIGHTS} and {CONFIG} are not of one LoRA; copy both from one training")
    try:
        join_lora(model, factors)
    except ValueError as error:
        raise InputError(f"{folder}: a LoRA of another architecture: {error}") from error


def join_lora(model: nn.Module, factors: Mapping[str, Tensor]) -> None:
    """Put factors, as :func:`lora_of` gives them, beside a model's layers, in place; the rest is frozen.

    Raises:
        ValueError: a layer that the model lacks, or one of another shape.
    """
    ranks, known = _ranks(factors), dict(model.named_modules())
    if odd := [name for name in ranks if not isinstance(known.get(name), nn.Linear)]:
        raise ValueError(f"{type(model).__name__} has no layer {odd[0]}")
    _inject(model, LoraConfig(rank=next(iter(ranks.values())), layers=tuple(ranks)), 0)
    targets = lora_of(model)
    if wrong := sorted(name for name in targets.keys() | factors if _shape(targets, name) != _shape(factors, name)):
        raise ValueError(f"{wrong[0]} differs")
    with torch.no_grad():
        for name, target in targets.items():
            target.copy_(factors[name])


def merge_lora(model: nn.Module, scale: float = 1.0) -> None:
    """Add the factors' products, times ``scale``, to the weights and drop the factors, in place.

    The model is of its old class again, and no weight of it is frozen.
    """
    for name, layer in _layers(model).items():
        layer.scale_layer(scale)
        layer.merge()
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, layer.get_base_layer())
    model.requires_grad_(True)


def enable_lora(model: nn.Module, enabled: bool) -> None:
    """Have the model be with its LoRA, or as it was without."""
    for layer in _layers(model).values():
        layer.enable_adapters(enabled)


def _inject(model: nn.Module, config: LoraConfig, seed: int) -> None:
    # Here, because it takes seconds to import and most trainings do without.
    import peft

    asked = peft.LoraConfig(r=config.rank, lora_alpha=config.rank, target_modules=list(config.layers))
    model.requires_grad_(False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(torch_seed(seed, _STREAM))
        peft.inject_adapter_in_model(asked, model)


def _layers(model: nn.Module) -> dict[str, Any]:
    from peft.tuners.lora import LoraLayer

    return {name: module for name, module in model.named_modules() if isinstance(module, LoraLayer)}


def _ranks(factors: Mapping[str, Tensor]) -> dict[str, int]:
    """Rank by layer, in the order of names."""
    return {name.removesuffix(_FIRST): each.shape[0] for name, each in sorted(factors.items()) if name.endswith(_FIRST)}


def _is_target(name: str, module: nn.Module) -> bool:
    return isinstance(module, nn.Linear) and bool(_PARTS & set(name.split(".")))


def _shape(tensors: Mapping[str, Tensor], name: str) -> tuple[int, ...] | None:
    return tuple(tensors[name].shape) if name in tensors else None
