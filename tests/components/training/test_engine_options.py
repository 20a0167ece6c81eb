"""What changes how a step is computed, and must not change what it computes: recomputation, packing, precision."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from telecine.errors import InputError
from telecine_components.training.config import TrainingConfig
from telecine_components.training.determinism import deterministic
from telecine_components.training.engine import Engine
from telecine_components.training.loader import Batch, StepBatches
from telecine_components.training.losses import FlowMatching, Objective
from telecine_components.training.randomness import generator
from telecine_components.training.text import CachedText
from telecine_models.text import HashTextEncoder
from telecine_models.video_dit.model import VideoDiT

CONFIG = TrainingConfig(num_steps=4, batch_size=5, learning_rate=0.01, warmup_steps=0)
SHAPES = ((3, 2, 8, 4), (3, 1, 4, 8))


def model() -> VideoDiT:
    torch.manual_seed(0)
    built = VideoDiT(patch_size=(1, 4, 4), num_layers=2, num_heads=2, head_dim=16, text_dim=8, num_experts=2)
    with torch.no_grad():
        for parameter in built.parameters():  # a fresh model's gates are zero, and nothing flows through its blocks
            parameter.add_(0.05 * torch.randn_like(parameter))
    return built


def batches(shapes: Sequence[tuple[int, ...]] = SHAPES) -> list[Batch]:
    """Three samples of the first shape, two of the second."""
    return [
        Batch(
            torch.stack([torch.randn(shape, generator=generator(5, position)) for position in positions]),
            ["a red square"] * len(positions),
            positions=positions,
        )
        for shape, positions in zip(shapes, ((0, 1, 2), (3, 4)), strict=True)
    ]


def losses(
    num_steps: int = 4, data: list[Batch] | None = None, spares: Sequence[Batch] = (), **changes: object
) -> tuple[list[float], Engine]:
    """Losses of a few steps over the same batches."""
    engine = Engine(model(), dataclasses.replace(CONFIG, **changes))
    encode = CachedText(HashTextEncoder(text_dim=8, max_tokens=4))
    loss = FlowMatching(encode_text=encode, caption_dropout_ratio=0.0, seed=1, num_strata=5, has_experts=True)
    found = []
    with deterministic(1):
        for step in range(num_steps):
            found.append(engine.backward(StepBatches(data or batches(), 5, 1.0, [*spares]), loss).loss)
            engine.update(step)
    return found, engine


def test_recomputed_activations_change_nothing_and_move_thresholds_once() -> None:
    kept, engine = losses()
    recomputed, other = losses(recompute=True)
    assert recomputed == pytest.approx(kept, rel=1e-6)
    for ours, theirs in zip(other.module.mixtures, engine.module.mixtures, strict=True):
        torch.testing.assert_close(ours.thresholds, theirs.thresholds)
        assert theirs.thresholds.min() > 0


def test_the_first_loss_in_bfloat16_is_close_and_the_weights_stay_in_float32() -> None:
    full, _ = losses(num_steps=1)
    half, engine = losses(num_steps=1, precision="bf16")
    assert half != full and half == pytest.approx(full, rel=0.02)
    assert {tensor.dtype for tensor in engine.module.parameters()} == {torch.float32}
    assert {tensor.dtype for tensor in engine.ema.weights.values()} == {torch.float32}


@pytest.mark.parametrize("stage", [1, 3])
def test_deepspeed_computes_in_bfloat16_where_it_sees_the_autocast_around_it(stage: int) -> None:
    """It asks the flag of CUDA's autocast, which is set beside that of the CPU as it would be on a GPU."""
    seen: set[torch.dtype] = set()

    def spied(model: torch.nn.Module, batches: Sequence[Batch]) -> Objective:
        dit = getattr(model, "module", model)
        hook = dit.patch_in.register_forward_hook(lambda layer, given, found: seen.add(found.dtype))
        predicted = model(batches[0].x0, torch.full((3,), 0.5), torch.ones(3, 1, 8), torch.ones(3, 1, dtype=torch.bool))
        hook.remove()
        return Objective(predicted.square().mean((1, 2, 3, 4)))

    engine = Engine(model(), dataclasses.replace(CONFIG, precision="bf16", zero_stage=stage, max_tokens=1))
    torch.set_autocast_enabled("cuda", True)
    try:
        engine.backward(StepBatches(batches()[:1], 3, 1.0), spied)
    finally:
        torch.set_autocast_enabled("cuda", False)
    assert seen == {torch.bfloat16}
    assert {parameter.dtype for parameter in engine.module.parameters()} == {torch.float32}


def test_a_bound_on_tokens_makes_passes_of_the_pack() -> None:
    """With experts the pools differ, so only the samples' own losses are held against each other."""
    packed, _ = losses(num_steps=1)
    parted, _ = losses(num_steps=1, max_tokens=1)
    assert parted == pytest.approx(packed, rel=0.05) and parted != packed


def test_a_spare_pass_changes_neither_losses_nor_weights_nor_thresholds() -> None:
    plain, engine = losses(max_tokens=1)
    spared, other = losses(max_tokens=1, spares=[Batch(torch.zeros(1, *SHAPES[1]), [""], positions=(0,))] * 2)
    assert spared == plain
    for name, tensor in engine.module.state_dict().items():
        assert torch.equal(other.module.state_dict()[name], tensor), name


def test_a_compiler_is_asked_for_before_it_is_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert shutil.which("g++") is None
    with pytest.raises(InputError, match=r"compile needs a C\+\+ compiler on a CPU, and there is none; turn it off"):
        losses(compile=True)


def test_what_cannot_recompute_says_so() -> None:
    with pytest.raises(InputError, match="recompute needs a model that can, got Linear; turn it off"):
        Engine(torch.nn.Linear(2, 2), dataclasses.replace(CONFIG, recompute=True))


COMPILE = """
import test_engine_options as options

one_shape = options.batches((options.SHAPES[0], options.SHAPES[0]))
for compiles in (False, True):
    print(options.losses(num_steps=2, data=one_shape, max_tokens=1, compile=compiles)[0])
"""


@pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler")
def test_compiled_blocks_have_the_losses_of_plain_ones() -> None:
    """In a process of its own, without the checks of every signature, which cannot be compiled."""
    path = os.pathsep.join([str(Path(__file__).parent), *filter(None, sys.path)])
    run = subprocess.run(
        [sys.executable, "-c", COMPILE], env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    plain, compiled = (json.loads(line) for line in run.stdout.splitlines())
    assert compiled == pytest.approx(plain, rel=1e-4)
