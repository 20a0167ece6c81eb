"""``vtss_beats_thresholds``: one learned score tells good clips from bad ones better than thresholds on every measure.

Koala-36M (arXiv 2410.08260, section 4.3) replaced thresholds by one training suitability score (VTSS). Said before
anything was measured:

* A film is a Backlot clip, written as mp4 and measured by curate.split's pass. It has none to four defects of
  different kinds, each number as often as the other, each of a severity drawn evenly from 0.05 to 0.6, so that none
  alone makes it bad. They are applied in the order in which footage meets them.
* Its quality is ``planted_quality`` of the severities, and it is good from the paper's threshold of 2.5 on.
* Both arms see the same training films, the same measures and which end of each is bad. The score is fitted to quality,
  and its threshold stays 2.5. The thresholds are fitted to what counts, F1 of the good films: from several starts, one
  after the other is set to the best of many quantiles, or switched off, until none gets better.
* The effect is F1 on the test films of the score, less that of all thresholds together.

Beside it stands how well the score ranks films spoilt by one kind of defect that no training film of its model had.
"""

import dataclasses
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from findings import Finding, Trial, t_interval
from runs import Outcome
from telecine_components.curate.learn.judging import spearman
from telecine_components.curate.learn.planted import planted_quality
from telecine_components.curate.split.analysis import analyse
from telecine_components.curate.suitability.fit import DIRECTIONS, fit
from telecine_components.curate.suitability.model import THRESHOLD
from telecine_components.media.encode import write_mp4
from telecine_models.backlot import clip
from telecine_models.backlot.defects import GRADED_DEFECTS, GradedDefect, spoil
from thresholds import f1, tuned

_TRAIN, _TEST, _RANK = range(3)
_PER_SEED = 100_000
_MAX_DEFECTS = 4
_SEVERITIES = (0.05, 0.6)
_MET_IN_ORDER: tuple[GradedDefect, ...] = (
    *("shake", "blur", "overexposure", "underexposure", "noise"),
    *("freeze", "blockiness", "text", "logo"),
)
"""First the camera, then the lens, the sensor and the encoder, and last who edits."""

