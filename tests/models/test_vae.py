"""Autoencoders: sizes, the rule of 1 + r n frames, causality, normalisation, and what a folder may hold."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import diffusers
import jaxtyping
import pytest
import torch
from torch import Tensor

from telecine_models.text import HashTextEncoder
from telecine_models.vae import CAUSAL_VAES, CausalVAE, Compression, IdentityVAE, as_video_vae, load_vae

NARROW = (8, 8, 8, 8)
TINY: dict[str, dict[str, Any]] = {
    "AutoencoderKLWan": {
        "base_dim": 4,
        "z_dim": 4,
        "dim_mult": [1, 1, 1],
        "num_res_blocks": 1,
        "temperal_downsample": [True, True],
        "latents_mean": [0.1, -0.2, 0.3, 0.0],
        "latents_std": [0.5, 1.0, 2.0, 4.0],
    },
    "AutoencoderKLLTXVideo": {
        "latent_channels": 4,
        "block_out_channels": NARROW,
        "decoder_block_out_channels": NARROW,
        "layers_per_block": [1] * 5,
        "decoder_layers_per_block": [1] * 5,
        "patch_size": 2,
        "scaling_factor": 0.5,
    },
    "AutoencoderKLHunyuanVideo15": {"latent_channels": 4, "block_out_channels": (8,) * 5, "layers_per_block": 1},
    "AutoencoderKLHunyuanVideo": {
        "latent_channels": 4,
        "block_out_channels": NARROW,
        "layers_per_block": 1,
        "norm_num_groups": 4,
    },
}
RATIOS = {
    "AutoencoderKLWan": (4, 4),
    "AutoencoderKLLTXVideo": (8, 16),
    "AutoencoderKLHunyuanVideo15": (4, 16),
    "AutoencoderKLHunyuanVideo": (4, 8),
}
STRICT = ["AutoencoderKLWan", "AutoencoderKLLTXVideo", "AutoencoderKLHunyuanVideo15"]
CLASSES = list(TINY)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def tiny(name: str, **settings: Any) -> Any:
    torch.manual_seed(0)
    return getattr(diffusers, name)(**(TINY[name] | settings))


def video_of(vae: CausalVAE, groups: int = 2, rows: int = 1, columns: int = 2) -> Tensor:
    return random(1, 3, *vae.compression.video_size(1 + groups, rows, columns))


def test_every_listed_class_is_tried_here() -> None:
    assert CLASSES == list(CAUSAL_VAES) == list(RATIOS)


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize("groups", [0, 1, 2])
def test_latents_and_videos_have_the_sizes_that_the_compression_tells(name: str, groups: int) -> None:
    vae = CausalVAE(tiny(name))
    ratio, side = RATIOS[name]
    assert vae.compression == Compression(frames=ratio, height=side, width=side)
    latents = vae.encode(random(2, 3, 1 + ratio * groups, side, 2 * side))
    assert latents.shape == (2, vae.latent_channels, 1 + groups, 1, 2)
    assert vae.decode(latents).shape == (2, 3, 1 + ratio * groups, side, 2 * side)
    assert latents.isfinite().all()


@pytest.mark.parametrize("name", STRICT)
def test_latent_frames_do_not_depend_on_later_video_frames(name: str) -> None:
    vae = CausalVAE(tiny(name))
    video = video_of(vae)
    latents, later = vae.encode(video), video.clone()
    later[:, :, 1:] += 1
    torch.testing.assert_close(vae.encode(later)[:, :, 0], latents[:, :, 0], rtol=1e-5, atol=1e-5)
    later = video.clone()
    later[:, :, 1 + vae.compression.frames :] += 1
    torch.testing.assert_close(vae.encode(later)[:, :, :2], latents[:, :, :2], rtol=1e-5, atol=1e-5)
    assert not torch.allclose(vae.encode(later)[:, :, 2], latents[:, :, 2], atol=1e-3)


@pytest.mark.parametrize("name", STRICT)
def test_an_image_is_the_first_frame_of_a_video(name: str) -> None:
    vae = CausalVAE(tiny(name))
    video = video_of(vae)
    image = vae.encode(video[:, :, :1])
    torch.testing.assert_close(image, vae.encode(video)[:, :, :1], rtol=1e-5, atol=1e-5)
    assert vae.decode(image).shape[2] == 1


def test_the_first_hunyuan_model_is_causal_up_to_its_norms() -> None:
    """Its convolutions do not look ahead: without norms that count all frames nothing of the future is left."""

    def leak(model: Any) -> float:
        vae = CausalVAE(model)
        video = video_of(vae)
        later = video.clone()
        later[:, :, 1:] += 1
        return float((vae.encode(later) - vae.encode(video))[:, :, 0].abs().max())

    model = tiny("AutoencoderKLHunyuanVideo")
    assert leak(model) > 1e-3
    for module in list(model.encoder.modules()):
        for child, layer in module.named_children():
            if isinstance(layer, torch.nn.GroupNorm):
                setattr(module, child, torch.nn.Identity())
    assert leak(model) < 1e-5


def test_a_wan_model_that_cuts_patches_takes_videos_all_the_same() -> None:
    """As Wan 2.2 does: its first layer sees 12 numbers for each 2 x 2 pixels."""
    model = tiny("AutoencoderKLWan", in_channels=12, out_channels=12, patch_size=2, is_residual=True)
    vae = CausalVAE(model)
    assert vae.compression == Compression(frames=4, height=8, width=8)
    latents = vae.encode(random(1, 3, 5, 8, 16))
    assert latents.shape == (1, 4, 2, 1, 2)
    assert vae.decode(latents).shape == (1, 3, 5, 8, 16)


def test_a_video_is_encoded_alike_in_any_batch() -> None:
    vae = CausalVAE(tiny("AutoencoderKLHunyuanVideo15"))
    videos = random(2, 3, 5, 16, 16)
    assert torch.equal(vae.encode(videos)[1:], vae.encode(videos[1:]))
    assert torch.equal(vae.decode(vae.encode(videos))[1:], vae.decode(vae.encode(videos[1:])))


def test_normalisation_is_by_mean_and_deviation_and_undone_before_decoding() -> None:
    model = tiny("AutoencoderKLWan")
    vae = CausalVAE(model)
    video = video_of(vae)
    raw = model.encode(video).latent_dist.mode()
    mean, std = torch.tensor([0.1, -0.2, 0.3, 0.0]), torch.tensor([0.5, 1.0, 2.0, 4.0])
    latents = vae.encode(video)
    torch.testing.assert_close(latents, (raw - mean.view(-1, 1, 1, 1)) / std.view(-1, 1, 1, 1))
    torch.testing.assert_close(vae.decode(latents), model.decode(raw).sample, rtol=1e-4, atol=1e-5)


def test_normalisation_is_by_a_factor_where_that_is_what_there_is() -> None:
    model = tiny("AutoencoderKLHunyuanVideo", scaling_factor=0.25)
    vae = CausalVAE(model)
    video = video_of(vae)
    raw = model.encode(video).latent_dist.mode()
    torch.testing.assert_close(vae.encode(video), raw * 0.25)
    torch.testing.assert_close(vae.decode(raw * 0.25), model.decode(raw).sample)


def test_normalisation_of_ltx_is_among_its_weights(tmp_path: Path) -> None:
    model = tiny("AutoencoderKLLTXVideo")
    model.latents_mean += 3
    model.latents_std *= 4
    model.save_pretrained(tmp_path)
    vae = load_vae(tmp_path)
    video = video_of(vae)
    raw = model.encode(video).latent_dist.mode()
    torch.testing.assert_close(vae.encode(video), (raw - 3) / 4 * 0.5)


def test_a_decoder_that_denoises_as_well_is_told_that_nothing_is_left_to_remove() -> None:
    model = tiny(
        "AutoencoderKLLTXVideo",
        timestep_conditioning=True,
        decoder_block_out_channels=(8, 16, 32),
        decoder_layers_per_block=(1, 1, 1, 1),
        decoder_spatio_temporal_scaling=(True, True, True),
        decoder_inject_noise=(False, False, False, False),
        upsample_factor=(2, 2, 2),
        upsample_residual=(True, True, True),
    )
    latents = random(2, 4, 2, 1, 1)
    video = CausalVAE(model).decode(latents)
    torch.testing.assert_close(video, model.decode(latents / 0.5, torch.zeros(2)).sample, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(video, model.decode(latents / 0.5, torch.ones(2)).sample, atol=1e-3)


def test_the_identity_gives_back_every_bit() -> None:
    vae = as_video_vae(IdentityVAE())
    video = random(2, 3, 5, 7, 6)
    assert torch.equal(vae.encode(video), video)
    assert torch.equal(vae.decode(vae.encode(video)), video)
    assert (vae.compression, vae.latent_channels) == (Compression(frames=1, height=1, width=1), 3)
    assert vae.compression.latent_size(5, 7, 6) == (5, 7, 6)


def test_a_wan_model_in_low_precision_takes_and_gives_floats() -> None:
    vae = CausalVAE(tiny("AutoencoderKLWan").bfloat16())
    video = video_of(vae)
    latents = vae.encode(video)
    assert (latents.dtype, vae.decode(latents).dtype) == (torch.float32, torch.float32)
    torch.testing.assert_close(latents, CausalVAE(tiny("AutoencoderKLWan")).encode(video), rtol=0.1, atol=0.1)


def test_latent_size_and_video_size_undo_each_other() -> None:
    wan = Compression(frames=4, height=8, width=8)
    assert wan.latent_size(81, 480, 832) == (21, 60, 104)
    assert wan.latent_size(1, 8, 8) == (1, 1, 1)
    assert wan.video_size(21, 60, 104) == (81, 480, 832)


@pytest.mark.parametrize("num_frames", [0, 2, 4, 8, 80])
def test_a_number_of_frames_that_breaks_the_rule_is_named(num_frames: int) -> None:
    rule = rf"num_frames must be 1 \+ 4 n with n >= 0, got {num_frames}"
    with pytest.raises(ValueError, match=rule):
        Compression(frames=4, height=8, width=8).latent_size(num_frames, 8, 8)
    with pytest.raises(ValueError, match=rule):
        CausalVAE(tiny("AutoencoderKLHunyuanVideo15")).encode(torch.zeros(1, 3, num_frames, 16, 16))


def test_a_side_that_is_no_multiple_is_named() -> None:
    with pytest.raises(ValueError, match="height_px must be a positive multiple of 8, got 12"):
        Compression(frames=4, height=8, width=8).latent_size(1, 12, 8)
    with pytest.raises(ValueError, match="width_px must be a positive multiple of 4, got 6"):
        CausalVAE(tiny("AutoencoderKLWan")).encode(torch.zeros(1, 3, 1, 4, 6))


def test_a_wan_model_that_cannot_encode_what_it_says_is_refused() -> None:
    with pytest.raises(ValueError, match=r"temperal_downsample must halve time twice, .* got \[False, True\]"):
        CausalVAE(tiny("AutoencoderKLWan", temperal_downsample=[False, True]))


@pytest.fixture
def unchecked() -> Iterator[None]:
    """As in production, where nobody checks annotations before the model sees its arguments."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.mark.parametrize("make", [lambda: IdentityVAE(in_channels=4), lambda: CausalVAE(tiny("AutoencoderKLWan"))])
