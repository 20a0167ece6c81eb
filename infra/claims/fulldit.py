"""fulldit_composes: does a model that met conditions one at a time follow several of them together?

FullDiT (arXiv 2503.19907) puts all conditions into one sequence with the video, under full self-attention; a model that
was never given two of them together is said to compose them. The peer is what it replaces: a ControlNet for each
condition over the same model, frozen, added together.

Both arms begin with the same model of text alone, a base for each seed. Then they meet the same shots (see
:mod:`wall_shots`) with the same noise, each shot with one of camera, depth and element, for as many FLOPs, counted by
torch forwards and backwards: a step of three adapters costs a little less, so they have more. Each arm is taken at the
best of three learning rates, by its own loss on a tuning seed. Judged by the averaged weights, given all pairs of
conditions and all three, on held-out shots at fixed draws of time and noise.

Rule, set before the reported seeds were run: the effect is the share of its own loss with text alone that a model saves
when it is given several conditions together (``saved`` of :func:`conditioning.judged`), one sequence less adapters.
That the one model's text alone also gets better does not count. It presupposes that there is composition. In every
seed the one model's loss given all three is below that given any one, its films follow each of the three better than
with text alone, and films that are given several follow at least MIN_KEPT as well as films that are given one.

The row speaks of loss. How well films follow what they are given, read from pixels, is on the page for both arms; on
the tuning seed adapters' films followed as well as those of one sequence, or better. The two measures part where
conditions overlap: a sum says twice what two of them tell, which raises the loss, while a film that is pushed too hard,
as by guidance, follows no worse. What each condition saves alone is on the page too: a model that learns each of them
better saves more with all of them, however they are composed.
"""

import dataclasses
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

import pictures
from conditioning import (
    ADAPTERS,
    ONE_SEQUENCE,
    SINGLES,
    TEXT,
    TOGETHER,
    TRIPLE,
    Base,
    Conditioned,
    Setup,
    figure,
    mean,
    step_flops,
    steps_of,
)
from findings import Finding, Trial, t_interval
from runs import Outcome, lowest
from wall_shots import KINDS

MIN_KEPT = 0.8
LAPTOP = Setup(
    num_shots=3000,
    num_held_out=96,
    num_draws=8,
    num_frames=4,
    side_px=16,
    patch_size=(4, 4, 4),
    num_layers=4,
    num_heads=3,
    head_dim=16,
    adapter_layers=2,
    base_steps=1000,
    base_learning_rate=6e-3,
    num_steps=1000,
    batch_per_kind=11,
    learning_rates=(3e-3, 6e-3, 1.2e-2),
    adapter_learning_rates=(7.5e-4, 1.5e-3, 3e-3),
    time_shift=3.0,
    sampler_steps=16,
)
GPU = dataclasses.replace(
    LAPTOP,
    num_shots=20000,
    num_held_out=256,
    num_frames=8,
    side_px=32,
    patch_size=(2, 4, 4),
    num_layers=8,
    num_heads=4,
    head_dim=64,
    adapter_layers=4,
    base_steps=6000,
    base_learning_rate=1e-3,
    num_steps=6000,
    batch_per_kind=32,
    learning_rates=(5e-4, 1e-3, 2e-3),
    adapter_learning_rates=(1.25e-4, 2.5e-4, 5e-4),
    sampler_steps=32,
)
SHORT = dataclasses.replace(
    LAPTOP,
    num_shots=18,
    num_held_out=8,
    num_draws=1,
    base_steps=3,
    num_steps=3,
    batch_per_kind=3,
    learning_rates=LAPTOP.learning_rates[:2],
    adapter_learning_rates=LAPTOP.adapter_learning_rates[:2],
    sampler_steps=2,
)


def study(trial: Trial) -> Finding:
    """The row ``fulldit_composes``."""
    setup = SHORT if trial.size == "short" else GPU if trial.profile == "gpu" else LAPTOP
    tuning = trial.tuning_seeds[:1]
    with tempfile.TemporaryDirectory(prefix="fulldit-") as folder:
        trial.runs([_base(trial, setup, seed, folder) for seed in (*tuning, *trial.seeds)])
        rates = {arm: _tuned(trial, setup, arm, tuning, folder) for arm in (ONE_SEQUENCE, ADAPTERS)}
        tasks = [_run(trial, setup, arm, seed, rate, folder) for arm, rate in rates.items() for seed in trial.seeds]
        done = iter(trial.runs(tasks))
        outcomes = {arm: [next(done) for _ in trial.seeds] for arm in rates}
    _draw(trial, {arm: found[0] for arm, found in outcomes.items()})
    figures = {arm: [each.figures for each in found] for arm, found in outcomes.items()}
    pairs = zip(trial.seeds, figures[ONE_SEQUENCE], figures[ADAPTERS], strict=True)
    return Finding(
        claim="Conditions met one at a time save more loss when given together in one sequence than by added adapters.",
        unit="loss saved by conditions given together, in % of that with text alone: one sequence less adapters",
        effects={seed: 100 * (ours["saved"] - theirs["saved"]) for seed, ours, theirs in pairs},
        presupposes=presupposed(figures[ONE_SEQUENCE]),
        budget=_budget(setup, tuning),
        details=_details(setup, rates, figures),
    )


