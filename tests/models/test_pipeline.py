"""The pipeline: from text to frames, and through a folder into a process that knows only this module."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from telecine_models.pipeline import TelecinePipeline
from telecine_models.pixels import to_frames, to_model_range
from telecine_models.sampling import Method
from telecine_models.text import HashTextEncoder
from telecine_models.video_dit.model import VideoDiT

SIZE: dict[str, Any] = {"num_frames": 2, "height_px": 8, "width_px": 12, "num_steps": 3}
PROMPTS = ["a red circle moves left", "two blue squares on a green background"]


@pytest.fixture
def pipeline(awake_model: Callable[..., VideoDiT]) -> TelecinePipeline:
    made = TelecinePipeline(awake_model(text_dim=16), HashTextEncoder(text_dim=16, max_tokens=8))
    made.set_progress_bar_config(disable=True)
    return made


@pytest.fixture
def folder(pipeline: TelecinePipeline, tmp_path: Path) -> Path:
    pipeline.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def test_pixels_survive_the_way_to_the_model_and_back() -> None:
    frames = torch.arange(256, dtype=torch.uint8).repeat(3).view(1, 2, 8, 16, 3)
    x = to_model_range(frames)
    assert (float(x.min()), float(x.max())) == (-1, 1)
    assert torch.equal(to_frames(x), frames)
    assert (to_frames(torch.full((1, 3, 1, 1, 2), 7.0)) == 255).all()


def test_one_prompt_or_a_list_gives_one_video_each(pipeline: TelecinePipeline) -> None:
    frames = pipeline(PROMPTS, **SIZE)
    assert frames.shape == (2, 2, 8, 12, 3)
    assert frames.dtype == np.uint8
    assert pipeline(PROMPTS[0], **SIZE).shape == (1, 2, 8, 12, 3)


def test_the_seed_and_the_prompt_decide_the_video(pipeline: TelecinePipeline) -> None:
    frames = pipeline(PROMPTS[0], **SIZE, seed=5)
    assert np.array_equal(frames, pipeline(PROMPTS[0], **SIZE, seed=5))
    assert not np.array_equal(frames, pipeline(PROMPTS[0], **SIZE, seed=6))
    assert not np.array_equal(frames, pipeline(PROMPTS[1], **SIZE, seed=5))


def test_a_video_does_not_change_with_the_others_of_its_batch(pipeline: TelecinePipeline) -> None:
    together, alone = pipeline(PROMPTS, **SIZE), pipeline(PROMPTS[1], **SIZE)
    # Sums of another batch size may round differently by one level.
    assert np.abs(together[1].astype(int) - alone[0]).max() <= 1


def test_without_a_prompt_guidance_changes_nothing(pipeline: TelecinePipeline) -> None:
    plain, guided = (pipeline("", **SIZE, guidance_scale=scale).astype(int) for scale in (1.0, 6.0))
    assert np.abs(plain - guided).max() <= 1
    plain, guided = (pipeline(PROMPTS[0], **SIZE, guidance_scale=scale).astype(int) for scale in (1.0, 6.0))
    assert np.abs(plain - guided).max() > 1


@pytest.mark.parametrize(("method", "evaluations"), [("euler", 3), ("heun", 6)])
def test_the_bar_counts_evaluations_and_can_be_silenced(
    pipeline: TelecinePipeline, capsys: pytest.CaptureFixture[str], method: Method, evaluations: int
) -> None:
    pipeline(PROMPTS, **SIZE, method=method)
    assert capsys.readouterr().err == ""
    pipeline.set_progress_bar_config(disable=False)
    pipeline(PROMPTS, **SIZE, method=method)
    assert f"{evaluations}/{evaluations}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prompt": []}, "prompt must hold at least one caption"),
        ({"num_frames": 0}, "num_frames must be a positive multiple of 1 .*, got 0"),
        ({"height_px": 30}, "height_px must be a positive multiple of 4 .*, got 30"),
        ({"width_px": 9}, "width_px must be a positive multiple of 4 .*, got 9"),
        ({"num_steps": 0}, "num_steps must be at least 1, got 0"),
        ({"guidance_scale": -1.0}, "guidance_scale must be finite and at least 0, got -1"),
        ({"guidance_scale": float("nan")}, "guidance_scale must be finite"),
    ],
)
def test_a_wrong_input_is_named_with_its_value(
    pipeline: TelecinePipeline, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=f"TelecinePipeline: {message}"):
        pipeline(**({"prompt": PROMPTS, **SIZE} | change))


def test_a_fresh_process_without_network_loads_the_folder_and_makes_the_same_frames(
    pipeline: TelecinePipeline, folder: Path, tmp_path: Path
) -> None:
    code = f"""
import sys, socket
def refuse(*args, **kwargs): raise AssertionError("the network was touched")
socket.socket.connect = socket.getaddrinfo = refuse
import torch
from telecine_models.pipeline import TelecinePipeline
torch.set_num_threads(1)
pipeline = TelecinePipeline.from_pretrained(sys.argv[1])
pipeline.set_progress_bar_config(disable=True)
frames = pipeline({PROMPTS!r}, seed=3, **{SIZE!r})
sys.stdout.buffer.write(frames.tobytes())
"""
    command = [sys.executable, "-W", "error::UserWarning", "-W", "error::FutureWarning", "-c", code, str(folder)]
    child = subprocess.run(command, capture_output=True, cwd=tmp_path, check=False)
    errors = child.stderr.decode()
    assert child.returncode == 0, errors
    assert "warn" not in errors.lower()
    assert child.stdout == pipeline(PROMPTS, seed=3, **SIZE).tobytes()


def test_a_saved_pipeline_is_json_and_safetensors_only(folder: Path) -> None:
    assert {path.suffix for path in folder.rglob("*") if path.is_file()} == {".json", ".safetensors"}


def test_saving_twice_gives_the_same_bytes(pipeline: TelecinePipeline, folder: Path, tmp_path: Path) -> None:
    TelecinePipeline.from_pretrained(folder).save_pretrained(tmp_path / "again")
    for path in (p for p in folder.rglob("*") if p.is_file()):
        if path.suffix == ".safetensors":
            assert path.read_bytes() == (tmp_path / "again" / path.relative_to(folder)).read_bytes()


def test_the_transformer_loads_alone(pipeline: TelecinePipeline, folder: Path) -> None:
    alone = VideoDiT.from_pretrained(folder / "transformer")
    expected = pipeline.transformer.state_dict()
    assert alone.state_dict().keys() == expected.keys()
    assert all(torch.equal(value, expected[name]) for name, value in alone.state_dict().items())
    assert alone.size == pipeline.transformer.size
    # Aligned like weights that were never saved, without which the last bits of its outputs differ.
    assert {parameter.data_ptr() % 64 for parameter in alone.parameters()} == {0}


def test_weights_that_are_not_safetensors_are_refused(folder: Path) -> None:
    weights = folder / "transformer" / "diffusion_pytorch_model.safetensors"
    weights.rename(weights.with_name("diffusion_pytorch_model.bin"))
    with pytest.raises(OSError, match="safetensors"):
        TelecinePipeline.from_pretrained(folder)


def test_the_transformer_alone_takes_no_other_format_and_asks_no_network(folder: Path) -> None:
    weights = folder / "transformer" / "diffusion_pytorch_model.safetensors"
    weights.rename(weights.with_name("diffusion_pytorch_model.bin"))
    with pytest.raises(OSError, match="safetensors"):
        VideoDiT.from_pretrained(folder / "transformer")
    with pytest.raises(OSError, match="does not appear to have a file named config.json"):
        VideoDiT.from_pretrained("some-org/some-model")
