"""Analytic FLOPs against those that torch counts, operator by operator, and against published figures."""

import dataclasses
import math
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from diffusers import WanTransformer3DModel
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from telecine_models import flops
from telecine_models.flops import Flops
from telecine_models.video_dit.conditions import ConditionEmbedder, Conditions
from telecine_models.video_dit.config import KINDS, VideoDiTConfig
from telecine_models.video_dit.model import VideoDiT

BATCH, SHAPE, PATCH, TEXT = 2, (4, 16, 16), (1, 4, 4), 8
VIDEO_TOKENS = 4 * 4 * 4
SIZES: dict[str, Any] = {"num_layers": 4, "num_heads": 4, "head_dim": 16, "text_dim": 24, "patch_size": PATCH}


def _accumulated(self_shape: Any, a_shape: Any, b_shape: Any, **_: Any) -> int:
    """FLOPs of ``baddbmm_``, by which the experts add up their weights' gradients and which torch leaves out."""
    return 2 * math.prod(a_shape) * int(b_shape[2])


def counted(run: Callable[[], torch.Tensor]) -> int:
    """FLOPs of forward and backward; attention as plain products, since the counter knows no fused one of the CPU."""
    counter = FlopCounterMode(display=False, custom_mapping={torch.ops.aten.baddbmm_: _accumulated})
    with counter, sdpa_kernel(SDPBackend.MATH):
        run().sum().backward()
    return counter.get_total_flops()


def counted_dit(config: VideoDiTConfig, **inputs: Any) -> int:
    """FLOPs of one training sample, the loss of the mixtures included."""
    torch.manual_seed(0)
    model = VideoDiT(**dataclasses.asdict(config)).train()
    text = torch.randn(BATCH, TEXT, config.text_dim)

    def run() -> torch.Tensor:
        out, routings = model(torch.randn(BATCH, 3, *SHAPE), torch.rand(BATCH), text, return_routings=True, **inputs)
        return out.mean() + sum((routing.loss for routing in routings), torch.zeros(()))

    return counted(run) // BATCH


def once_a_sample(config: VideoDiTConfig) -> float:
    """What the formula leaves out: flow time's embedding, whose input takes no gradient, modulation, skip."""
    return 6 * (7 * config.width**2 + config.width) + 4 * 256 * config.width


def test_a_dense_model_costs_what_torch_counts() -> None:
    config = VideoDiTConfig(**SIZES)
    ours = flops.video_dit(config, num_video_tokens=VIDEO_TOKENS, num_text_tokens=TEXT).training_flops
    seen = counted_dit(config)
    assert ours + once_a_sample(config) == pytest.approx(seen, rel=1e-6)
    assert ours == pytest.approx(seen, rel=0.01)


@pytest.mark.parametrize("mixture", ["diffmoe", "token_choice", "expert_choice"])
def test_a_mixture_costs_what_it_activates_with_its_router_and_predictor(mixture: str) -> None:
    config = VideoDiTConfig(**SIZES, num_experts=4, mixture=mixture)
    ours = flops.video_dit(config, num_video_tokens=VIDEO_TOKENS, num_text_tokens=TEXT)
    seen = counted_dit(config)
    if mixture == "diffmoe":
        assert ours.training_flops + once_a_sample(config) == pytest.approx(seen, rel=1e-6)
    else:
        # The grouped product of the baselines is an operator that torch does not count.
        experts = 3 * 2 * 12 * config.width**2 * (VIDEO_TOKENS + TEXT) * 2
        assert ours.training_flops + once_a_sample(config) == pytest.approx(seen + experts, rel=1e-6)


def test_a_larger_capacity_costs_more_experts_and_nothing_else() -> None:
    config = VideoDiTConfig(**SIZES, num_experts=4)
    tokens = {"num_video_tokens": VIDEO_TOKENS, "num_text_tokens": TEXT}
    one, two = (flops.video_dit(config, **tokens, capacity=capacity) for capacity in (1.0, 2.0))
    assert two.linear_flops - one.linear_flops == 2 * 2 * 12 * config.width**2 * (VIDEO_TOKENS + TEXT)
    assert (two.attention_flops, two.leaf_flops) == (one.attention_flops, one.leaf_flops)