def presupposed(ours: Sequence[Mapping[str, float]]) -> dict[str, bool]:
    """What makes the effect one of composition; of the figures of the one sequence for each seed."""
    lower = all(each[figure("loss", TRIPLE)] < each[figure("loss", one)] for each in ours for one in SINGLES)
    better = all(each[figure(kind, TRIPLE)] > each[figure(kind, TEXT)] for each in ours for kind in KINDS)
    kept = all(each["followed"] >= MIN_KEPT * each["followed_alone"] for each in ours)
    return {
        "in every seed one sequence's loss given all three is below that given any one": lower,
        "its films of all three follow each better than with text alone": better,
        f"and films of several follow at least {MIN_KEPT} as well as films of one": kept,
    }


def _base(trial: Trial, setup: Setup, seed: int, folder: str) -> Base:
    return Base(seed=seed, setup=setup, device=trial.device, folder=folder)


def _run(trial: Trial, setup: Setup, arm: str, seed: int, rate: float, folder: str) -> Conditioned:
    return Conditioned(
        arm=arm,
        seed=seed,
        setup=setup,
        learning_rate=rate,
        num_steps=steps_of(setup)[arm],
        device=trial.device,
        folder=folder,
    )


def _tuned(trial: Trial, setup: Setup, arm: str, seeds: Sequence[int], folder: str) -> float:
    choices = {rate: [_run(trial, setup, arm, seed, rate, folder) for seed in seeds] for rate in setup.rates(arm)}
    return lowest(trial.runs, choices, "loss_together")


def _draw(trial: Trial, first: Mapping[str, Outcome]) -> None:
    """The first seed's films: what is true, what text alone gives, and what all three conditions give."""
    every = "_".join(TRIPLE)
    lines = {"truth": (ONE_SEQUENCE, "truth"), "text alone": (ONE_SEQUENCE, "text")}
    lines |= {f"all three, {arm.replace('_', ' ')}": (arm, every) for arm in first}
    films = {
        label: [film for key, film in first[arm].films.items() if key.rpartition(" ")[0] == name]
        for label, (arm, name) in lines.items()
    }
    pictures.sheet(films, trial.pictures / "films.png", zoom=3)


def _budget(setup: Setup, tuning: Sequence[int]) -> str:
    size, steps = f"{setup.num_frames}x{setup.side_px}x{setup.side_px}", steps_of(setup)
    return (
        f"each arm: the best of {len(setup.learning_rates)} learning rates on {len(tuning)} tuning seed(s); a base of "
        f"{setup.base_steps} steps of {setup.batch_size} shots of {size} for both, then as many FLOPs for each: "
        f"{steps[ONE_SEQUENCE]} steps of {setup.batch_size} shots, a third with each condition, or {steps[ADAPTERS]} "
        f"steps of {setup.batch_per_kind} for each adapter; judged on {setup.num_held_out} held-out shots"
    )


def _details(
    setup: Setup, rates: Mapping[str, float], figures: Mapping[str, Sequence[Mapping[str, float]]]
) -> dict[str, Any]:
    def average(arm: str, name: str) -> float:
        return mean(each[name] for each in figures[arm])

    sets = {(" + ".join(given) or "text alone"): given for given in (TEXT, *SINGLES, *TOGETHER)}
    losses = {
        label: {name.replace("_", " "): average(name, figure("loss", given)) for name in rates}
        for label, given in sets.items()
    }
    followed = {
        label: {
            f"{kind}, {name.replace('_', ' ')}": average(name, figure(kind, given)) for kind in KINDS for name in rates
        }
        for label, given in sets.items()
    }
    arms = {
        arm: {
            "learning rate": rate,
            "steps": steps_of(setup)[arm],
            "GFLOPs a step": cost / 1e9,
            "loss saved by several, %": 100 * average(arm, "saved"),
            "loss saved by one, %": 100 * average(arm, "saved_alone"),
            "films follow, several": average(arm, "followed"),
            "films follow, one": average(arm, "followed_alone"),
            "levels off the true film, all three": average(arm, figure("levels_off", TRIPLE)),
        }
        for (arm, rate), cost in zip(rates.items(), step_flops(setup), strict=True)
    }
    edge = [arm for arm, rate in rates.items() if rate in (setup.rates(arm)[0], setup.rates(arm)[-1])]
    films = t_interval(
        [
            our["followed"] - their["followed"]
            for our, their in zip(figures[ONE_SEQUENCE], figures[ADAPTERS], strict=True)
        ]
    )
    return {
        "arms": arms,
        "loss, given": losses,
        "films follow (1 as the true, 0 as those of other shots), given": followed,
        "films of several follow, one sequence less adapters: mean, low, high": [films.mean, films.low, films.high],
        "learning rates, one sequence": list(setup.learning_rates),
        "learning rates, adapters": list(setup.adapter_learning_rates),
        "arms whose best learning rate is the grid's first or last": edge or "none",
    }
