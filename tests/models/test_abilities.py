"""Every ability learned in a few steps from one batch of Backlot: what is given decides what is made.

All samples of a batch start from one and the same noise, so that nothing but the condition tells them apart: a model
that ignores it can at best predict the mean of the batch.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from telecine_models.backlot import Clip, clip
from telecine_models.backlot.actions import Actions as PlayedActions
from telecine_models.camera import flatten_poses, relative_poses
from telecine_models.flow import flow_matching_loss, interpolate
from telecine_models.pixels import to_model_range
from telecine_models.text import HashTextEncoder
from telecine_models.video_dit.action import ActionControl, Actions
from telecine_models.video_dit.conditions import Conditions
from telecine_models.video_dit.model import VideoDiT

BATCH, FRAMES, SIDE = 4, 4, 16
SEEDS = (1, 2, 3, 4)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def draw(seed: int, **how: Any) -> Clip:
    return clip(seed, num_frames=FRAMES, fps=4, width_px=SIDE, height_px=SIDE, **how)


@dataclasses.dataclass(frozen=True)
class Lesson:
    """Targets, and what a model is given for a choice of them."""

    x0: Tensor
    given: Callable[[Tensor], dict[str, Any]]
    conditions: tuple[str, ...] = ()
    control: ActionControl | None = None
    num_steps: int = 120


def videos(clips: list[Clip]) -> Tensor:
    return to_model_range(torch.from_numpy(np.stack([each.frames for each in clips])))


def conditioned(kind: str, x0: Tensor, **values: Tensor) -> Lesson:
    def given(index: Tensor) -> dict[str, Any]:
        return {"conditions": Conditions(**{name: value[index] for name, value in values.items()})}

    return Lesson(x0, given, (kind,))


def text(num_frames: int = FRAMES) -> Lesson:
    clips = [draw(seed) for seed in SEEDS]
    tokens, mask = HashTextEncoder().encode([each.truth["caption"] for each in clips])
    return Lesson(
        videos(clips)[:, :, :num_frames],
        lambda index: {"encoder_hidden_states": tokens[index], "encoder_attention_mask": mask[index]},
    )


def first_frame() -> Lesson:
    x0 = videos([draw(seed) for seed in SEEDS])
    return conditioned("first_frame", x0, first_frame=x0[:, :, 0])


def elements() -> Lesson:
    clips = [draw(seed) for seed in SEEDS]
    pictures = np.stack([each.references(SIDE)[0].rgb for each in clips])
    element = to_model_range(torch.from_numpy(pictures)[:, None])[:, :, 0]
    return conditioned("elements", videos(clips), elements=element[:, None])


def edit() -> Lesson:
    """Outside of the mask the source stays; inside everything turns grey, as if it were removed."""
    source = videos([draw(seed) for seed in SEEDS])
    mask = torch.zeros(BATCH, FRAMES, SIDE, SIDE)
    for index in range(BATCH):
        mask[index, :, 4 * (index % 2) : 4 * (index % 2) + 8, 4 * (index // 2) : 4 * (index // 2) + 8] = 1
    x0 = torch.where(mask[:, None] > 0, torch.zeros_like(source), source)
    return conditioned("source", x0, source=source, source_mask=mask)


def depth() -> Lesson:
    clips = [draw(seed) for seed in SEEDS]
    near = torch.from_numpy(np.stack([2 / each.depth for each in clips])).clamp(0, 1)
    return conditioned("depth", videos(clips), depth=(2 * near - 1)[:, None].expand(-1, 3, -1, -1, -1).contiguous())


def camera() -> Lesson:
    """One room, four ways to move through it."""
    clips = [draw(7, camera=move) for move in _moves()]
    poses = flatten_poses(relative_poses(torch.from_numpy(np.stack([each.poses for each in clips])).float()))
    return dataclasses.replace(conditioned("camera", videos(clips), camera=poses), num_steps=300)


def action() -> Lesson:
    """One room of a game, four things to do in it."""
    clips = [draw(7, style="block game", actions=_played(index)) for index in range(BATCH)]
    keys = torch.from_numpy(np.stack([each.actions.keys for each in clips])).bool()
    mouse = torch.from_numpy(np.stack([each.actions.mouse_deg for each in clips])).float()
    torch.manual_seed(1)
    control = ActionControl(width=64, num_layers=2, head_dim=16, compression=1, window=3)
    return Lesson(
        videos(clips),
        lambda index: {"steer": control.steering(Actions(keys=keys[index], mouse=mouse[index]), FRAMES)},
        control=control,
        num_steps=300,
    )


def _moves() -> tuple[Any, ...]:
    return ("pan left", "pan right", "dolly in", "roll clockwise")


def _played(index: int) -> Any:
    """To the left, to the right, on and back, for the whole clip."""
    keys, mouse = np.zeros((FRAMES - 1, 7), np.uint8), np.zeros((FRAMES - 1, 2))
    mouse[:, 0] = (-15, 15, 0, 0)[index]
    keys[:, 0], keys[:, 2] = index == 2, index == 3
    return PlayedActions(keys=keys, mouse_deg=mouse)


ABILITIES: dict[str, Callable[[], Lesson]] = {
    "text": text,
    "image only": lambda: text(num_frames=1),
    "first frame": first_frame,
    "elements": elements,
    "edit": edit,
    "depth": depth,
    "camera": camera,
    "action": action,
}
ALL = torch.arange(BATCH)


class Pupil:
    """A model of two blocks that learns one lesson; noise at flow time one, of which only the data can be told."""

    def __init__(self, lesson: Lesson) -> None:
        self.lesson = lesson
        self.noise = random(1, *lesson.x0.shape[1:]).expand_as(lesson.x0)
        torch.manual_seed(0)
        self.model = VideoDiT(num_layers=2, num_heads=2, head_dim=32, conditions=lesson.conditions)
        self.parameters = [*self.model.parameters(), *(lesson.control.parameters() if lesson.control else [])]

    def velocity(self, index: Tensor) -> Tensor:
        """What is predicted for the conditions ``index``."""
        x0, t = self.lesson.x0, torch.ones(BATCH)
        given = {"encoder_hidden_states": torch.zeros(BATCH, 0, 64)} | self.lesson.given(index)
        velocity = self.model(interpolate(x0, self.noise, t), t, **given)
        assert isinstance(velocity, Tensor)
        return velocity

    def learn(self) -> None:
        optimizer = torch.optim.AdamW(self.parameters, lr=3e-3)
        for _ in range(self.lesson.num_steps):
            optimizer.zero_grad()
            flow_matching_loss(self.velocity(ALL), self.lesson.x0, self.noise).mean().backward()
            optimizer.step()

    @torch.no_grad()
    def errors(self, index: Tensor) -> Tensor:
        """Mean squared distance [given, target] of what is made for each condition from each target."""
        made = self.noise - self.velocity(index)
        return (made[:, None] - self.lesson.x0[None]).square().flatten(2).mean(2)


@pytest.mark.parametrize("ability", ABILITIES)
def test_a_tiny_model_learns_the_ability_and_a_swapped_condition_makes_the_other_video(ability: str) -> None:
    pupil = Pupil(ABILITIES[ability]())
    x0 = pupil.lesson.x0
    mean_predictor = float((x0 - x0.mean(0)).square().mean())
    pupil.learn()
    assert float(pupil.errors(ALL).diagonal().mean()) < 0.1 * mean_predictor
    swapped = ALL.roll(1)
    assert bool((pupil.errors(swapped).argmin(1) == swapped).all())


def test_told_to_move_more_a_model_moves_more_from_the_same_noise() -> None:
    """Half of the clips stand still and say so by their score (Koala-36M, arXiv 2410.08260)."""
    moving = videos([draw(seed) for seed in SEEDS])
    still = moving[:, :, :1].expand_as(moving)
    x0, noise, t = torch.cat((moving, still)), random(1, *moving.shape[1:]), torch.ones(2 * BATCH)
    score = torch.tensor([1.0] * BATCH + [0.0] * BATCH)
    torch.manual_seed(0)
    model = VideoDiT(num_layers=2, num_heads=2, head_dim=32, metrics=("motion",))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    text, start = torch.zeros(2 * BATCH, 0, 64), noise.expand_as(x0)
    for _ in range(250):
        optimizer.zero_grad()
        flow_matching_loss(model(start, t, text, metrics={"motion": score}), x0, start).mean().backward()
        optimizer.step()
    with torch.no_grad():
        made = start - model(start, t, text, metrics={"motion": score})
    change = made.diff(dim=2).abs().flatten(1).mean(1)
    assert float(change[0]) > 3 * float(change[BATCH])
