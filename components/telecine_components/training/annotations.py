"""What samples carry beside their frames: conditions and a player's actions, from shards to what a model takes.

A dataset stores pixels and numbers, and what is made of them is what the pipeline makes of a person's inputs, so that a
model films from what it was trained on. The pictures that a video begins and ends with are its own frames.

Axes: B batch, C channels, F frames, H, W pixels, E elements, h, w pixels of another picture, A actions, K keys.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from telecine.errors import InputError
from telecine_components.training.shard_reader import ShardReader
from telecine_models.pipeline_inputs import Inputs
from telecine_models.vae import IdentityVAE
from telecine_models.video_dit.action import Actions
from telecine_models.video_dit.conditions import Conditions

Members = Mapping[str, tuple[int, int]]
"""Offset and length, in the sample's shard, of each array that a sample has beside its frames."""

_OWN_FRAMES = {"first_frame": 0, "last_frame": -1}
_ACTIONS = ("keys", "mouse")
_NEEDS = {"source": ("source", "source_mask")}
"""Members of a kind of condition that is not one of its own name."""


class Annotated(Protocol):
    """A sample, as far as this module knows it."""

    @property
    def shard(self) -> str: ...

    @property
    def members(self) -> Members: ...


def has(members: Members, kind: str) -> bool:
    """Whether a sample has a kind of condition, or ``actions``."""
    needed = _ACTIONS if kind == "actions" else _NEEDS.get(kind, (kind,))
    return kind in _OWN_FRAMES or set(needed) <= set(members)


def num_keys(samples: Sequence[Annotated], locate: Callable[[str], Path]) -> int:
    """Keys of a player, by the first sample that has actions."""
    first = next(sample for sample in samples if has(sample.members, "actions"))
    return int(ShardReader(locate).array(first.shard, *first.members["keys"]).shape[1])


class Annotations:
    """Reads them for batches.

    Args:
        reader: of the samples' shards.
        kinds: of conditions that are read, of :data:`telecine_models.video_dit.config.KINDS`.
        actions: whether actions are read.
    """

    def __init__(self, reader: ShardReader, kinds: Sequence[str] = (), *, actions: bool = False) -> None:
        self.kinds, self.has_actions = tuple(kinds), actions
        self._reader = reader
        self._vae = IdentityVAE()

    def conditions(self, samples: Sequence[Annotated], frames: npt.NDArray[np.uint8]) -> Conditions | None:
        """Conditions of samples with these frames [B, F, H, W, 3]; None where none are read.

        A sample that lacks a kind has zeros in its place, and is not among those for which it is present.

        Raises:
            InputError: a member that holds something else, or elements of several sizes.
        """
        if not self.kinds:
            return None
        each = [self._of_one(sample, video) for sample, video in zip(samples, frames, strict=True)]
        shape = (3, *frames.shape[1:4])
        values, present = {}, {}
        for kind in self.kinds:
            found = [getattr(one, kind) for one in each]
            values[kind], present[kind] = _joined(kind, found, shape)
        if "source" in values:
            values["source_mask"], _ = _joined("source_mask", [one.source_mask for one in each], shape)
        return Conditions(**values, present=present)

    def actions(self, samples: Sequence[Annotated], num_actions: int) -> Actions | None:
        """Actions of samples, ``num_actions`` each; None where they are not read.

        Those of a sample that has none are unknown.

        Raises:
            InputError: a member that holds something else, or samples with several numbers of keys.
        """
        if not self.has_actions:
            return None
        found = [self._actions_of_one(sample) if has(sample.members, "actions") else None for sample in samples]
        numbers = sorted({keys.shape[1] for keys, _ in filter(None, found)}) or [1]
        lengths = {len(keys) for keys, _ in filter(None, found)}
        if len(numbers) > 1 or lengths - {num_actions}:
            raise InputError(
                f"{samples[0].shard}: actions must be {num_actions} of one number of keys in each sample, "
                f"got {sorted(lengths)} of {numbers}; encode the dataset again"
            )
        keys = torch.zeros(len(found), num_actions, numbers[0], dtype=torch.bool)
        mouse = torch.zeros(len(found), num_actions, 2)
        for place, one in enumerate(found):
            if one is not None:
                keys[place], mouse[place] = torch.from_numpy(one[0] != 0), torch.from_numpy(one[1])
        known = torch.tensor([one is not None for one in found])[:, None].expand(-1, num_actions)
        return Actions(keys=keys, mouse=mouse, known=known)

    def _of_one(self, sample: Annotated, frames: npt.NDArray[np.uint8]) -> Conditions:
        """Of one sample, as a batch of one."""
        kinds = [kind for kind in self.kinds if has(sample.members, kind)]
        given: dict[str, Any] = {kind: frames[_OWN_FRAMES[kind]] for kind in kinds if kind in _OWN_FRAMES}
        for name in [name for kind in kinds if kind not in given for name in _NEEDS.get(kind, (kind,))]:
            given[name] = self._read(sample, name)
        for name in {"depth", "sketch"} & set(given):
            given[name] = given[name] / np.float64(255)
        if "elements" in given:
            given["elements"] = list(given["elements"])
        inputs = Inputs(**given)
        try:
            inputs.check(frames.shape[:3])
        except ValueError as error:
            raise InputError(f"{sample.shard}: {error}; encode the dataset again") from error
        return inputs.conditions(self._vae, 1, torch.device("cpu"), torch.float32)

    def _actions_of_one(self, sample: Annotated) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        keys, mouse = (self._read(sample, name) for name in _ACTIONS)
        if keys.ndim != 2 or mouse.shape != (len(keys), 2) or not np.isfinite(mouse).all():
            raise InputError(
                f"{sample.shard}: keys must be [A, K] and mouse finite [A, 2], got {list(keys.shape)} and "
                f"{list(mouse.shape)}; encode the dataset again"
            )
        return keys, mouse.astype(np.float32)

    def _read(self, sample: Annotated, name: str) -> npt.NDArray[Any]:
        return self._reader.array(sample.shard, *sample.members[name])


def _joined(kind: str, found: Sequence[Tensor | None], shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Values of batches of one as a batch, and which samples have them: [B], for elements [B, E]."""
    there = [value for value in found if value is not None]
    if len(sizes := sorted({tuple(value.shape[-3:]) for value in there})) > 1:
        raise InputError(f"dataset: {kind} must have one size, got {[list(size) for size in sizes]}; encode it again")
    blank = _blank(kind, there, shape)
    if kind != "elements":
        values = torch.cat([blank if value is None else value for value in found])
        return values, torch.tensor([value is not None for value in found])
    numbers = [0 if value is None else value.shape[1] for value in found]
    values = blank[:, :1].repeat(len(found), max(1, *numbers), 1, 1, 1)
    for place, value in enumerate(found):
        if value is not None:
            values[place, : value.shape[1]] = value[0]
    return values, torch.arange(values.shape[1]) < torch.tensor(numbers)[:, None]


def _blank(kind: str, there: Sequence[Tensor], shape: tuple[int, ...]) -> Tensor:
    """What stands where a sample has none of a kind, also where no sample of the batch has."""
    if there:
        return torch.zeros_like(there[0])
    channels, num_frames, height, width = shape
    shapes: dict[str, tuple[int, ...]] = {"camera": (num_frames, 12), "elements": (1, channels, height, width)}
    shapes |= {"source_mask": (num_frames, height, width), "style": (channels, height, width)}
    return torch.zeros(1, *shapes.get(kind, shape))
