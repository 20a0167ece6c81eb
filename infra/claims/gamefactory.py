"""gamefactory_generalises: is control learned on one game carried to an open world without the game's look?

GameFactory (arXiv 2501.08325): a video DiT learns to film an open world (phase 0, the same for both arms of a seed),
then meets footage of one game, the only one with actions. Multi-phase, a LoRA learns the game's look (1), then the
action module alone learns over both, frozen (2), and the LoRA is taken out (3). One-phase, base and action module learn
the game together. Both are then asked for an open world by prompts, with commands to look up and down.

Both arms have the same clips, the same noise, the same action module, and as many FLOPs after phase 0, counted by torch
forwards and backwards: a step of one-phase costs more, so it has fewer. Each is taken at the best of three learning
rates, by (takeover + 1 - following) on tuning seeds: the two things that are wanted, weighed alike. The world, the LoRA
and how steps are split between phases 1 and 2 were shaped on the same seeds.

* takeover: the palette's distance to that of real open-world footage, in units of the real game's; about 1 is the game.
* following: the correlation of the turns that are read off the films with those that were commanded.

Rule, set before the reported seeds were run: the effect is the takeover of one-phase less that of multi-phase. It
presupposes that control stays when the look goes: multi-phase follows at least MIN_FOLLOWING, and keeps MIN_KEPT of
what it follows with its LoRA left in. And one-phase, which follows more closely in the game that it makes of
everything, does not make up for its look by that: it falls shorter of the two together, weighed alike. All three with
the lower end of the 95 % interval over seeds.
"""

import functools
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

import pictures
import tuning
from findings import Finding, Interval, Trial, difference, t_interval
from footage import GAME, OPEN_WORLD, footage
from phases import GPU, LAPTOP, MULTI, ONE, SHORT, Base, Steered, World, phase_flops, real_figures, shown, steps_of
from runs import Outcome

MIN_FOLLOWING = 0.5
MIN_KEPT = 0.75
BASE = "base"
_LEAST = 1e-3
_COLUMNS = ("takeover", "following", "gain")


def study(trial: Trial) -> Finding:
    """The row ``gamefactory_generalises``."""
    world = SHORT if trial.size == "short" else GPU if trial.profile == "gpu" else LAPTOP
    with tempfile.TemporaryDirectory(prefix="gamefactory-") as folder:
        seeds = tuple(dict.fromkeys((*trial.tuning_seeds, *trial.seeds)))
        bases = dict(zip(seeds, trial.runs([_base(trial, world, seed, folder) for seed in seeds]), strict=True))
        make = functools.partial(_steered, trial, world, folder)
        tuned = tuning.tuned(trial.runs, make, dict(world.learning_rates), trial.tuning_seeds, "shortfall")
        best = {arm: each.best for arm, each in tuned.items()}
        outcomes = tuning.reported(trial.runs, make, best, trial.seeds)
    outcomes[BASE] = [bases[seed] for seed in trial.seeds]
    _draw(trial, world, {arm: found[0] for arm, found in outcomes.items()})
    figures = {arm: [each.figures for each in found] for arm, found in outcomes.items()}
    pairs = zip(trial.seeds, figures[MULTI], figures[ONE], strict=True)
    return Finding(
        claim="Control learned on one game in several phases steers open-world footage with less of the game's look "
        "than control learned in one phase.",
        unit="takeover of one-phase less that of multi-phase: palette distances to the open world, the game's being 1",
        effects={seed: one["takeover"] - multi["takeover"] for seed, multi, one in pairs},
        presupposes=presupposed(figures[MULTI], figures[ONE]),
        budget=_budget(world, len(trial.tuning_seeds)),
        details=_details(world, trial.seeds, tuned, figures),
    )


def presupposed(multi: Sequence[Mapping[str, float]], one: Sequence[Mapping[str, float]]) -> dict[str, bool]:
    """Whether control stays when the look goes, and is not bought dearly, by what the arms came to seed by seed."""
    followed = t_interval([each["following"] for each in multi])
    # What is left of a control that never was means nothing, and the first rule says so.
    left = t_interval([each["following"] / max(each["lora_kept_following"], _LEAST) for each in multi])
    saved = t_interval([their["shortfall"] - our["shortfall"] for our, their in zip(multi, one, strict=True)])
    return {
        f"multi-phase follows at least {MIN_FOLLOWING}": _above(followed, MIN_FOLLOWING),
        f"multi-phase keeps at least {MIN_KEPT} of what it follows with its LoRA left in": _above(left, MIN_KEPT),
        "multi-phase falls less short of look and control together than one-phase": _above(saved, 0),
    }


