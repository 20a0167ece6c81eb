"""What a model costs, by the captions and by what of it is trained."""

import pytest
import torch

from telecine_components.pretrain.train.model import Architecture, Subject
from telecine_components.pretrain.train.spec import Inputs
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
