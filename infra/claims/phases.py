"""The phases of GameFactory (arXiv 2501.08325) at toy scale: worlds, models, what trains when, how films are judged."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from fit import Recipe, batch_of, fit, flops_of, keep, kept, noise_of, velocity_loss
from footage import GAME, OPEN_WORLD, Footage, Shoot, display_of, following, footage, palette_distance, read_turns
from runs import Outcome
from telecine_components.training.randomness import generator, torch_seed
from telecine_models.backlot.styles import Style
from telecine_models.pixels import to_frames
from telecine_models.sampling.ode import sample_ode
from telecine_models.video_dit.action import ActionControl
from telecine_models.video_dit.model import VideoDiT

MULTI, ONE = "multi_phase", "one_phase"
_WEIGHTS_STREAM, _LORA_STREAM, _SAMPLE_STREAM = 52, 53, 54
_NUM_SHOWN = 4


@dataclasses.dataclass(frozen=True, kw_only=True)
class World:
    """Footage, models and time, the same for both arms.

    Attributes:
        look_steps, moves_steps: of phase 1 and of phase 2; one-phase has what costs as much.
        time_shift: noise gets more of the training than uniform flow times give it, because where the horizon lies is
            decided there (the shift of arXiv 2403.03206).
        learning_rates: of the action module over frozen weights, and of everything together.
    """

    num_clips: int
    num_judged: int
    num_frames: int
    side_px: int
    reach_deg: float
    patch_size: tuple[int, int, int]
    num_layers: int
    num_heads: int
    head_dim: int
    lora_rank: int
    base_steps: int
    look_steps: int
    moves_steps: int
    batch_size: int
    time_shift: float
    base_learning_rate: float
    lora_learning_rate: float
    learning_rates: tuple[tuple[str, tuple[float, ...]], ...]
    sampler_steps: int

    def shoot(self, style: Style, split: int) -> Shoot:
        """What is filmed in a style."""
        return Shoot(
            style=style,
            split=split,
            num_clips=self.num_judged if split else self.num_clips,
            num_frames=self.num_frames,
            side_px=self.side_px,
            reach_deg=self.reach_deg,
        )


LAPTOP = World(
    num_clips=1000,
    num_judged=96,
    num_frames=4,
    side_px=16,
    reach_deg=8.0,
    patch_size=(1, 4, 4),
    num_layers=3,
    num_heads=2,
    head_dim=32,
    lora_rank=8,
    base_steps=1200,
    look_steps=250,
    moves_steps=550,
    batch_size=16,
    time_shift=3.0,
    base_learning_rate=2e-3,
    lora_learning_rate=3e-3,
    learning_rates=((MULTI, (1.25e-3, 2.5e-3, 5e-3)), (ONE, (5e-4, 1.5e-3, 4.5e-3))),
    sampler_steps=16,
)
GPU = dataclasses.replace(
    LAPTOP,
    num_clips=8000,
    num_judged=256,
    num_frames=8,
    side_px=32,
    reach_deg=3.0,
    num_layers=8,
    num_heads=4,
    head_dim=64,
    lora_rank=16,
    base_steps=8000,
    look_steps=2000,
    moves_steps=4000,
    batch_size=64,
    base_learning_rate=5e-4,
    lora_learning_rate=1e-3,
    learning_rates=((MULTI, (5e-4, 1e-3, 2e-3)), (ONE, (1e-4, 3e-4, 1e-3))),
    sampler_steps=32,
)
SHORT = dataclasses.replace(
    LAPTOP,
    num_clips=16,
    num_judged=8,
    base_steps=3,
    look_steps=2,
    moves_steps=4,
    batch_size=8,
    learning_rates=tuple((arm, rates[:2]) for arm, rates in LAPTOP.learning_rates),
    sampler_steps=2,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Base:
    """Phase 0: a model of the open world, kept in a folder for the arms of its seed."""

    arm: str = "base"
    seed: int
    world: World
    device: str
    folder: str

    def __call__(self) -> Outcome:
        """Train and keep."""
        world, real = self.world, footage(self.world.shoot(OPEN_WORLD, 0), self.seed)
        model = fresh_base(world, self.seed, self.device)
        losses = loss_of(model, None, real.to(self.device), world, self.seed)
        fitted = fit(model, losses, Recipe(num_steps=world.base_steps, learning_rate=world.base_learning_rate))
        with fitted.ema.swapped_into(model):
            keep(model, self.folder, self.seed)
            films = directed(model, None, footage(world.shoot(OPEN_WORLD, 1), self.seed), world, self.seed)
        return Outcome(figures=judged(films, world, self.seed), curves={"train_loss": fitted.curve}, films=shown(films))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Steered:
    """One arm on one seed: from the base of that seed to films that follow commands."""

    arm: str
    seed: int
    world: World
    learning_rate: float
    num_steps: tuple[int, ...]
    device: str
    folder: str

    def __call__(self) -> Outcome:
        """Train and judge."""
        model = fresh_base(self.world, self.seed, self.device)
        model.load_state_dict(kept(self.folder, self.seed))
        control = fresh_control(self.world, self.seed, self.device)
        return {MULTI: self._multi_phase, ONE: self._one_phase}[self.arm](model, control)

    def _multi_phase(self, model: VideoDiT, control: ActionControl) -> Outcome:
        world, game = self.world, self._game()
        layers = add_lora(model, world.lora_rank, self.seed)
        look_steps, moves_steps = self.num_steps
        recipe = Recipe(num_steps=look_steps, learning_rate=world.lora_learning_rate)
        look = fit(model, loss_of(model, None, game, world, self.seed), recipe)
        with look.ema.swapped_into(model):
            model.requires_grad_(False)
            losses = loss_of(model, control, game, world, self.seed, first_step=look_steps)
            moves = fit(control, losses, Recipe(num_steps=moves_steps, learning_rate=self.learning_rate))
            with moves.ema.swapped_into(control):
                kept_in = self._judged(model, control, "lora_kept_")
                for layer in layers:
                    layer.enable_adapters(False)
                found = self._judged(model, control)
        return Outcome(
            figures={**kept_in.figures, **found.figures},
            curves={"train_loss_look": look.curve, "train_loss": moves.curve},
            films=found.films,
        )

    def _one_phase(self, model: VideoDiT, control: ActionControl) -> Outcome:
        both = nn.ModuleDict({"base": model, "control": control})
        recipe = Recipe(num_steps=sum(self.num_steps), learning_rate=self.learning_rate)
        fitted = fit(both, loss_of(model, control, self._game(), self.world, self.seed), recipe)
        with fitted.ema.swapped_into(both):
            found = self._judged(model, control)
        return dataclasses.replace(found, curves={"train_loss": fitted.curve})

    def _game(self) -> Footage:
        return footage(self.world.shoot(GAME, 0), self.seed).to(self.device)

    def _judged(self, model: VideoDiT, control: ActionControl, prefix: str = "") -> Outcome:
        asked = footage(self.world.shoot(OPEN_WORLD, 1), self.seed)
        films = directed(model, control, asked, self.world, self.seed)
        figures = judged(films, self.world, self.seed)
        return Outcome(figures={prefix + name: value for name, value in figures.items()}, films=shown(films))


def fresh_base(world: World, seed: int, device: str) -> VideoDiT:
    """An untrained video DiT."""
    torch.manual_seed(torch_seed(seed, _WEIGHTS_STREAM))
    model: VideoDiT = VideoDiT(
        patch_size=world.patch_size, num_layers=world.num_layers, num_heads=world.num_heads, head_dim=world.head_dim
    ).to(device)
    return model


def fresh_control(world: World, seed: int, device: str) -> ActionControl:
    """An action module that does nothing yet; every frame sees all actions before it."""
    torch.manual_seed(torch_seed(seed, _WEIGHTS_STREAM, 1))
    width, window = world.num_heads * world.head_dim, world.num_frames - 1
    control: ActionControl = ActionControl(width=width, num_layers=world.num_layers, compression=1, window=window).to(
        device
    )
    return control


def add_lora(model: VideoDiT, rank: int, seed: int) -> list[Any]:
    """Put a LoRA beside every linear layer, in place, and freeze the rest; returns the layers that can be disabled."""
    # Here, because it takes seconds to import and the other studies do without.
    from peft import LoraConfig, inject_adapter_in_model
    from peft.tuners.lora import LoraLayer

    names = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    torch.manual_seed(torch_seed(seed, _LORA_STREAM))
    inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=rank, target_modules=names), model)
    layers = [module for module in model.modules() if isinstance(module, LoraLayer)]
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("lora_" in name)
    return layers


def loss_of(
    model: VideoDiT,
    control: ActionControl | None,
    seen: Footage,
    world: World,
    seed: int,
    first_step: int = 0,
) -> Callable[[nn.Module, int], Tensor]:
    """The loss of each step on footage, with its actions if there is an action module."""

    def loss(_: nn.Module, step: int) -> Tensor:
        at = first_step + step
        batch = seen.at(batch_of(len(seen.x0), world.batch_size, seed, at).to(seen.x0.device))
        times, noise = noise_of(batch.x0.shape, seed, at, shift=world.time_shift)
        steer = None if control is None else control.steering(batch.actions, world.num_frames)

        def velocity(x: Tensor, t: Tensor) -> Tensor:
            predicted: Tensor = model(x, t, batch.text, steer=steer)
            return predicted

        device = batch.x0.device
        return velocity_loss(velocity, batch.x0, times.to(device), noise.to(device)).mean()

    return loss


@torch.no_grad()
def directed(model: VideoDiT, control: ActionControl | None, asked: Footage, world: World, seed: int) -> Tensor:
    """Films [N, 3, F, H, W] by the prompts and the commands of some footage; both arms begin with the same noise."""
    model.eval()
    noise = torch.randn(asked.x0.shape, generator=generator(seed, _SAMPLE_STREAM))
    asked, noise = asked.to(str(model.device)), noise.to(model.device)
    steer = None if control is None else control.eval().steering(asked.actions, world.num_frames)
    films: Tensor = sample_ode(lambda x, t: model(x, t, asked.text, steer=steer), noise, world.sampler_steps)
    return films.cpu()


def judged(films: Tensor, world: World, seed: int, turns_deg: Tensor | None = None) -> dict[str, float]:
    """How far the game's look took over, how far commands are followed, and what both come to.

    Args:
        films: [N, 3, F, H, W].
        turns_deg: what was commanded [N, F - 1]; None where it was that of the footage to be judged on.
    """
    real, game = (footage(world.shoot(style, 1), seed) for style in (OPEN_WORLD, GAME))
    wanted = real.turns_deg if turns_deg is None else turns_deg
    read = read_turns(films, display_of(game.x0), world.reach_deg)
    takeover = palette_distance(films, real.x0) / palette_distance(game.x0, real.x0)
    followed = following(read, wanted)
    return {
        "takeover": takeover,
        "following": followed,
        "gain": float((read * wanted).sum() / wanted.square().sum()),
        "shortfall": takeover + 1 - followed,
    }


def real_figures(world: World, style: Style, seed: int) -> dict[str, float]:
    """What real footage gets that is not what it is judged against: the best that films can reach, or the game's."""
    shot = footage(dataclasses.replace(world.shoot(style, 0), num_clips=world.num_judged), seed)
    return judged(shot.x0, world, seed, shot.turns_deg)