def _above(interval: Interval, least: float) -> bool:
    return interval.low is not None and interval.low >= least


def _base(trial: Trial, world: World, seed: int, folder: str) -> Base:
    return Base(seed=seed, world=world, device=trial.device, folder=folder)


def _steered(trial: Trial, world: World, folder: str, arm: str, seed: int, rate: float) -> Steered:
    steps = steps_of(world)[arm]
    return Steered(
        arm=arm, seed=seed, world=world, learning_rate=rate, num_steps=steps, device=trial.device, folder=folder
    )


def _budget(world: World, num_tuning_seeds: int) -> str:
    (look, moves), (together,) = (steps_of(world)[arm] for arm in (MULTI, ONE))
    costs = phase_flops(world)
    multi, one = look * costs[0] + moves * costs[1], together * costs[2]
    clips = f"{world.num_clips} clips of {world.num_frames}x{world.side_px}x{world.side_px}"
    return (
        f"{world.base_steps} steps of phase 0 on {clips}, shared; then on {world.num_clips} clips of the game, "
        f"{world.batch_size} a step, multi-phase {look} + {moves} steps ({multi / 1e9:.0f} GFLOPs) and one-phase "
        f"{together} steps ({one / 1e9:.0f} GFLOPs), each at the best of {len(world.learning_rates[0][1])} learning "
        f"rates on {num_tuning_seeds} tuning seed(s); the LoRA and the split of multi-phase's steps were shaped by "
        "hand on the same seeds, and one-phase has nothing of that kind to shape"
    )


def _details(
    world: World,
    seeds: Sequence[int],
    tuned: Mapping[str, tuning.Tuned],
    figures: Mapping[str, Sequence[Mapping[str, float]]],
) -> dict[str, Any]:
    """What the row rests on: means over seeds beside real footage, and how closely each arm follows."""
    multi, one = figures[MULTI], figures[ONE]
    table = {
        "multi-phase": _means(multi),
        "one-phase": _means(one),
        "multi-phase, LoRA left in": _means(multi, "lora_kept_"),
        "base, told no actions": _means(figures[BASE]),
        "real open world": real_figures(world, OPEN_WORLD, seeds[0]),
        "real game": real_figures(world, GAME, seeds[0]),
    }
    return {
        "open_world_prompts": {label: {name: line[name] for name in _COLUMNS} for label, line in table.items()},
        "tuning": tuning.table(tuned),
        "following of multi-phase less that of one-phase: mean, low, high": difference(multi, one, "following"),
        "shortfall of one-phase less that of multi-phase: mean, low, high": difference(one, multi, "shortfall"),
        "takeover of each seed, multi-phase": [each["takeover"] for each in multi],
        "takeover of each seed, one-phase": [each["takeover"] for each in one],
        "following of each seed, multi-phase": [each["following"] for each in multi],
        "following of each seed, one-phase": [each["following"] for each in one],
    }


def _means(figures: Sequence[Mapping[str, float]], prefix: str = "") -> dict[str, float]:
    return {name: float(np.mean([each[prefix + name] for each in figures])) for name in _COLUMNS}


def _draw(trial: Trial, world: World, arms: Mapping[str, Outcome]) -> None:
    """Films of the first seed by the same prompts, commands and noise, below the real ones of these commands."""
    real, game = (shown(footage(world.shoot(style, 1), trial.seeds[0]).x0) for style in (OPEN_WORLD, GAME))
    rows = {"real open world": real, "multi-phase": arms[MULTI].films, "one-phase": arms[ONE].films}
    rows |= {"real game": game, "base": arms[BASE].films}
    sheet = {label: list(films.values()) for label, films in rows.items()}
    pictures.sheet(sheet, trial.pictures / "films.png", zoom=3)
