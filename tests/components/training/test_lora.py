"""A LoRA beside a model: it begins as nothing, is kept apart, merges exactly, and fits the model it was made for."""

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel
from torch import Tensor, nn

from telecine.errors import InputError
from telecine_components.training import lora
from telecine_models.video_dit.model import VideoDiT


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def dit(**sizes: Any) -> VideoDiT:
    """The same model each time, every weight of it awake."""
    model = VideoDiT(**{"num_layers": 2, "num_heads": 2, "head_dim": 16, "text_dim": 8} | sizes).eval()
    for number, parameter in enumerate(model.parameters()):
        parameter.data = 0.1 * random(*parameter.shape, seed=number)
    return model


def wan() -> WanTransformer3DModel:
    torch.manual_seed(0)
    sizes = {"num_attention_heads": 2, "attention_head_dim": 16, "num_layers": 1, "ffn_dim": 32, "freq_dim": 32}
    return WanTransformer3DModel(in_channels=4, out_channels=4, text_dim=16, **sizes).eval()


def seen(model: nn.Module) -> Tensor:
    """What a video DiT says of fixed inputs."""
    with torch.no_grad():
        said: Tensor = model(random(2, 3, 2, 8, 8), torch.tensor([0.2, 0.7]), random(2, 3, 8, seed=1))
    return said


def taught(model: nn.Module) -> nn.Module:
    """A model whose LoRA is no longer nothing."""
    for number, factor in enumerate(lora.lora_of(model).values()):
        factor.data = 0.2 * random(*factor.shape, seed=100 + number)
    return model


def test_a_lora_begins_as_nothing_and_is_all_that_is_trained() -> None:
    plain, model = dit(), dit()
    lora.add_lora(model, rank=2, seed=0)
    assert torch.equal(seen(model), seen(plain))
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert trained == {name for name, _ in model.named_parameters() if "lora_" in name}
    layers = ("attention.to_qkv", "attention.to_out", "feed_forward.to_gate_and_value", "feed_forward.to_out")
    beside = {name.rpartition(".lora_")[0] for name in lora.lora_of(model)}
    assert beside == {f"blocks.{block}.{layer}" for block in (0, 1) for layer in layers}


def test_its_first_factors_are_a_function_of_the_seed_and_leave_the_process_s_random_state_alone() -> None:
    models = [dit(), dit(), dit()]
    before = torch.random.get_rng_state()
    for model, seed in zip(models, (7, 7, 8), strict=True):
        lora.add_lora(model, rank=2, seed=seed)
    first, same, other = (torch.cat([each.flatten() for each in lora.lora_of(model).values()]) for model in models)
    assert torch.equal(first, same) and not torch.equal(first, other)
    assert torch.equal(before, torch.random.get_rng_state())


def test_merged_it_says_what_it_says_beside_the_weights_and_disabled_what_the_weights_say() -> None:
    model = dit()
    lora.add_lora(model, rank=2, seed=0)
    with_it = seen(taught(model))
    assert float((with_it - seen(dit())).abs().max()) > 1e-2
    lora.enable_lora(model, False)
    assert torch.equal(seen(model), seen(dit()))
    lora.enable_lora(model, True)
    lora.merge_lora(model)
    torch.testing.assert_close(seen(model), with_it, atol=1e-5, rtol=0)
    assert list(model.state_dict()) == list(dit().state_dict())
    assert all(parameter.requires_grad for parameter in model.parameters()), "it can be trained as a whole"


def test_it_is_loaded_from_a_folder_of_its_own_to_the_bit(tmp_path: Path) -> None:
    model, again = dit(), dit()
    lora.add_lora(model, rank=3, seed=0)
    lora.save_lora(taught(model), tmp_path / "lora")
    lora.load_lora(again, tmp_path / "lora")
    assert torch.equal(seen(again), seen(model))
    assert lora.read_config(tmp_path / "lora").rank == 3
    assert sorted(path.name for path in (tmp_path / "lora").iterdir()) == ["config.json", "lora.safetensors"]


def test_diffusers_loads_it_beside_its_own_wan(tmp_path: Path) -> None:
    model, again = wan(), wan()
    lora.add_lora(model, rank=2, seed=0)
    lora.save_lora(taught(model), tmp_path / "lora")
    again.load_lora_adapter(str(tmp_path / "lora"), weight_name=lora.WEIGHTS, prefix=None)  # type: ignore[no-untyped-call]
    given = (random(1, 4, 3, 8, 8), torch.tensor([500.0]), random(1, 5, 16, seed=1))
    with torch.no_grad():
        ours, theirs, plain = (each(*given, return_dict=False)[0] for each in (model, again, wan()))
    assert torch.equal(ours, theirs) and not torch.equal(ours, plain)


@pytest.mark.parametrize(
    ("sizes", "sentence"),
    [
        ({"num_layers": 1}, "a LoRA of another architecture: VideoDiT has no layer blocks.1."),
        ({"head_dim": 32}, "a LoRA of another architecture: blocks.0.attention.to_out.lora_A.weight differs"),
    ],
)
def test_a_lora_of_another_architecture_is_refused(tmp_path: Path, sizes: dict[str, int], sentence: str) -> None:
    model = dit()
    lora.add_lora(model, rank=2, seed=0)
    lora.save_lora(model, tmp_path / "lora")
    with pytest.raises(InputError, match=sentence):
        lora.load_lora(dit(**sizes), tmp_path / "lora")


def test_a_lora_of_which_a_file_is_broken_is_refused(tmp_path: Path) -> None:
    model = dit()
    lora.add_lora(model, rank=2, seed=0)
    lora.save_lora(model, tmp_path / "lora")
    (tmp_path / "lora/lora.safetensors").write_bytes(b"half")
    with pytest.raises(InputError, match=r"lora\.safetensors: it must be a safetensors file: .*; copy it again"):
        lora.load_lora(dit(), tmp_path / "lora")
    for text in ("{}", "{", '{"rank": null, "layers": []}'):
        (tmp_path / "lora/config.json").write_text(text)
        with pytest.raises(InputError, match=r"config\.json: it must say rank and layers"):
            lora.read_config(tmp_path / "lora")


def test_what_has_no_place_for_a_lora_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="Linear has no linear layers of attention or feed-forwards"):
        lora.add_lora(nn.Linear(2, 2), rank=1, seed=0)
    with pytest.raises(InputError, match="a model with experts is trained as a whole"):
        lora.add_lora(dit(num_experts=2), rank=1, seed=0)
    with pytest.raises(InputError, match=r"no LoRA in it; expected lora\.safetensors and config\.json"):
        lora.load_lora(dit(), tmp_path)
