"""What the paper claims, on a toy: samples at different noise levels want different maps, and only a pool over samples
lets an expert serve one of them alone; the predictor then keeps that for a sample that is served by itself.

Experts are linear, so that no single one can do the work of two. Each sample has one of four hidden levels; its tokens
show a content and a noisy embedding of the level, and the target is the level's map of the content.
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from telecine_models.moe.capacity import CapacityMeter
from telecine_models.moe.choices import ExpertChoice
from telecine_models.moe.diffmoe import DiffMoE
from telecine_models.moe.thresholds import update_thresholds

LEVELS, TOKENS, CONTENT, EMBEDDING, WIDTH = 4, 16, 12, 6, 24
STEPS, BATCH, WARMUP = 600, 16, 20
PRIOR_ENTROPY = 0.5623  # nats, of a predictor that knows only that an expert takes a quarter of the tokens


class LinearExperts(nn.Module):
    """Experts that are one linear map each."""

    def __init__(self) -> None:
        super().__init__()
        self.maps = nn.Parameter(torch.randn(LEVELS, WIDTH, WIDTH) / WIDTH**0.5)

    def forward(self, pool: Tensor, index: Tensor, gate: Tensor) -> Tensor:
        answers = torch.bmm(pool[index.flatten()].view(*index.shape, WIDTH), self.maps) * gate[..., None]
        return torch.zeros_like(pool).index_add(0, index.flatten(), answers.flatten(0, 1))

    def ragged(self, pool: Tensor, selected: Tensor, scores: Tensor) -> Tensor:
        return torch.einsum("td,edo,te->to", pool, self.maps, selected * scores)


class Dense(nn.Module):
    """One linear map: as many parameters at work as with experts."""

    def __init__(self) -> None:
        super().__init__()
        self.map = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> tuple[Tensor, None]:
        return self.map(x), None


def world(seed: int) -> Callable[[int, torch.Generator], tuple[Tensor, Tensor]]:
    """How to draw tokens [B, S, D] and targets [B, S, content]."""
    fixed = torch.Generator().manual_seed(seed)
    maps = torch.randn(LEVELS, CONTENT, CONTENT, generator=fixed) / CONTENT**0.5
    embeddings = torch.randn(LEVELS, EMBEDDING, generator=fixed)

    def draw(num_samples: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        level = torch.randint(LEVELS, (num_samples,), generator=generator)
        content = torch.randn(num_samples, TOKENS, CONTENT, generator=generator)
        shown = embeddings[level][:, None] + 0.3 * torch.randn(num_samples, TOKENS, EMBEDDING, generator=generator)
        nothing = torch.zeros(num_samples, TOKENS, WIDTH - CONTENT - EMBEDDING)
        return torch.cat((content, shown, nothing), dim=2), torch.einsum("bij,bsj->bsi", maps[level], content)

    return draw


def train(layer: Any, draw: Callable[..., Any], batch: int) -> Any:
    generator = torch.Generator().manual_seed(1)
    optimizer = torch.optim.Adam(layer.parameters(), lr=1e-2)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / WARMUP))
    for _ in range(STEPS):
        x, target = draw(batch, generator)
        out, routing = layer(x)
        loss = (out[..., :CONTENT] - target).square().mean() + (0.0 if routing is None else routing.loss)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if isinstance(layer, DiffMoE):
            update_thresholds([layer], [[routing]])
    return layer.eval()


@torch.no_grad()
def scored(layer: Any, draw: Callable[..., Any], batch: int, routing: Any = None) -> tuple[float, float, float]:
    """Error, mean capacity and the predictor's loss on fresh samples, ``batch`` at a time."""
    if routing is not None:
        layer.routing = routing
    x, target = draw(256, torch.Generator().manual_seed(2))
    errors, losses, meter = [], [], CapacityMeter()
    for part, wanted in zip(x.split(batch), target.split(batch), strict=True):
        out, found = layer(part)
        errors.append((out[..., :CONTENT] - wanted).square().mean())
        if found is not None:
            losses.append(found.loss)
            meter.add([found.tokens_per_expert.tolist()], found.num_tokens)
    mean = torch.stack(errors).mean()
    return float(mean), meter.average if losses else 1.0, float(torch.stack(losses).mean()) if losses else 0.0


def linear(layer: Any) -> Any:
    layer.experts = LinearExperts()
    return layer


@pytest.mark.parametrize("seed", [0])
def test_a_pool_over_samples_specialises_experts_and_the_predictor_keeps_it_for_one_sample(seed: int) -> None:
    draw = world(seed)
    torch.manual_seed(seed)
    dense, choice, lonely, pooled = Dense(), *(linear(cls(WIDTH, LEVELS)) for cls in (ExpertChoice, DiffMoE, DiffMoE))
    for layer, batch in ((dense, BATCH), (choice, BATCH), (lonely, 1), (pooled, BATCH)):
        train(layer, draw, batch)
    dense_error, choice_error = scored(dense, draw, 64)[0], scored(choice, draw, 64)[0]
    for routing in ("count", "mask"):
        together, capacity, _ = scored(pooled, draw, 64, routing)
        alone, capacity_alone, _ = scored(pooled, draw, 1, routing)
        assert together < 0.25 * choice_error < 0.25 * dense_error
        assert abs(alone - together) < max(0.005, 0.2 * together)
        assert 0.9 <= capacity <= 1.1 and 0.9 <= capacity_alone <= 1.1
        assert scored(pooled, draw, 1, "static")[0] > 5 * alone, "an equal share of one sample is the wrong share"
        assert scored(lonely, draw, 64, routing)[0] > 0.7 * choice_error, "no pool in training, no gain"
    assert scored(pooled, draw, 64, "static")[2] < 0.6 * PRIOR_ENTROPY
