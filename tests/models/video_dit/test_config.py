"""The dial for size, and that the model has the size that the configuration says."""

import dataclasses
import inspect
from typing import Any

import pytest

from telecine_models.video_dit.config import VideoDiTConfig
from telecine_models.video_dit.model import VideoDiT


@pytest.mark.parametrize(
    ("num_layers", "billions"), [(16, 0.0168), (24, 0.0566), (32, 0.1342), (40, 0.2621), (56, 0.7193), (64, 1.0737)]
)
def test_the_dial_gives_the_published_sizes(num_layers: int, billions: float) -> None:
    size = VideoDiTConfig.from_depth(num_layers)
    assert size.width == 16 * num_layers
    assert size.num_block_parameters == size.width**3
    assert size.num_block_parameters / 1e9 == pytest.approx(billions, abs=5e-5)


@pytest.mark.parametrize("num_layers", range(1, 65))
def test_every_depth_makes_heads_that_fill_the_width(num_layers: int) -> None:
    size = VideoDiTConfig.from_depth(num_layers)
    assert size.num_heads * size.head_dim == 16 * num_layers
    assert size.num_heads >= 2 or num_layers == 1


@pytest.mark.parametrize("num_layers", [2, 3, 8])
def test_the_blocks_of_the_model_hold_the_counted_parameters(num_layers: int) -> None:
    size = VideoDiTConfig.from_depth(num_layers)
    model = VideoDiT(**dataclasses.asdict(size))
    matrices = [p for name, p in model.blocks.named_parameters() if "modulation" not in name and p.ndim == 2]
    assert sum(p.numel() for p in matrices) == size.num_block_parameters
    if num_layers == 8:
        assert model.num_parameters() == pytest.approx(size.num_block_parameters, rel=0.1)


def test_model_and_configuration_declare_the_same_fields_and_defaults() -> None:
    arguments = inspect.signature(VideoDiT.__init__).parameters.values()
    declared = {a.name: a.default for a in arguments if a.name != "self"}
    assert declared == dataclasses.asdict(VideoDiTConfig())


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("in_channels", 0),
        ("num_layers", 0),
        ("num_heads", 0),
        ("head_dim", 24),
        ("text_dim", 0),
        ("patch_size", (1, 0, 4)),
    ],
)
def test_a_size_that_cannot_work_is_named_with_its_value(field: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"VideoDiTConfig: {field} must be") as error:
        VideoDiTConfig(**{field: value})
    assert str(value) in str(error.value)
