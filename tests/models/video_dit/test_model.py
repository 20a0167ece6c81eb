"""The video DiT: silent at the start, exact about masks and shapes, and able to learn."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from telecine_models.video_dit.block import Block
from telecine_models.video_dit.model import VideoDiT
from telecine_models.video_dit.rope import grid_angles, turn_of

Build = Callable[..., VideoDiT]


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


VIDEO, TIME, TEXT = random(2, 3, 2, 8, 8), torch.tensor([0.2, 0.9]), random(2, 5, 8, seed=1)
MASK = torch.tensor([[True, True, False, False, False], [True, True, True, True, False]])


def test_a_fresh_model_predicts_zero_velocity() -> None:
    model = VideoDiT(num_layers=2, head_dim=16, text_dim=8)
    assert torch.equal(model(VIDEO, TIME, TEXT, MASK), torch.zeros_like(VIDEO))


def test_noise_passes_a_model_that_is_narrower_than_a_patch() -> None:
    """Of white noise only the noise itself can be predicted, v = x; a patch has 96 numbers, the model a width of 32."""
    torch.manual_seed(0)
    model = VideoDiT(patch_size=(2, 4, 4), num_layers=1, num_heads=2, head_dim=16, text_dim=8)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for seed in range(30):
        x = random(2, 3, 2, 8, 8, seed=seed)
        loss = (model(x, torch.ones(2), TEXT) - x).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < 0.2


def test_a_fresh_block_changes_nothing() -> None:
    x, fresh_time = random(2, 6, 32), torch.zeros(2, 6, 1, 32)
    block = Block(num_heads=2, head_dim=16)
    after, _, _ = block(x, fresh_time, turn_of(grid_angles((1, 2, 3), 16, x.device)), None)
    assert torch.equal(after, x)


def test_masked_text_changes_nothing_and_real_text_does(awake_model: Build) -> None:
    model, seen = awake_model(), awake_model()(VIDEO, TIME, TEXT, MASK)
    other = random(2, 5, 8, seed=2)
    assert torch.equal(model(VIDEO, TIME, torch.where(MASK[..., None], TEXT, other), MASK), seen)
    assert not torch.allclose(model(VIDEO, TIME, torch.where(MASK[..., None], other, TEXT), MASK), seen)


def test_more_padding_changes_nothing(awake_model: Build) -> None:
    model, extra = awake_model(), torch.nn.functional.pad
    padded = model(VIDEO, TIME, extra(TEXT, (0, 0, 0, 3)), extra(MASK, (0, 3)))
    torch.testing.assert_close(padded, model(VIDEO, TIME, TEXT, MASK), rtol=1e-5, atol=1e-5)


def test_no_mask_means_that_all_text_is_real(awake_model: Build) -> None:
    model = awake_model()
    torch.testing.assert_close(
        model(VIDEO, TIME, TEXT), model(VIDEO, TIME, TEXT, torch.ones(2, 5, dtype=torch.bool)), rtol=1e-5, atol=1e-5
    )


def test_a_video_without_any_text_is_denoised_all_the_same(awake_model: Build) -> None:
    model, nothing = awake_model(), torch.zeros(2, 5, dtype=torch.bool)
    silent = model(VIDEO, TIME, TEXT, nothing)
    assert silent.isfinite().all()
    torch.testing.assert_close(silent, model(VIDEO, TIME, TEXT[:, :0]), rtol=1e-5, atol=1e-5)


def test_the_order_of_text_tokens_is_the_encoders_affair(awake_model: Build) -> None:
    model, order = awake_model(), torch.tensor([3, 0, 4, 2, 1])
    torch.testing.assert_close(
        model(VIDEO, TIME, TEXT[:, order], MASK[:, order]), model(VIDEO, TIME, TEXT, MASK), rtol=1e-5, atol=1e-5
    )


def test_a_sample_does_not_depend_on_its_batch(awake_model: Build) -> None:
    model = awake_model()
    alone = torch.cat([model(VIDEO[i : i + 1], TIME[i : i + 1], TEXT[i : i + 1], MASK[i : i + 1]) for i in (0, 1)])
    torch.testing.assert_close(model(VIDEO, TIME, TEXT, MASK), alone, rtol=1e-5, atol=1e-5)


def test_flow_time_and_place_matter(awake_model: Build) -> None:
    model = awake_model()
    seen = model(VIDEO, TIME, TEXT)
    assert not torch.allclose(model(VIDEO, TIME + 0.05, TEXT), seen, atol=1e-2)
    # Were positions unknown, moving all patches around would only move the output around.
    swapped = model(VIDEO.roll(4, dims=-1).roll(1, dims=2), TIME, TEXT).roll(-4, dims=-1).roll(-1, dims=2)
    assert not torch.allclose(swapped, seen, atol=1e-2)


@pytest.mark.parametrize("patch_frames", [1, 2])
def test_a_flow_time_for_each_frame_is_the_one_for_all_where_they_are_equal(
    awake_model: Build, patch_frames: int
) -> None:
    model, video = awake_model(patch_size=(patch_frames, 4, 4)), random(2, 3, 4, 8, 8)
    each = TIME[:, None].expand(2, 4).clone()
    seen = model(video, TIME, TEXT)
    torch.testing.assert_close(model(video, each, TEXT), seen, rtol=1e-5, atol=1e-5)
    each[:, :2] = 0
    assert not torch.allclose(model(video, each, TEXT), seen, atol=1e-2)
    if patch_frames == 2:
        each[:, 0] = 0.5
        with pytest.raises(ValueError, match="timestep must be the same in all 2 frames of a patch"):
            model(video, each, TEXT)


def test_every_parameter_learns(awake_model: Build) -> None:
    model = awake_model()
    model(VIDEO, TIME, TEXT, MASK).square().mean().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in model.parameters())


def test_gradients_are_the_same_to_the_bit_each_time(awake_model: Build) -> None:
    def gradient() -> Tensor:
        model = awake_model()
        model(VIDEO, TIME, TEXT, MASK).square().mean().backward()
        return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])

    assert torch.equal(gradient(), gradient())


@pytest.mark.parametrize("shape", [(1, 8, 8), (4, 8, 16), (3, 4, 12)])
def test_any_multiple_of_the_patch_is_a_video_and_one_frame_is_an_image(
    awake_model: Build, shape: tuple[int, int, int]
) -> None:
    assert awake_model()(random(2, 3, *shape), TIME, TEXT).shape == (2, 3, *shape)


def test_the_model_runs_in_low_precision(awake_model: Build) -> None:
    model = awake_model().bfloat16()
    velocity = model(VIDEO.bfloat16(), TIME, TEXT.bfloat16(), MASK)
    assert velocity.dtype == torch.bfloat16
    assert velocity.isfinite().all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden_states": VIDEO[:, :2]}, r"hidden_states must be shaped \[B, 3, F, H, W\], got \[2, 2, 2, 8, 8\]"),
        ({"hidden_states": VIDEO[..., :6]}, r"W of hidden_states must be a positive multiple of 4 .*, got 6"),
        ({"hidden_states": VIDEO[0]}, r"hidden_states must be shaped"),
        ({"timestep": TIME[:1]}, r"timestep must be shaped \[2\] or \[2, F\], .* got \[1\]"),
        (
            {"encoder_hidden_states": TEXT[..., :4]},
            r"encoder_hidden_states must be shaped \[2, L, 8\], got \[2, 5, 4\]",
        ),
        ({"encoder_hidden_states": TEXT[:1]}, r"encoder_hidden_states must be shaped \[2, L, 8\], got \[1, 5, 8\]"),
        ({"encoder_attention_mask": MASK[:, :3]}, r"encoder_attention_mask must be shaped \[2, 5\].*, got \[2, 3\]"),
    ],
)
def test_a_wrong_shape_is_named(unchecked: None, awake_model: Build, change: dict[str, Tensor], message: str) -> None:
    right = {"hidden_states": VIDEO, "timestep": TIME, "encoder_hidden_states": TEXT, "encoder_attention_mask": MASK}
    with pytest.raises(ValueError, match=message):
        awake_model()(**(right | change))