@pytest.mark.parametrize(
    "abilities",
    [
        {},
        {"decoupled_context": True},
        {"context_keep_ratio": 0.5},
        {"context_blocks": (0, 2), "decoupled_context": True, "context_keep_ratio": 0.25},
    ],
)
def test_condition_tokens_cost_what_takes_part(abilities: dict[str, Any]) -> None:
    config = VideoDiTConfig(**SIZES, conditions=("depth",), **abilities)
    depth = Conditions(depth=torch.randn(BATCH, 3, *SHAPE))
    tokens = {"num_video_tokens": VIDEO_TOKENS, "num_text_tokens": TEXT}
    ours = flops.video_dit(config, **tokens, num_condition_tokens=VIDEO_TOKENS).training_flops
    seen = counted_dit(config, conditions=depth)
    assert ours == pytest.approx(seen, rel=0.03), "without the conditions' projection, scores and modulation"
    assert ours < seen


def test_wan_costs_what_torch_counts() -> None:
    torch.manual_seed(0)
    config: dict[str, Any] = {
        "num_attention_heads": 4,
        "attention_head_dim": 16,
        "num_layers": 3,
        "patch_size": (1, 2, 2),
    }
    config |= {"in_channels": 4, "out_channels": 4, "text_dim": 24, "ffn_dim": 96}
    model = WanTransformer3DModel(**config, freq_dim=32)
    video, text = torch.randn(BATCH, 4, 3, 16, 16), torch.randn(BATCH, 10, 24)
    seen = counted(lambda: model(video, torch.rand(BATCH), text, return_dict=False)[0]) / BATCH
    ours = flops.wan(config, num_video_tokens=flops.num_tokens((3, 16, 16), (1, 2, 2)), num_text_tokens=10)
    width = 64
    time = 6 * 7 * width**2 + 4 * 32 * width
    assert ours.training_flops + time == pytest.approx(seen, rel=1e-6)
    assert ours.training_flops == pytest.approx(seen, rel=0.02)


def test_beside_a_frozen_wan_no_gradients_of_weights_are_counted() -> None:
    """What is trained stands before the first block, so that gradients go through all of them."""
    torch.manual_seed(0)
    config: dict[str, Any] = {"num_attention_heads": 4, "attention_head_dim": 16, "num_layers": 3}
    config |= {"patch_size": (1, 2, 2), "in_channels": 4, "out_channels": 4, "text_dim": 24, "ffn_dim": 96}
    model: Any = WanTransformer3DModel(**config, freq_dim=32)
    model.requires_grad_(False)
    model.patch_embedding.bias.requires_grad_(True)
    video, text = torch.randn(BATCH, 4, 3, 16, 16), torch.randn(BATCH, 10, 24)
    seen = counted(lambda: model(video, torch.rand(BATCH), text, return_dict=False)[0]) / BATCH
    ours = flops.wan(config, num_video_tokens=flops.num_tokens((3, 16, 16), (1, 2, 2)), num_text_tokens=10)
    assert ours.frozen_training_flops == pytest.approx(seen, rel=0.02)
    assert ours.training_flops > 1.2 * seen


def test_the_published_step_of_wan_14b() -> None:
    """37,440 tokens: 6 * 12.0e9 + 12 * 40 * 5120 * 37440 = 164 GFLOP a token, of which attention is 56 %.

    The convention counts self-attention alone: 10 d^2 + 2 d ffn of every block, cross-attention's queries included.
    """
    config = {
        "num_attention_heads": 40,
        "attention_head_dim": 128,
        "ffn_dim": 13824,
        "num_layers": 40,
        "in_channels": 16,
        "out_channels": 16,
        "patch_size": (1, 2, 2),
        "text_dim": 4096,
    }
    tokens = 37440
    sample = flops.wan(config, num_video_tokens=tokens, num_text_tokens=0)
    assert sample.training_flops / tokens == pytest.approx(164e9, rel=0.01)
    assert 3 * sample.attention_flops / sample.training_flops == pytest.approx(0.56, abs=0.01)
    with_text = flops.wan(config, num_video_tokens=tokens)
    assert with_text.training_flops / sample.training_flops == pytest.approx(1.012, abs=0.004)
    with pytest.raises(ValueError, match="added_kv_proj_dim must be None, got 5120"):
        flops.wan(config | {"added_kv_proj_dim": 5120}, num_video_tokens=tokens)


