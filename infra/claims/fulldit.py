"""fulldit_composes: does a model that met conditions one at a time follow several of them together?

FullDiT (arXiv 2503.19907) puts all conditions into one sequence with the video, under full self-attention; a model that
was never given two of them together is said to compose them. The peer is what it replaces: a ControlNet for each
condition over the same model, frozen, added together.

Both arms begin with the same model of text alone, a base for each seed. Then they meet the same shots (see
:mod:`wall_shots`) with the same noise, each shot with one of camera, depth and element, for as many FLOPs, counted by
torch forwards and backwards: a step of three adapters costs a little less, so they have more. Each arm is taken at the
best of three learning rates, by what the row judges, on a tuning seed. Judged by the averaged weights: how well films
that are given a pair of conditions, or all three, follow each of them, read from pixels (``followed`` of
:func:`conditioning.judged`).

Rule, set before the reported seeds were run: the effect is how well one sequence's films follow what they are given
together, less how well adapters' do. It presupposes that there is composition. In every seed the one model's loss
given all three is below that given any one, its films follow each of the three better than with text alone, and films
that are given several follow at least MIN_KEPT as well as films that are given one.

The share of its own loss with text alone that a model saves when it is given several conditions is told beside the row
and decides nothing. On tuning seeds one sequence saved more, while adapters' films followed as well or better, and a
draft of this study had made the loss its effect after that was seen. The two part where conditions overlap: a sum says
twice what two of them tell, which raises the loss, while a film that is pushed too hard, as by guidance, follows no
worse. It also favours the arm that learns each condition better, however they are composed.
"""

import dataclasses
import functools
import tempfile
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

import pictures
import tuning
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
    step_flops,
    steps_of,
)
from findings import Finding, Trial, difference
from runs import Outcome
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
    tuning_seeds = trial.tuning_seeds[:1]
    with tempfile.TemporaryDirectory(prefix="fulldit-") as folder:
        make = functools.partial(_run, trial, setup, folder)
        trial.runs([_base(trial, setup, seed, folder) for seed in (*tuning_seeds, *trial.seeds)])
        rates = {arm: setup.rates(arm) for arm in (ONE_SEQUENCE, ADAPTERS)}
        tuned = tuning.tuned(trial.runs, make, rates, tuning_seeds, "missed")
        best = {arm: each.best for arm, each in tuned.items()}
        outcomes = tuning.reported(trial.runs, make, best, trial.seeds)
    _draw(trial, {arm: found[0] for arm, found in outcomes.items()})
    figures = {arm: [each.figures for each in found] for arm, found in outcomes.items()}
    pairs = zip(trial.seeds, figures[ONE_SEQUENCE], figures[ADAPTERS], strict=True)
    return Finding(
        claim="Films follow several conditions, met one at a time, better in one sequence than by added adapters.",
        unit="how films follow several conditions (1 as true films, 0 as others): one sequence less adapters",
        effects={seed: ours["followed"] - theirs["followed"] for seed, ours, theirs in pairs},
        presupposes=presupposed(figures[ONE_SEQUENCE]),
        budget=_budget(setup, len(tuning_seeds)),
        details=_details(setup, tuned, figures),
    )


def presupposed(ours: Sequence[Mapping[str, float]]) -> dict[str, bool]:
    """What makes the effect one of composition; of the figures of the one sequence for each seed."""
    lower = all(each[figure("loss", TRIPLE)] < each[figure("loss", one)] for each in ours for one in SINGLES)
    better = all(each[figure(kind, TRIPLE)] > each[figure(kind, TEXT)] for each in ours for kind in KINDS)
    kept = all(each["followed"] >= MIN_KEPT * each["followed_alone"] for each in ours)
    return {
        "in every seed one sequence's loss given all three is below that given any one": lower,
        "in every seed its films of all three follow each better than with text alone": better,
        f"in every seed its films of several follow at least {MIN_KEPT} as well as films of one": kept,
    }


def _base(trial: Trial, setup: Setup, seed: int, folder: str) -> Base:
    return Base(seed=seed, setup=setup, device=trial.device, folder=folder)


def _run(trial: Trial, setup: Setup, folder: str, arm: str, seed: int, rate: float) -> Conditioned:
    return Conditioned(
        arm=arm,
        seed=seed,
        setup=setup,
        learning_rate=rate,
        num_steps=steps_of(setup)[arm],
        device=trial.device,
        folder=folder,
    )


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


def _budget(setup: Setup, num_tuning_seeds: int) -> str:
    size, steps = f"{setup.num_frames}x{setup.side_px}x{setup.side_px}", steps_of(setup)
    return (
        f"each arm: the best of {len(setup.learning_rates)} learning rates on {num_tuning_seeds} tuning seed(s); a "
        f"base of {setup.base_steps} steps of {setup.batch_size} shots of {size} for both, then as many FLOPs for "
        f"each: {steps[ONE_SEQUENCE]} steps of {setup.batch_size} shots, a third with each condition, or "
        f"{steps[ADAPTERS]} steps of {setup.batch_per_kind} for each adapter; {setup.num_held_out} held-out shots"
    )


def _details(
    setup: Setup, tuned: Mapping[str, tuning.Tuned], figures: Mapping[str, Sequence[Mapping[str, float]]]
) -> dict[str, Any]:
    def average(arm: str, name: str) -> float:
        return fmean(each[name] for each in figures[arm])

    sets = {(" + ".join(given) or "text alone"): given for given in (TEXT, *SINGLES, *TOGETHER)}
    losses = {
        label: {name.replace("_", " "): average(name, figure("loss", given)) for name in tuned}
        for label, given in sets.items()
    }
    followed = {
        label: {
            f"{kind}, {name.replace('_', ' ')}": average(name, figure(kind, given)) for kind in KINDS for name in tuned
        }
        for label, given in sets.items()
    }
    arms = {
        arm: {
            "steps": steps_of(setup)[arm],
            "GFLOPs a step": cost / 1e9,
            "loss saved by several, %": 100 * average(arm, "saved"),
            "loss saved by one, %": 100 * average(arm, "saved_alone"),
            "films follow, several": average(arm, "followed"),
            "films follow, one": average(arm, "followed_alone"),
            "levels off the true film, all three": average(arm, figure("levels_off", TRIPLE)),
        }
        for arm, cost in zip(tuned, step_flops(setup), strict=True)
    }
    return {
        "arms": arms,
        "loss, given": losses,
        "films follow (1 as the true, 0 as those of other shots), given": followed,
        "share of loss saved by several, one sequence less adapters: mean, low, high": difference(
            figures[ONE_SEQUENCE], figures[ADAPTERS], "saved"
        ),
        "tuning": tuning.table(tuned),
    }