Defects = tuple[tuple[GradedDefect, float], ...]
Row = Mapping[str, Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class World:
    """How many films there are of each use, and how large.

    Attributes:
        num_ranked: films of each kind of defect that are ranked, their severities spread evenly over 0 .. 1.
        num_clean: clean films ranked among those of each kind.
        num_starts: of the search for thresholds.
    """

    num_train: int
    num_test: int
    num_ranked: int
    num_clean: int
    num_frames: int
    width_px: int
    height_px: int
    fps: int = 12
    num_starts: int = 8


LAPTOP = World(num_train=170, num_test=300, num_ranked=12, num_clean=4, num_frames=24, width_px=160, height_px=120)
GPU = dataclasses.replace(LAPTOP, num_train=1000, num_test=1000, num_ranked=50, num_clean=15, num_starts=20)
SHORT = World(
    num_train=20, num_test=10, num_ranked=1, num_clean=1, num_frames=8, width_px=96, height_px=72, num_starts=2
)


def study(trial: Trial) -> Finding:
    """The claim; see the module."""
    world = SHORT if trial.size == "short" else {"laptop": LAPTOP, "gpu": GPU}[trial.profile]
    found = [outcome.figures for outcome in trial.runs([Compared(seed=seed, world=world) for seed in trial.seeds])]
    effects = [each["score_f1"] - each["thresholds_f1"] for each in found]
    above_all = np.mean([each["thresholds_f1"] - each["all_f1"] for each in found])
    names = ("f1", "precision", "recall", "train_f1")
    arms = {arm: {name: _mean(found, f"{arm}_{name}") for name in names} for arm in ("score", "thresholds", "all")}
    held_out = {kind: _ranked(found, kind) for kind in (*GRADED_DEFECTS, "mean")}
    return Finding(
        claim="One learned score finds the good clips better than thresholds on every measure, tuned together",
        unit="F1 of the good clips, score less thresholds",
        effects=dict(zip(trial.seeds, effects, strict=True)),
        presupposes={"thresholds do better than to keep everything": bool(above_all > 0)},
        budget=f"{world.num_train} films to fit, {world.num_test} to judge, a seed; thresholds from "
        f"{world.num_starts} starts, the score's threshold as published",
        details={"share_of_good_films": _mean(found, "good"), "arm": arms, "kind held out": held_out},
    )


def _mean(found: Sequence[Mapping[str, float]], name: str) -> float:
    return float(np.mean([each[name] for each in found]))


def _ranked(found: Sequence[Mapping[str, float]], kind: str) -> dict[str, float | None]:
    interval = t_interval([each[f"rank_{kind}"] for each in found])
    return {"rank correlation": interval.mean, "low": interval.low, "high": interval.high}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Compared:
    """Both arms on the films of one seed, and kinds of defect that are held out."""

    arm: str = "both"
    seed: int
    world: World

    def __call__(self) -> Outcome:
        """Film, measure, fit and judge."""
        world, seed = self.world, self.seed
        train = [_drawn(seed, _TRAIN, index, world) for index in range(world.num_train)]
        test = [_drawn(seed, _TEST, index, world) for index in range(world.num_test)]
        return Outcome(figures=_compared(train, test, world, seed) | _held_out(train, world, seed))


@dataclasses.dataclass(frozen=True, eq=False)
class Film:
    """What was done to a film, and what was measured of it."""

    defects: Defects
    row: Row

    @property
    def quality(self) -> float:
        """Planted quality, 1 .. 5."""
        return planted_quality(severity for _, severity in self.defects)


def _compared(train: Sequence[Film], test: Sequence[Film], world: World, seed: int) -> dict[str, float]:
    """F1, precision and recall of the good films for the score, the thresholds, and for keeping everything."""
    rows, quality = [film.row for film in train], _qualities(train)
    model = fit(rows, quality, truth="planted")
    thresholds = tuned(rows, quality >= THRESHOLD, DIRECTIONS, num_starts=world.num_starts, seed=seed)
    figures = {}
    for split, films in (("train_", train), ("", test)):
        good = _qualities(films) >= THRESHOLD
        kept = {
            "score": np.array([model.score(film.row) >= THRESHOLD for film in films]),
            "thresholds": thresholds.keep([film.row for film in films]),
            "all": np.ones(len(films), np.bool_),
        }
        figures[f"{split}good"] = float(good.mean())
        for arm, passed in kept.items():
            right = int((passed & good).sum())
            figures[f"{arm}_{split}f1"] = f1(passed, good)
            figures[f"{arm}_{split}precision"] = right / max(1, int(passed.sum()))
            figures[f"{arm}_{split}recall"] = right / max(1, int(good.sum()))
    return figures


def _held_out(train: Sequence[Film], world: World, seed: int) -> dict[str, float]:
    """Rank correlation of score and quality, by kind, each by a model of the films that do not have that kind."""
    clean = [_filmed((), seed, _RANK, index, world) for index in range(world.num_clean)]
    found = {}
    for place, kind in enumerate(GRADED_DEFECTS):
        others = [film for film in train if kind not in dict(film.defects)]
        model = fit([film.row for film in others], _qualities(others), truth="planted")
        first = world.num_clean + place * world.num_ranked
        severities = [(step + 1) / world.num_ranked for step in range(world.num_ranked)]
        ranked = [_filmed(((kind, each),), seed, _RANK, first + step, world) for step, each in enumerate(severities)]
        scores = np.array([model.score(film.row) for film in (*clean, *ranked)])
        found[f"rank_{kind}"] = spearman(scores, _qualities([*clean, *ranked]))
    return found | {"rank_mean": float(np.mean(list(found.values())))}


def _qualities(films: Sequence[Film]) -> npt.NDArray[np.float64]:
    return np.array([film.quality for film in films])


def _drawn(seed: int, split: int, index: int, world: World) -> Film:
    rng = np.random.default_rng((seed, split, index))
    # As many of each number, so that no seed is luckier than another.
    number = index % (_MAX_DEFECTS + 1)
    kinds = [str(kind) for kind in rng.permutation(_MET_IN_ORDER)]
    # A film is not too bright and too dark at once.
    kinds.remove(str(rng.choice(["overexposure", "underexposure"])))
    chosen = {kind: float(rng.uniform(*_SEVERITIES)) for kind in kinds[:number]}
    return _filmed(tuple((kind, chosen[kind]) for kind in _MET_IN_ORDER if kind in chosen), seed, split, index, world)


def scene_of(seed: int, split: int, index: int) -> int:
    """Backlot's seed of a film; no other film has it."""
    return (3 * seed + split) * _PER_SEED + index


def _filmed(defects: Defects, seed: int, split: int, index: int, world: World) -> Film:
    """Shoot, spoil, encode, and measure as curate.split does; every film has a scene of its own."""
    number = scene_of(seed, split, index)
    frames = clip(
        number,
        num_frames=world.num_frames,
        fps=world.fps,
        width_px=world.width_px,
        height_px=world.height_px,
        style=None,
    ).frames
    for kind, severity in defects:
        frames = spoil(frames, kind, severity, number)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "film.mp4"
        write_mp4(path, frames, world.fps)
        return Film(defects, analyse(path, detector="telecine").meter.clip(0, len(frames)))
