"""What a model costs, by the captions and by what of it is trained, and what its experts need."""

import dataclasses
from pathlib import Path

import pytest
import torch

from telecine.errors import InputError
from telecine_components.pretrain.train.model import Architecture, Folders, Subject, architecture_of, check_experts
from telecine_components.pretrain.train.spec import Inputs
from telecine_components.training.loader import Sample
from telecine_components.training.text import CachedText
from telecine_models import flops
from telecine_models.text import HashTextEncoder
from telecine_models.video_dit.config import VideoDiTConfig

CAPTIONS = ["a red square", "a large red square moves right"] * 100
CONFIG = VideoDiTConfig.from_depth(4, patch_size=(2, 8, 8))


@pytest.mark.parametrize(("lora_rank", "kind"), [(0, "training_flops"), (8, "frozen_training_flops")])
def test_a_sample_costs_its_text_too_and_beside_a_lora_no_gradients_of_weights(lora_rank: int, kind: str) -> None:
    encode = CachedText(HashTextEncoder(CONFIG.text_dim))
    subject = Subject(Architecture(CONFIG), torch.nn.Identity(), None, encode)
    cost = subject.cost(Inputs(dataset_uri="data", lora_rank=lora_rank), CAPTIONS)
    num_text_tokens = round(sum(int(encode([caption])[1].sum()) for caption in CAPTIONS[:2]) / 2)
    assert num_text_tokens > 2
    whole = flops.video_dit(CONFIG, num_video_tokens=64, num_text_tokens=num_text_tokens)
    assert cost.flops((2, 64, 64)) == pytest.approx(getattr(whole, kind))


SAMPLE = Sample(
    sample_id="s",
    clip_id="c",
    caption="",
    split="train",
    shard="a.tar",
    shard_digest="",
    offset=0,
    length=0,
    num_frames=2,
    height_px=16,
    width_px=32,
    fps=8.0,
)
PICTURE = dataclasses.replace(SAMPLE, height_px=16, width_px=16)


@pytest.mark.parametrize(
    ("samples", "given", "num_ranks", "fewest"),
    [
        ([SAMPLE], {}, 1, 6 * 8),
        ([SAMPLE], {}, 2, 3 * 8),
        ([SAMPLE], {"max_tokens": 16}, 1, 2 * 8),
        ([SAMPLE], {"max_tokens": 32}, 1, 2 * 8),
        ([SAMPLE], {"max_tokens": 40}, 2, 3 * 8),
        ([SAMPLE, PICTURE], {}, 1, 4),
    ],
)
def test_experts_need_a_token_each_in_the_smallest_pass(
    samples: list[Sample], given: dict[str, int], num_ranks: int, fewest: int
) -> None:
    for num_experts in (fewest, fewest + 1):
        config = dataclasses.replace(CONFIG, num_experts=num_experts)
        inputs = Inputs(dataset_uri="data", batch_size=6, **given)
        if num_experts == fewest:
            check_experts(inputs, Architecture(config), samples, num_ranks)
        else:
            with pytest.raises(InputError, match=f"num_experts must be at most {fewest}, .* got {num_experts}"):
                check_experts(inputs, Architecture(config), samples, num_ranks)


def test_a_configuration_that_is_cut_off_is_refused(tmp_path: Path) -> None:
    (tmp_path / "transformer").mkdir()
    (tmp_path / "transformer/config.json").write_text("{")
    with pytest.raises(InputError, match=r"transformer/config\.json of model_uri must be JSON: .*; copy it again"):
        architecture_of(Inputs(dataset_uri="data"), Folders("data", str(tmp_path)))
