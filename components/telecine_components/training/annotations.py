"""What samples carry beside their frames: conditions and a player's actions, from shards to what a model takes.

A dataset of frames stores pixels and numbers, and what is made of them is what the pipeline makes of a person's inputs,
so that a model films from what it was trained on; the pictures that a video begins and ends with are its own frames. A
dataset of latents stores what was made of them.

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
from telecine_models.vae import IdentityVAE, VideoVAE
from telecine_models.video_dit.action import Actions
from telecine_models.video_dit.conditions import Conditions
from telecine_models.video_dit.config import KINDS

Members = Mapping[str, tuple[int, int]]
"""Offset and length, in the sample's shard, of each array that a sample has beside its frames."""

_OWN_FRAMES = {"first_frame": 0, "last_frame": -1}
ACTIONS = ("keys", "mouse")
_NEEDS = {"source": ("source", "source_mask"), "actions": ACTIONS}
"""Members of a kind that is not one of its own name."""


class Annotated(Protocol):
    """A sample, as far as this module knows it."""

    @property
    def shard(self) -> str: ...

    @property
    def members(self) -> Members: ...

    @property
    def num_frames(self) -> int: ...

    @property
    def x0_shape(self) -> tuple[int, int, int, int]: ...

    @property
    def latent_shape(self) -> tuple[int, int, int, int] | None: ...


def has(sample: Annotated, kind: str) -> bool:
    """Whether a sample has a kind of condition, or ``actions``."""
    return kind in kinds_of(sample.members, is_latent=sample.latent_shape is not None)


def kinds_of(members: Members, *, is_latent: bool) -> list[str]:
    """Kinds of conditions of a sample with these members, and ``actions``; its frames have their own first and last."""
    own = () if is_latent else tuple(_OWN_FRAMES)
    needs = {kind: _NEEDS.get(kind, (kind,)) for kind in (*KINDS, "actions")}
    return [kind for kind, names in needs.items() if kind in own or set(names) <= set(members)]


def num_keys(samples: Sequence[Annotated], locate: Callable[[str], Path]) -> int:
    """Keys of a player, by the first sample that has actions."""
    first = next(sample for sample in samples if has(sample, "actions"))
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

    def conditions(
        self, samples: Sequence[Annotated], frames: Sequence[npt.NDArray[np.uint8]] = ()
    ) -> Conditions | None:
        """Conditions of samples of one shape; None where none are read.

        A sample that lacks a kind has zeros in its place, and is not among those for which it is present.

        Args:
            frames: [F, H, W, 3] of each sample that is not stored as latents.

        Raises:
            InputError: a member that holds something else, or elements of several sizes.
        """
        if not self.kinds:
            return None
        if frames:
            each = [
                from_frames(self._reader, sample.shard, sample.members, video, self.kinds, self._vae)
                for sample, video in zip(samples, frames, strict=True)
            ]
        else:
            each = [self._from_latents(sample) for sample in samples]
        shape = samples[0].x0_shape
        values, present = {}, {}
        for kind in self.kinds:
            found = [getattr(one, kind) for one in each]
            values[kind], present[kind] = _joined(kind, found, shape)
        if "source" in values:
            values["source_mask"], _ = _joined("source_mask", [one.source_mask for one in each], shape)
        return Conditions(**values, present=present)

    def actions(self, samples: Sequence[Annotated]) -> Actions | None:
        """Actions of samples of one length, one fewer than they have frames; None where they are not read.

        Those of a sample that has none are unknown.

        Raises:
            InputError: a member that holds something else, or samples with several numbers of keys.
        """
        if not self.has_actions:
            return None
        num_actions = samples[0].num_frames - 1
        found = [self._actions_of_one(sample) if has(sample, "actions") else None for sample in samples]
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

    def _from_latents(self, sample: Annotated) -> Conditions:
        """Of one sample that is stored as latents, as a batch of one."""
        kinds = [kind for kind in self.kinds if has(sample, kind)]
        names = [name for kind in kinds for name in _NEEDS.get(kind, (kind,))]
        stored: Any = {name: torch.from_numpy(self._read(sample, name).astype(np.float32))[None] for name in names}
        return Conditions(**stored)

    def _actions_of_one(self, sample: Annotated) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        keys, mouse = (self._read(sample, name) for name in ACTIONS)
        if keys.ndim != 2 or mouse.shape != (len(keys), 2) or not np.isfinite(mouse).all():
            raise InputError(
                f"{sample.shard}: keys must be [A, K] and mouse finite [A, 2], got {list(keys.shape)} and "
                f"{list(mouse.shape)}; encode the dataset again"
            )
        return keys, mouse.astype(np.float32)

    def _read(self, sample: Annotated, name: str) -> npt.NDArray[Any]:
        return self._reader.array(sample.shard, *sample.members[name])


def from_frames(
    reader: ShardReader,
    shard: str,
    members: Members,
    frames: npt.NDArray[np.uint8],
    kinds: Sequence[str],
    vae: VideoVAE,
) -> Conditions:
    """Conditions of one sample that is stored as frames [F, H, W, 3], as latents in a batch of one.

    Args:
        kinds: that are wanted; those that the sample lacks are left out.

    Raises:
        InputError: a member that holds something else, or that the autoencoder cannot take.
    """
    there = [kind for kind in kinds_of(members, is_latent=False) if kind in kinds]
    given: dict[str, Any] = {kind: frames[_OWN_FRAMES[kind]] for kind in there if kind in _OWN_FRAMES}
    for name in [name for kind in there if kind not in given for name in _NEEDS.get(kind, (kind,))]:
        given[name] = reader.array(shard, *members[name])
    for name in sorted({"depth", "sketch"} & set(given)):
        if given[name].dtype != np.uint8:
            raise InputError(f"{shard}: {name} must be uint8, got {given[name].dtype}; encode the dataset again")
        given[name] = given[name] / np.float64(255)
    if "elements" in given:
        given["elements"] = list(given["elements"])
    inputs = Inputs(**given)
    try:
        inputs.check(frames.shape[:3])
        return inputs.conditions(vae, 1, torch.device("cpu"), torch.float32)
    except ValueError as error:
        raise InputError(f"{shard}: {error}; encode the dataset again") from error


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
