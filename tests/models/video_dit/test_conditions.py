"""Conditions as tokens: silent when absent, placed right, dropped at their rates, and named when they do not fit."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from telecine_models.flow import flow_matching_loss, interpolate
from telecine_models.video_dit.conditions import ConditionEmbedder, Conditions, slot
from telecine_models.video_dit.config import KINDS, METRICS, VideoDiTConfig
from telecine_models.video_dit.model import VideoDiT
from telecine_models.video_dit.rope import grid_positions

Build = Callable[..., VideoDiT]
FRAMES, SIDE = 3, 8
NUM_TARGET = FRAMES * 4


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


VIDEO, TIME, TEXT = random(2, 3, FRAMES, SIDE, SIDE), torch.tensor([0.2, 0.9]), random(2, 5, 8, seed=1)
EVERYTHING: dict[str, Any] = {
    "first_frame": random(2, 3, SIDE, SIDE, seed=2),
    "last_frame": random(2, 3, SIDE, SIDE, seed=3),
    "source": random(2, 3, FRAMES, SIDE, SIDE, seed=4),
    "source_mask": torch.ones(2, FRAMES, SIDE, SIDE),
    "depth": random(2, 3, FRAMES, SIDE, SIDE, seed=5),
    "sketch": random(2, 3, FRAMES, SIDE, SIDE, seed=6),
    "camera": random(2, FRAMES, 12, seed=7),
    "elements": random(2, 2, 3, 4, 8, seed=8),
    "style": random(2, 3, 4, 4, seed=9),
}
ALL = Conditions(**EVERYTHING)
THERE = torch.tensor([True, False])


def only(kind: str, **change: Any) -> Conditions:
    """One kind, with its pair."""
    names = [kind, "source_mask"] if kind == "source" else [kind]
    return Conditions(**({name: EVERYTHING[name] for name in names} | change))


def shared_weights(model: VideoDiT, **change: Any) -> VideoDiT:
    """Another model with the same weights, as far as it has them."""
    other = VideoDiT(**(dataclasses.asdict(model.size) | change))
    other.load_state_dict(model.state_dict(), strict=False)
    return other.eval()


# What is absent is silent


def test_without_conditions_the_model_is_the_text_to_video_model_to_the_bit(awake_model: Build) -> None:
    model = awake_model(conditions=KINDS, metrics=METRICS)
    plain = shared_weights(model, conditions=(), metrics=())
    assert torch.equal(model(VIDEO, TIME, TEXT), plain(VIDEO, TIME, TEXT))
    assert torch.equal(model(VIDEO, TIME, TEXT, conditions=Conditions()), plain(VIDEO, TIME, TEXT))


@pytest.mark.parametrize("decoupled", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_matters_and_a_sample_that_lacks_it_is_as_without(
    awake_model: Build, kind: str, decoupled: bool
) -> None:
    model = awake_model(conditions=(kind,), decoupled_context=decoupled)
    plain = model(VIDEO, TIME, TEXT)
    there = torch.tensor([True, False])
    present = {kind: there[:, None].expand(-1, 2) if kind == "elements" else there}
    seen = model(VIDEO, TIME, TEXT, conditions=only(kind, present=present))
    torch.testing.assert_close(seen[1], plain[1], rtol=1e-5, atol=1e-5)
    assert not torch.allclose(seen[0], plain[0], atol=1e-2)


@pytest.mark.parametrize("decoupled", [False, True])
@pytest.mark.parametrize("keep_ratio", [1.0, 0.5])
def test_what_an_absent_condition_holds_is_never_seen(awake_model: Build, decoupled: bool, keep_ratio: float) -> None:
    model = awake_model(conditions=KINDS, decoupled_context=decoupled, context_keep_ratio=keep_ratio)
    absent = {"depth": torch.tensor([False, True]), "elements": torch.tensor([[True, False], [False, True]])}
    seen = model(VIDEO, TIME, TEXT, conditions=dataclasses.replace(ALL, present=absent))
    depth, elements = EVERYTHING["depth"].clone(), EVERYTHING["elements"].clone()
    depth[0], elements[0, 1], elements[1, 0] = torch.nan, 7, torch.inf
    other = dataclasses.replace(ALL, depth=depth, elements=elements, present=absent)
    torch.testing.assert_close(model(VIDEO, TIME, TEXT, conditions=other), seen, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("keep_ratio", [1.0, 0.5])
def test_a_kind_that_no_sample_has_changes_nothing(awake_model: Build, keep_ratio: float) -> None:
    model = awake_model(conditions=KINDS, context_keep_ratio=keep_ratio)
    absent = {"depth": torch.zeros(2, dtype=torch.bool)}
    both = dataclasses.replace(only("style"), depth=EVERYTHING["depth"], present=absent)
    alone = model(VIDEO, TIME, TEXT, conditions=only("style"))
    torch.testing.assert_close(model(VIDEO, TIME, TEXT, conditions=both), alone, rtol=1e-5, atol=1e-5)


def test_biases_of_kinds_and_metrics_start_silent() -> None:
    torch.manual_seed(0)
    model = VideoDiT(num_layers=1, head_dim=16, text_dim=8, conditions=KINDS, metrics=METRICS)
    assert model.conditions_in is not None
    assert all(bool((bias == 0).all()) for bias in model.conditions_in.bias.values())
    for name, parameter in model.named_parameters():
        if "metrics_in" not in name:
            torch.nn.init.normal_(parameter, std=0.2)
    scores = {name: torch.tensor([0.3, 1.0]) for name in METRICS}
    assert torch.equal(model(VIDEO, TIME, TEXT, metrics=scores), model(VIDEO, TIME, TEXT))


def test_metrics_matter_once_they_are_learned(awake_model: Build) -> None:
    model = awake_model(metrics=METRICS)
    low, high = (model(VIDEO, TIME, TEXT, metrics={"motion": torch.full((2,), value)}) for value in (0.1, 0.9))
    assert not torch.allclose(low, high, atol=1e-2)


def test_every_parameter_learns_from_a_video_with_everything(awake_model: Build) -> None:
    model = awake_model(conditions=KINDS, metrics=METRICS, context_keep_ratio=0.5)
    scores = {name: torch.tensor([0.3, 1.0]) for name in METRICS}
    model(VIDEO, TIME, TEXT, conditions=ALL, metrics=scores).square().mean().backward()
    silent = [name for name, p in model.named_parameters() if p.grad is None or p.grad.abs().max() == 0]
    assert silent == []


def test_recomputed_activations_give_the_same_gradients(awake_model: Build) -> None:
    def gradients(checkpointing: bool) -> list[Tensor]:
        model = awake_model(conditions=KINDS).train()
        if checkpointing:
            model.enable_gradient_checkpointing()
        model(VIDEO, TIME, TEXT, conditions=ALL).square().mean().backward()
        return [p.grad for p in model.parameters() if p.grad is not None]

    for plain, again in zip(gradients(False), gradients(True), strict=True):
        assert torch.equal(plain, again)


# Where condition tokens stand


@pytest.mark.parametrize("num_frames", range(1, 65))
def test_no_slot_meets_a_frame_or_another_slot(num_frames: int) -> None:
    grid = (num_frames, 2, 2)
    behind = [slot("elements", grid, element) for element in range(4)] + [slot("style", grid)]
    assert len(set(behind)) == 5
    assert min(behind) >= num_frames
    assert [slot(kind, grid) for kind in ("first_frame", "source", "depth", "sketch", "camera")] == [0] * 5
    assert slot("last_frame", grid) == num_frames - 1


def test_the_order_in_which_conditions_join_the_sequence_changes_nothing(awake_model: Build) -> None:
    class Reversed(Conditions):
        def given(self) -> Iterator[tuple[str, Tensor]]:
            yield from reversed(list(super().given()))

    model = awake_model(conditions=KINDS)
    there = torch.ones(2, dtype=torch.bool)
    seen = model(VIDEO, TIME, TEXT, conditions=ALL)
    torch.testing.assert_close(model(VIDEO, TIME, TEXT, conditions=Reversed(**EVERYTHING)), seen, rtol=1e-4, atol=1e-5)
    present = {"depth": there, "camera": there}
    other = Reversed(**EVERYTHING, present=present)
    torch.testing.assert_close(model(VIDEO, TIME, TEXT, conditions=other), seen, rtol=1e-4, atol=1e-5)


def test_what_follows_the_video_shares_its_frames_and_images_have_their_own_place() -> None:
    config = VideoDiTConfig(head_dim=16, text_dim=8, patch_size=(1, 4, 4), conditions=KINDS)
    embedder, expected = ConditionEmbedder(config), grid_positions((FRAMES, 2, 2), VIDEO.device)
    for kind in ("source", "depth", "sketch"):
        _, positions, _ = embedder(only(kind), (FRAMES, SIDE, SIDE))
        assert torch.equal(positions, expected)
    _, positions, _ = embedder(only("camera"), (FRAMES, SIDE, SIDE))
    assert positions.tolist() == [[frame, 0, 0] for frame in range(FRAMES)]
    _, positions, _ = embedder(only("elements"), (FRAMES, SIDE, SIDE))
    assert positions[:, 0].tolist() == [FRAMES, FRAMES, FRAMES + 1, FRAMES + 1]
    assert positions[:, 2].tolist() == [0, 1, 0, 1]


class _Sequential(ConditionEmbedder):
    """The negative control: a source that stands behind the video instead of beside it."""

    def _tokens(self, kind: str, value: Tensor, conditions: Conditions, video: Any) -> tuple[Tensor, Tensor]:
        tokens, positions = super()._tokens(kind, value, conditions, video)
        return tokens, positions + torch.tensor([video[0], 0, 0])


def _copying_loss(embedder: type[ConditionEmbedder], seed: int) -> float:
    """Loss after learning that the target is the source, frame by frame, in videos of 2 to 16 frames."""
    torch.manual_seed(seed)
    model = VideoDiT(num_layers=1, num_heads=2, head_dim=32, text_dim=8, conditions=("source",))
    model.conditions_in = embedder(model.size)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses = []
    for step in range(100):
        num_frames = 2 + 7 * step % 15
        x0, noise = (random(8, 3, num_frames, 4, 4, seed=1000 * seed + 2 * step + i) for i in (0, 1))
        given, t = Conditions(source=x0, source_mask=torch.ones(8, num_frames, 4, 4)), torch.ones(8)
        velocity = model(interpolate(x0, noise, t), t, torch.zeros(8, 0, 8), conditions=given)
        loss = flow_matching_loss(velocity, x0, noise).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return sum(losses[-15:]) / 15


def test_frames_that_stand_beside_those_they_belong_to_are_learned_faster() -> None:
    wins = [_copying_loss(ConditionEmbedder, seed) < 0.8 * _copying_loss(_Sequential, seed) for seed in (0, 1, 2)]
    assert sum(wins) >= 2


# Every combination in training


def test_each_kind_is_dropped_at_its_own_rate_and_by_itself() -> None:
    num, rates = 4000, {"depth": 0.3, "camera": 0.1, "elements": 0.6}
    conditions = Conditions(
        depth=torch.zeros(num, 1, 1, 1, 1), camera=torch.zeros(num, 1, 12), elements=torch.zeros(num, 2, 1, 1, 1)
    )
    present = conditions.drop(rates, torch.Generator().manual_seed(0)).present
    gone = {kind: ~present[kind].view(num, -1)[:, 0] for kind in rates}
    for kind, rate in rates.items():
        sigma = (rate * (1 - rate) / num) ** 0.5
        assert abs(float(gone[kind].float().mean()) - rate) < 3 * sigma
    both = float((gone["depth"] & gone["elements"]).float().mean())
    assert abs(both - 0.18) < 3 * (0.18 * 0.82 / num) ** 0.5
    assert bool((present["elements"][:, 0] == present["elements"][:, 1]).all())


def test_what_a_sample_never_had_is_not_given_back() -> None:
    there = torch.tensor([True, False])
    kept = only("depth", present={"depth": there}).drop({}, torch.Generator().manual_seed(0))
    assert kept.present["depth"].tolist() == [True, False]
    dropped = kept.drop({"depth": 1.0}, torch.Generator().manual_seed(0))
    assert dropped.present["depth"].tolist() == [False, False]


# Fewer tokens, and tokens that are computed once


def test_a_decoupled_context_is_computed_once_for_every_step(awake_model: Build) -> None:
    model = awake_model(conditions=KINDS, decoupled_context=True, context_keep_ratio=0.6)
    heard = model.listen(ALL, VIDEO)
    for step in range(4):
        x, t = random(2, 3, FRAMES, SIDE, SIDE, seed=20 + step), torch.full((2,), 1 - step / 4)
        once, again = model(x, t, TEXT, conditions=ALL), model(x, t, TEXT, conditions=heard)
        torch.testing.assert_close(again, once, rtol=1e-5, atol=1e-5)


def test_a_joint_context_reads_the_noise_so_it_cannot_be_computed_once(awake_model: Build) -> None:
    model = awake_model(conditions=KINDS)
    with pytest.raises(ValueError, match="decoupled_context must be True, got False"):
        model.listen(ALL, VIDEO)
    decoupled = shared_weights(model, decoupled_context=True)
    joint, alone = (m(VIDEO, TIME, TEXT, conditions=ALL) for m in (model, decoupled))
    assert not torch.allclose(joint, alone, atol=1e-2)


@pytest.mark.parametrize("decoupled", [False, True])
def test_choosing_all_tokens_is_choosing_none(awake_model: Build, decoupled: bool) -> None:
    choosing = awake_model(conditions=KINDS, decoupled_context=decoupled, context_keep_ratio=0.999)
    dense = shared_weights(choosing, context_keep_ratio=1.0)
    seen = choosing(VIDEO, TIME, TEXT, conditions=ALL)
    torch.testing.assert_close(seen, dense(VIDEO, TIME, TEXT, conditions=ALL), rtol=1e-4, atol=1e-4)
    sparse = shared_weights(choosing, context_keep_ratio=0.3)
    assert not torch.allclose(sparse(VIDEO, TIME, TEXT, conditions=ALL), seen, atol=1e-2)


def test_a_block_that_conditions_take_no_part_in_hears_nothing(awake_model: Build) -> None:
    model = awake_model(conditions=KINDS, decoupled_context=True, context_blocks=(0,))
    heard = model.listen(ALL, VIDEO)
    assert [block is None for block in heard.blocks] == [False, True]
    again = model(VIDEO, TIME, TEXT, conditions=heard)
    torch.testing.assert_close(again, model(VIDEO, TIME, TEXT, conditions=ALL), rtol=1e-5, atol=1e-5)


def _attention_flops(model: VideoDiT, conditions: Any) -> int:
    """Multiplications of scores and mixtures in one forward pass of one sample, in pairs of tokens."""
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        model(VIDEO, TIME, TEXT[:, :0], conditions=conditions)
    counts = counter.get_flop_counts()["Global"]
    flops = sum(value for operator, value in counts.items() if "bmm" in str(operator))
    size, batch = model.size, len(VIDEO)
    return flops // (2 * 2 * batch * size.width * size.num_layers)


def test_attention_costs_the_pairs_of_tokens_that_take_part(awake_model: Build) -> None:
    depth, num = only("depth"), NUM_TARGET
    joint = awake_model(conditions=("depth",))
    assert _attention_flops(joint, None) == num**2
    assert _attention_flops(joint, depth) == (num + num) ** 2
    sparse = awake_model(conditions=("depth",), decoupled_context=True, context_keep_ratio=0.5)
    kept = num // 2
    assert _attention_flops(sparse, depth) == num**2 + num * kept + kept**2
    assert _attention_flops(sparse, sparse.listen(depth, VIDEO)) == num**2 + num * kept


def test_a_context_can_be_decoupled_only_where_no_token_depends_on_another() -> None:
    sizes: dict[str, Any] = {"num_experts": 4, "decoupled_context": True, "conditions": KINDS}
    VideoDiTConfig(**sizes, mixture="token_choice")
    for mixture in ("diffmoe", "expert_choice"):
        with pytest.raises(ValueError, match=f"decoupled_context needs .*token_choice', got '{mixture}'"):
            VideoDiTConfig(**sizes, mixture=mixture)


def test_a_block_learns_to_choose_the_token_that_tells_something() -> None:
    """Of four pictures one has the colour of the target and the others are always the same; a quarter may speak."""
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"conditions": ("elements",), "context_keep_ratio": 0.25, "decoupled_context": True}
    model = VideoDiT(num_layers=1, num_heads=2, head_dim=32, text_dim=8, **sizes)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    noise, t, told = random(1, 3, 1, 4, 4).expand(8, -1, -1, -1, -1), torch.ones(8), 2
    for step in range(150):
        colour = random(8, 3, 1, 1, seed=step)
        elements = torch.zeros(8, 4, 3, 4, 4)
        elements[:, told] = colour
        x0 = colour[:, :, None].expand_as(noise).contiguous()
        velocity = model(noise, t, torch.zeros(8, 0, 8), conditions=Conditions(elements=elements))
        optimizer.zero_grad()
        flow_matching_loss(velocity, x0, noise).mean().backward()
        optimizer.step()
    context, block = model._context(Conditions(elements=elements), noise), model.blocks[0]
    scores = block.score(block.norm_attention(context.tokens))[..., 0]
    assert bool((scores.argmax(1) == told).all())


# What does not fit is named


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"depth": random(2, 3, 2, 8, 8)}, r"depth must be shaped \[2, 3, 3, 8, 8\], got \[2, 3, 2, 8, 8\]"),
        ({"first_frame": random(2, 3, 8, 4)}, r"first_frame must be shaped \[2, 3, 8, 8\], got \[2, 3, 8, 4\]"),
        ({"source_mask": None}, "source and source_mask must be given together, got source alone"),
        ({"source": None}, "source and source_mask must be given together, got source_mask alone"),
        ({"source_mask": torch.ones(2, 3, 8, 4)}, r"source_mask must be shaped \[2, 3, 8, 8\]"),
        ({"camera": random(2, 4, 12)}, r"camera must be shaped \[2, 3, 12\], got \[2, 4, 12\]"),
        ({"camera": random(2, 3, 16)}, r"camera must be shaped \[2, 3, 12\], got \[2, 3, 16\]"),
        ({"elements": random(2, 5, 3, 4, 4)}, r"elements must be 1 to 4 images, .* got \[2, 5, 3, 4, 4\]"),
        ({"elements": random(2, 1, 3, 6, 4)}, r"elements must be 2 samples of 3 channels, sides multiples of 4 and 4"),
        ({"style": random(1, 3, 4, 4)}, r"style must be 2 samples .* got \[1, 3, 4, 4\]"),
        (
            {"present": {"depth": torch.ones(3, dtype=torch.bool)}},
            r"present\['depth'\] must be shaped \[2\] of torch.bool, got \[3\]",
        ),
        ({"present": {"depth": torch.ones(2)}}, r"must be shaped \[2\] of torch.bool, got \[2\] of torch.float32"),
        ({"style": random(2, 3)}, r"style must be pictures of 2 samples, got \[2, 3\]"),
        ({"style": torch.full((2, 3, 4, 4), torch.nan)}, "style must be finite, got nan"),
        ({"source_mask": torch.full((2, FRAMES, SIDE, SIDE), 255.0)}, r"source_mask must lie in \[0, 1\], got 255.0"),
        ({"depth": None, "present": {"depth": torch.ones(2, dtype=torch.bool)}}, "present names 'depth', which is not"),
    ],
)
def test_a_condition_that_does_not_fit_is_named(
    unchecked: None, awake_model: Build, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=rf"Conditions: .*{message}"):
        awake_model(conditions=KINDS)(VIDEO, TIME, TEXT, conditions=Conditions(**(EVERYTHING | change)))


@pytest.mark.parametrize("given", [{"source_mask": EVERYTHING["source_mask"]}, {"present": {"style": THERE}}])
def test_a_pair_or_a_presence_alone_is_refused(awake_model: Build, given: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"source_mask alone|present names 'style', which is not given"):
        awake_model(conditions=KINDS)(VIDEO, TIME, TEXT, conditions=Conditions(**given))


def test_a_kind_that_the_model_does_not_know_is_refused(awake_model: Build) -> None:
    with pytest.raises(ValueError, match=r"this model knows \['depth'\], got \['camera'\]"):
        awake_model(conditions=("depth",))(VIDEO, TIME, TEXT, conditions=only("camera"))
    with pytest.raises(ValueError, match=r"this model knows \[\], got \['camera'\]"):
        awake_model()(VIDEO, TIME, TEXT, conditions=only("camera"))


def test_metrics_and_rates_that_do_not_fit_are_named(awake_model: Build) -> None:
    with pytest.raises(ValueError, match=r"metrics must be of \['motion'\], each shaped \[2\], got clarity"):
        awake_model(metrics=("motion",))(VIDEO, TIME, TEXT, metrics={"clarity": torch.ones(2)})
    with pytest.raises(ValueError, match=r"rates must be probabilities .*, got depth=1.5"):
        ALL.drop({"depth": 1.5}, torch.Generator())
    with pytest.raises(ValueError, match=r"rates must be probabilities of \['first_frame'.*, got dept=0.5"):
        ALL.drop({"dept": 0.5}, torch.Generator())


def test_what_was_heard_for_another_size_is_refused(awake_model: Build) -> None:
    model = awake_model(conditions=KINDS, decoupled_context=True)
    heard = model.listen(ALL, VIDEO)
    with pytest.raises(ValueError, match=r"heard for \[B, F, H, W\] of \[2, 3, 8, 8\], got \[2, 2, 8, 8\]"):
        model(VIDEO[:, :, :2], TIME, TEXT, conditions=heard)
