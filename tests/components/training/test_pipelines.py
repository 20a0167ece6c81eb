"""Pipelines are loaded in one place, with the LoRA that lies beside their weights."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from telecine.errors import InputError
from telecine_components.training import lora
from telecine_components.training.pipelines import load_pipeline
from telecine_models.pipeline import TelecinePipeline
from telecine_models.text import HashTextEncoder
from telecine_models.video_dit.model import VideoDiT

COMPONENTS = Path(__file__).parents[3] / "components"


def local(uri: str) -> Path:
    return Path(uri.removeprefix("file://"))


def weights(folder: Path, **how: Any) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = load_pipeline(folder, **how).transformer.state_dict()
    return found


@pytest.mark.parametrize("scale", [0.0, 0.5, 1.0, 2.0])
def test_the_product_of_a_lora_is_added_to_the_weights_as_often_as_is_said(
    trained: Any, with_lora: Any, scale: float
) -> None:
    folder = local(with_lora.model_uri)
    factors = load_file(folder / lora.FOLDER / lora.WEIGHTS)
    plain = weights(local(trained.outputs.model_uri), lora_scale=1.0)
    found = weights(folder, lora_scale=scale)
    assert found.keys() == plain.keys(), "it is a plain model, to be saved and trained as any other"
    layers = {name.removesuffix(".lora_A.weight") for name in factors if name.endswith(".lora_A.weight")}
    for name, weight in plain.items():
        layer = name.removesuffix(".weight")
        if scale and layer in layers:
            product = factors[f"{layer}.lora_B.weight"] @ factors[f"{layer}.lora_A.weight"]
            assert product.abs().max() > 1e-3
            torch.testing.assert_close(found[name], weight + scale * product, atol=1e-6, rtol=0)
        else:
            assert torch.equal(found[name], weight), name


def test_a_folder_without_a_pipeline_is_refused(trained: Any) -> None:
    with pytest.raises(InputError, match=r"no model_index\.json in it; pass a pipeline folder"):
        load_pipeline(local(trained.outputs.model_uri) / "transformer", lora_scale=1.0)


def test_no_component_loads_a_pipeline_in_another_way() -> None:
    found = [path for path in COMPONENTS.rglob("*.py") if "Pipeline.from_pretrained" in path.read_text()]
    assert [path.name for path in found] == ["pipelines.py"]


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def deepen(path: Path) -> None:
    path.write_text(path.read_text().replace('"num_layers": 1', '"num_layers": 2'))


@pytest.mark.parametrize(
    ("part", "spoil", "words"),
    [
        (
            "transformer/diffusion_pytorch_model.safetensors",
            Path.unlink,
            "do not load as one pipeline: .*no file named",
        ),
        ("transformer/diffusion_pytorch_model.safetensors", cut, "do not load as one pipeline: Unable to load weights"),
        ("transformer/config.json", cut, "do not load as one pipeline: .*valid JSON"),
        ("transformer/config.json", deepen, r"has no weights for blocks\.1\."),
        ("text_encoder/config.json", Path.unlink, "do not load as one pipeline: .*no file named config"),
    ],
)
def test_a_folder_of_which_a_part_is_missing_or_broken_is_refused(
    tmp_path: Path, part: str, spoil: Callable[[Path], object], words: str
) -> None:
    dit = VideoDiT(patch_size=(1, 4, 4), num_layers=1, num_heads=2, head_dim=16, text_dim=8)
    TelecinePipeline(transformer=dit, text_encoder=HashTextEncoder(text_dim=8)).save_pretrained(tmp_path)
    assert load_pipeline(tmp_path, lora_scale=1.0).transformer.size == dit.size
    spoil(tmp_path / part)
    with pytest.raises(InputError, match=f"{tmp_path}: its .*{words}.*; copy the whole folder"):
        load_pipeline(tmp_path, lora_scale=1.0)
