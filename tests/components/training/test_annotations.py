"""What samples carry beside their frames comes to a model as the pipeline would bring it, whatever batch it is in."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from telecine.errors import InputError
from telecine_components.media.shards import ShardWriter, array_bytes
from telecine_components.training.annotations import kinds_of
from telecine_components.training.loader import Loader, Sample
from telecine_models.pipeline_inputs import Inputs
from telecine_models.vae import IdentityVAE
from telecine_models.video_dit.conditions import Conditions
from telecine_models.video_dit.config import KINDS

Arrays = dict[str, "np.ndarray[Any, Any]"]
FRAMES, SIDE = 3, 8


def arrays(seed: int, num_elements: int = 1) -> Arrays:
    """Everything that a sample can carry."""
    rng = np.random.default_rng(seed)

    def levels(*shape: int) -> "np.ndarray[Any, Any]":
        return rng.integers(256, size=shape, dtype=np.uint8)

    return {
        "depth": levels(FRAMES, SIDE, SIDE),
        "sketch": levels(FRAMES, SIDE, SIDE),
        "camera": rng.normal(size=(FRAMES, 3, 4)).astype(np.float32),
        "elements": levels(num_elements, 4, 4, 3),
        "style": levels(4, 4, 3),
        "source": levels(FRAMES, SIDE, SIDE, 3),
        "source_mask": rng.integers(2, size=(FRAMES, SIDE, SIDE)).astype(bool),
        "keys": rng.integers(2, size=(FRAMES - 1, 7)).astype(np.uint8),
        "mouse": rng.normal(size=(FRAMES - 1, 2)).astype(np.float32),
    }


@pytest.fixture
def load(tmp_path: Path) -> Callable[..., Loader]:
    """A loader of samples that carry these arrays, with frames of their own."""

    def made(*carried: Arrays, conditions: tuple[str, ...] = KINDS, actions: bool = True) -> Loader:
        samples = []
        with ShardWriter(tmp_path / "shard.tar") as shard:
            for index, beside in enumerate(carried):
                frames = np.random.default_rng((9, index)).integers(256, size=(FRAMES, SIDE, SIDE, 3), dtype=np.uint8)
                files = {name: array_bytes(array) for name, array in {"frames": frames, **beside}.items()}
                places = {name: tuple(member) for name, member in shard.add(f"{index}", files).items()}
                offset, length = places.pop("frames")
                shape = {"num_frames": FRAMES, "height_px": SIDE, "width_px": SIDE, "fps": 8.0}
                known = {"clip_id": "", "caption": "", "split": "train", "shard": "s", "shard_digest": ""}
                place: dict[str, Any] = {"offset": offset, "length": length, "members": places}
                samples.append(Sample(sample_id=f"{index}", **known, **shape, **place))
        return Loader(samples, lambda _: tmp_path / "shard.tar", seed=0, conditions=conditions, actions=actions)

    return made


def test_conditions_are_what_the_pipeline_makes_of_the_same_inputs(load: Callable[..., Loader]) -> None:
    beside = arrays(0, num_elements=2)
    loader = load(beside)
    given = {name: beside[name] for name in ("camera", "source", "source_mask", "style")}
    inputs = Inputs(
        **given,
        **{name: beside[name] / 255 for name in ("depth", "sketch")},
        elements=list(beside["elements"]),
        first_frame=loader.frames(0)[0],
        last_frame=loader.frames(0)[-1],
    )
    wanted = inputs.conditions(IdentityVAE(), 1, torch.device("cpu"), torch.float32)
    batch = loader.gather([0])
    assert batch.conditions is not None and batch.actions is not None
    for name in (*KINDS, "source_mask"):
        torch.testing.assert_close(getattr(batch.conditions, name), getattr(wanted, name), rtol=0, atol=0)
    assert torch.equal(batch.conditions.first_frame, batch.x0[:, :, 0])
    assert all(there.all() for there in batch.conditions.present.values())
    np.testing.assert_array_equal(batch.actions.keys[0], beside["keys"] != 0)
    np.testing.assert_array_equal(batch.actions.mouse[0], beside["mouse"])


def test_a_sample_s_conditions_do_not_depend_on_its_neighbours(load: Callable[..., Loader]) -> None:
    loader = load(arrays(0, num_elements=3), arrays(1), {})
    together = loader.gather([0, 1, 2])
    assert together.conditions is not None and together.actions is not None
    for index in range(3):
        alone = loader.gather([index])
        assert alone.conditions is not None and alone.actions is not None
        _same_where_present(alone.conditions, together.conditions, index)
        assert torch.equal(alone.actions.mouse[0], together.actions.mouse[index])
    assert together.conditions.present["elements"].tolist() == [[True] * 3, [True, False, False], [False] * 3]
    assert together.conditions.present["first_frame"].tolist() == [True, True, True]
    assert together.conditions.present["depth"].tolist() == [True, True, False]
    assert together.actions.known is not None
    assert together.actions.known.tolist() == [[True, True], [True, True], [False, False]]


def _same_where_present(alone: Conditions, together: Conditions, index: int) -> None:
    for kind, there in alone.present.items():
        value, among = getattr(alone, kind)[0], getattr(together, kind)[index]
        if kind == "elements":
            value, among = value[there[0]], among[together.present[kind][index]]
        if there.any():
            assert torch.equal(value, among), kind


def test_nothing_is_read_that_nobody_asked_for(load: Callable[..., Loader]) -> None:
    batch = load(arrays(0), conditions=(), actions=False).gather([0])
    assert batch.beside == {}
    only = load(arrays(0), conditions=("depth",), actions=False).gather([0])
    assert only.conditions is not None
    assert [kind for kind, _ in only.conditions.given()] == ["depth"]


def test_a_kind_is_there_with_all_that_it_needs() -> None:
    place = (0, 1)
    assert kinds_of({}, is_latent=False) == ["first_frame", "last_frame"], "frames have their own"
    assert kinds_of({"source": place, "keys": place}, is_latent=True) == []
    whole = {"source": place, "source_mask": place, "keys": place, "mouse": place, "first_frame": place}
    assert kinds_of(whole, is_latent=True) == ["first_frame", "source", "actions"]


@pytest.mark.parametrize(
    ("spoilt", "sentence"),
    [
        ({"depth": np.zeros((FRAMES, 4, 4), np.uint8)}, r"depth must be floats \[3, 8, 8\], got float64 \[3, 4, 4\]"),
        ({"camera": np.full((FRAMES, 3, 4), np.nan, np.float32)}, "camera must be finite, got nan"),
        ({"source_mask": np.zeros((FRAMES, 4, 4), bool)}, "source_mask must be a mask inside the video"),
        ({"depth": np.zeros((FRAMES, 8, 8), np.float32)}, "depth must be uint8, got float32"),
        ({"elements": np.zeros((5, 4, 4, 3), np.uint8)}, "elements must be 1 to 4 pictures, got 5"),
        ({"mouse": np.zeros((FRAMES, 2), np.float32)}, r"keys must be \[A, K\] and mouse finite \[A, 2\]"),
        (
            {"keys": np.zeros((1, 7), np.uint8), "mouse": np.zeros((1, 2), np.float32)},
            r"actions must be 2 of one number of keys in each sample, got \[1\] of \[7\]",
        ),
    ],
)
def test_members_that_hold_something_else_are_named(load: Callable[..., Loader], spoilt: Arrays, sentence: str) -> None:
    with pytest.raises(InputError, match=f"s: .*{sentence}.*; encode the dataset again"):
        load({**arrays(0), **spoilt}).gather([0])


def test_elements_of_several_sizes_are_refused(load: Callable[..., Loader]) -> None:
    other = arrays(1) | {"elements": np.zeros((1, 8, 8, 3), np.uint8)}
    with pytest.raises(InputError, match="elements must have one size"):
        load(arrays(0), other).gather([0, 1])