def test_a_long_sequence_costs_six_times_its_weights_and_twelve_l_d_s() -> None:
    config = VideoDiTConfig.from_depth(32, patch_size=(1, 2, 2), in_channels=16)
    tokens = 32768
    sample = flops.video_dit(config, num_video_tokens=tokens, num_text_tokens=0)
    each = 6 * config.num_block_parameters + 12 * config.num_layers * config.width * tokens
    assert sample.training_flops / tokens == pytest.approx(each, rel=0.001)
    assert sample.training_flops < 3 * sample.forward_flops


def test_samples_add_up() -> None:
    one = Flops(1.0, 2.0, 3.0)
    assert one + one * 2 == Flops(3.0, 6.0, 9.0)
    assert (one.forward_flops, one.training_flops) == (6.0, 15.0)


def test_tokens_of_a_shape_are_whole_patches() -> None:
    assert flops.num_tokens(SHAPE, PATCH) == VIDEO_TOKENS
    with pytest.raises(
        ValueError, match=r"shape must be positive multiples of patch_size \(1, 4, 4\), got \(4, 18, 16\)"
    ):
        flops.num_tokens((4, 18, 16), PATCH)


@pytest.mark.parametrize(
    ("name", "peak"),
    [
        ("NVIDIA H200", 989.4e12),
        ("NVIDIA H100 80GB HBM3", 989.4e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("A100-PCIE-40GB", 312e12),
        ("NVIDIA B200", 2250e12),
        ("NVIDIA GH200 480GB", 989.4e12),
        ("NVIDIA A100-SXM4-40GB MIG 1g.5gb", None),
        ("NVIDIA H100 80GB HBM3 MIG 3g.40gb", None),
        ("NVIDIA GeForce RTX 4090", None),
        ("NVIDIA L400", None),
        ("", None),
    ],
)
def test_a_peak_is_known_or_there_is_none(name: str, peak: float | None) -> None:
    assert flops.peak_flops(name) == peak


def test_utilisation_is_a_share_of_the_peak_where_one_is_known() -> None:
    assert flops.mfu(325.77e12, flops.peak_flops("NVIDIA H100 80GB HBM3")) == pytest.approx(0.329, abs=0.001)
    assert flops.mfu(1e12, None) is None
    with pytest.raises(ValueError, match="peak above 0, got 1.0 and 0.0"):
        flops.mfu(1.0, 0.0)


def test_a_sweep_can_count_without_torch() -> None:
    code = "import sys, telecine_models.flops; print({'torch', 'diffusers', 'numpy'} & set(sys.modules))"
    child = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    assert child.stdout.strip() == "set()"


def test_conditions_have_the_tokens_that_the_model_makes_of_them() -> None:
    config = VideoDiTConfig(patch_size=(2, 4, 4), conditions=KINDS)
    video = torch.zeros(1, 3, 4, 8, 12)
    picture, mask, poses = video[:, :, 0], video[:, 0], torch.zeros(1, 4, 12)
    values = {"source": video, "depth": video, "sketch": video, "camera": poses, "elements": picture[:, None]}
    embedder = ConditionEmbedder(config)
    for kind in KINDS:
        beside: Any = {kind: values.get(kind, picture)} | ({"source_mask": mask} if kind == "source" else {})
        tokens, _, _ = embedder(Conditions(**beside), (4, 8, 12))
        assert tokens.shape[1] == flops.num_condition_tokens((kind,), (4, 8, 12), config.patch_size), kind
    assert flops.num_condition_tokens(("depth", "camera"), (4, 8, 12), config.patch_size) == 12 + 2