def test_other_channels_are_named(unchecked: None, make: Callable[[], Any]) -> None:
    vae = make()
    with pytest.raises(ValueError, match=r"video must be shaped \[B, [34], F, H, W\], got \[1, 2, 1, 4, 4\]"):
        vae.encode(torch.zeros(1, 2, 1, 4, 4))
    with pytest.raises(ValueError, match=r"latents must be shaped \[B, 4, F, H, W\], got \[4, 1, 4, 4\]"):
        vae.decode(torch.zeros(4, 1, 4, 4))


@pytest.mark.parametrize("name", CLASSES)
def test_a_saved_autoencoder_comes_back_frozen_and_the_same(name: str, tmp_path: Path) -> None:
    model = tiny(name)
    model.save_pretrained(tmp_path)
    loaded = load_vae(tmp_path)
    assert isinstance(loaded, CausalVAE)
    assert not any(parameter.requires_grad for parameter in loaded.model.parameters())
    assert not loaded.model.training
    # Products of unaligned weights round differently, in larger models than these.
    assert all(parameter.data_ptr() % 64 == 0 for parameter in loaded.model.parameters())
    video = video_of(loaded)
    assert torch.equal(loaded.encode(video), as_video_vae(model).encode(video))


def test_the_identity_is_saved_and_loaded_as_any_other(tmp_path: Path) -> None:
    IdentityVAE(in_channels=5).save_pretrained(tmp_path)
    assert isinstance(load_vae(tmp_path), IdentityVAE)
    assert load_vae(str(tmp_path)).latent_channels == 5


def test_a_folder_that_holds_something_else_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="folder must hold a config.json, got .*nowhere"):
        load_vae(tmp_path / "nowhere")
    (tmp_path / "config.json").write_text(json.dumps({"_class_name": "AutoencoderKL"}))
    with pytest.raises(ValueError, match="must be one of IdentityVAE, AutoencoderKLWan, .*, got 'AutoencoderKL'"):
        load_vae(tmp_path)
    with pytest.raises(ValueError, match="model must be one of IdentityVAE, .*, got HashTextEncoder"):
        as_video_vae(HashTextEncoder())


def test_pickled_weights_are_refused(tmp_path: Path) -> None:
    tiny("AutoencoderKLWan").save_pretrained(tmp_path, safe_serialization=False)
    assert list(tmp_path.glob("*.bin"))
    with pytest.raises(ValueError, match="must hold weights as safetensors, other formats are not read"):
        load_vae(tmp_path)
