"""Open models in diffusers' format run through the same protocol as our own."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers.models.transformers.transformer_wan import WanTransformer3DModel
from torch import Tensor, nn

from telecine_models.denoiser import WanDenoiser, as_denoiser, load_wan
from telecine_models.flow import flow_matching_loss, interpolate
from telecine_models.sampling import sample_ode
from telecine_models.video_dit.model import VideoDiT


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


VIDEO, TEXT = random(2, 4, 3, 8, 8), random(2, 5, 16, seed=1)
MASK = torch.tensor([[True] * 5, [True, True, False, False, False]])


@pytest.fixture
def wan() -> WanTransformer3DModel:
    """Wan 2.1's transformer, one head of sixteen channels wide and one block deep."""
    torch.manual_seed(0)
    sizes = {"num_attention_heads": 2, "attention_head_dim": 16, "num_layers": 1, "ffn_dim": 32, "freq_dim": 32}
    return WanTransformer3DModel(in_channels=4, out_channels=4, text_dim=16, **sizes).eval()


def test_wan_counts_flow_time_in_thousandths_and_has_zeros_where_text_is_not_real(wan: WanTransformer3DModel) -> None:
    t = torch.tensor([0.25, 0.75])
    seen = as_denoiser(wan)(VIDEO, t, TEXT, MASK)
    zeroed = torch.where(MASK[..., None], TEXT, torch.zeros_like(TEXT))
    assert torch.equal(seen, wan(VIDEO, t * 1000, zeroed, return_dict=False)[0])
    other = torch.where(MASK[..., None], TEXT, random(2, 5, 16, seed=2))
    assert torch.equal(as_denoiser(wan)(VIDEO, t, other, MASK), seen)


def test_wan_is_sampled_and_learns_like_our_own_model(wan: WanTransformer3DModel) -> None:
    denoiser = as_denoiser(wan.train())
    t = torch.tensor([0.5, 0.9])
    optimizer = torch.optim.AdamW(wan.parameters(), lr=3e-3)
    x0, noise = random(2, 4, 3, 8, 8, seed=3), random(2, 4, 3, 8, 8, seed=4)
    losses = []
    for _ in range(40):
        loss = flow_matching_loss(denoiser(interpolate(x0, noise, t), t, TEXT, MASK), x0, noise).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.7 * losses[0]
    with torch.no_grad():
        video = sample_ode(lambda x, time: denoiser(x, time, TEXT, MASK), VIDEO, num_steps=2)
    assert video.shape == VIDEO.shape
    assert bool(video.isfinite().all())


def test_wan_is_loaded_from_a_folder_of_safetensors(wan: WanTransformer3DModel, tmp_path: Path) -> None:
    wan.save_pretrained(tmp_path / "wan")
    t = torch.tensor([0.25, 0.75])
    torch.testing.assert_close(load_wan(tmp_path / "wan")(VIDEO, t, TEXT), WanDenoiser(wan)(VIDEO, t, TEXT))


def test_our_own_model_needs_no_coat_and_a_stranger_is_refused(awake_model: Callable[..., VideoDiT]) -> None:
    model = awake_model()
    assert as_denoiser(model) is model
    with pytest.raises(ValueError, match="must be a VideoDiT or a WanTransformer3DModel, got Linear"):
        as_denoiser(nn.Linear(2, 2))
