"""pretrain.train on conditions in a curriculum, on Backlot's clips through the real components."""

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from telecine.errors import InputError, RetryLater
from telecine_components.training.loader import Loader, read_index
from telecine_models.pipeline import TelecinePipeline
from telecine_models.pipeline_inputs import Inputs

Run = Callable[..., Any]
TRAIN = "pretrain.train"
KINDS = ["camera", "elements", "depth", "source", "first_frame"]
CLIPS: dict[str, Any] = {"num_clips": 12, "num_frames": 2, "width_px": 16, "height_px": 16, "element_px": 8}
CURRICULUM: dict[str, Any] = {
    "conditions": KINDS,
    "condition_steps": [0, 4, 8, 8, 12],
    "condition_dropout_ratio": 0.3,
    "num_steps": 24,
    "patch_frames": 1,
}


def local(uri: str) -> Path:
    return Path(uri.removeprefix("file://"))


def bytes_of(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def clips(trained: Any) -> str:
    """A tiny dataset with conditions."""
    uri: str = trained.run("backlot.encode", **CLIPS).dataset_uri
    return uri


@pytest.fixture(scope="module")
def learn(trained: Any, clips: str, tiny_training: dict[str, Any]) -> Run:
    """Train on it from nothing."""
    base = {"dataset_uri": clips, **tiny_training, **CURRICULUM}
    return lambda **inputs: trained.run(TRAIN, run="conditions", **(base | inputs))


@pytest.fixture(scope="module")
def conditioned(learn: Run) -> Any:
    return learn()


def film(outputs: Any, inputs: Inputs | None) -> np.ndarray[Any, Any]:
    """One film of the trained pipeline, always from the same noise."""
    pipeline = TelecinePipeline.from_pretrained(local(outputs.model_uri))
    pipeline.set_progress_bar_config(disable=True)  # type: ignore[no-untyped-call]
    found: np.ndarray[Any, Any] = pipeline(
        "a red circle", num_frames=2, height_px=16, width_px=16, num_steps=3, guidance_scale=1.0, inputs=inputs
    )
    return found


def test_a_model_learns_conditions_and_its_pipeline_films_with_them(conditioned: Any, clips: str, trained: Any) -> None:
    assert conditioned.eval_loss < conditioned.eval_loss_untrained
    assert conditioned.is_pipeline
    depth = np.linspace(0, 1, 2 * 16 * 16).reshape(2, 16, 16)
    plain, near, far = (film(conditioned, given) for given in (None, Inputs(depth=depth), Inputs(depth=1 - depth)))
    assert (plain != near).any() and (near != far).any()