def shown(films: Tensor) -> dict[str, npt.NDArray[np.uint8]]:
    """The first few films, as people look at them."""
    return {str(index): film for index, film in enumerate(to_frames(films[:_NUM_SHOWN]).numpy())}


def steps_of(world: World) -> dict[str, tuple[int, ...]]:
    """Steps of each arm in each of its phases after the first, which come to as many FLOPs."""
    look, moves, together = phase_flops(world)
    flops = world.look_steps * look + world.moves_steps * moves
    return {MULTI: (world.look_steps, world.moves_steps), ONE: (flops // together,)}


@functools.lru_cache(maxsize=4)
def phase_flops(world: World) -> tuple[int, int, int]:
    """FLOPs of a training step's matrix products in phase 1, in phase 2 and of one-phase."""
    small = dataclasses.replace(world, num_clips=world.batch_size)
    game = footage(small.shoot(GAME, 0), 0)

    def counted(model: VideoDiT, control: ActionControl | None) -> int:
        return flops_of(lambda: loss_of(model, control, game, small, 0)(model, 0))

    together = counted(fresh_base(world, 0, "cpu"), fresh_control(world, 0, "cpu"))
    model = fresh_base(world, 0, "cpu")
    add_lora(model, world.lora_rank, 0)
    look = counted(model, None)
    model.requires_grad_(False)
    return look, counted(model, fresh_control(world, 0, "cpu")), together
