"""Pipelines are loaded in one place, with the LoRA that lies beside their weights."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from telecine.errors import InputError
from telecine_components.training import lora
from telecine_components.training.pipelines import load_pipeline

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
