"""Fits the weights of the shot detector on the tuning films: ``python infra/bench/shot_fit.py CORPUS``.

Twice as many practice films are drawn from the sources of the tuning films, with other seeds.

Logistic regression, strongly regularised, on what :mod:`telecine_components.media.shots` sees of each pair and each
stretch. ``--check`` leaves out a fifth of the films at a time and prints how right the detector is on those. Otherwise
``media/shots/weights.py`` is written anew.
"""

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import shot_corpus
import shot_plan
import shot_score
from shot_corpus import Film
from telecine_components.media.decode import open_video
from telecine_components.media.glance import Glance, glance_of
from telecine_components.media.planes import planes_of
from telecine_components.media.shots import cuts, mixtures, weights
from telecine_components.media.shots.finder import ShotFinder
from telecine_components.media.shots.products import products_of, sketches_of

CUT_STRENGTH, MIXTURE_STRENGTH = 1.0, 0.3
CUT_ODDS, MIXTURE_ODDS = -1.1, -1.0
"""Log odds at which the fitted probabilities count as evidence; chosen by ``--check``."""
NUM_FOLDS = 5
NUM_PRACTICE_FILMS, PRACTICE_SEED = 60, 8
STEADY_SEED, STEADY_EFFECTS = 9, ("glide", "glide", "creep", "whip", "pan", "shake")
"""As many practice films again of cameras that move for whole shots."""
TARGET = Path(weights.__file__)
Floats = npt.NDArray[np.float64]


@dataclasses.dataclass(frozen=True, eq=False)
class Examples:
    """What one film gives to learn from: features by name and labels 0 or 1."""

    film: Film
    glances: list[Glance]
    cuts: dict[str, Floats]
    are_cuts: Floats
    mixtures: dict[str, Floats]
    are_mixtures: Floats


def examples_of(film: Film) -> Examples:
    """Look at a film."""
    with open_video(film.path) as video:
        glances = [glance_of(planes_of(frame), index, at) for index, (at, frame) in enumerate(video.frames())]
    products = products_of(sketches_of(glances))
    features, labels = cuts.cut_features(products), cut_labels(film)
    kept = (cuts.plausible(features)) & (labels >= 0)
    stretches = []
    for length in mixtures.LENGTHS:
        found = mixtures.mixtures(products, length)
        seen, marks = mixtures.mixture_features(products, found, length), mixture_labels(film, length)
        chosen = mixtures.plausible(found) & (marks >= 0)
        stretches.append(({name: values[chosen] for name, values in seen.items()}, marks[chosen]))
    return Examples(
        film,
        glances,
        {name: values[kept] for name, values in features.items()},
        labels[kept],
        {name: np.concatenate([seen[name] for seen, _ in stretches]) for name in stretches[0][0]},
        np.concatenate([marks for _, marks in stretches]),
    )


def cut_labels(film: Film) -> Floats:
    """1 for each pair that is a cut, 0 for those that are not, -1 where one should not learn."""
    labels = np.zeros(film.num_frames - 1)
    for truth in film.truths:
        if truth.kind in ("cut", "similar"):
            labels[truth.first] = 1
        elif truth.last - truth.first < 4:
            labels[max(0, truth.first - 1) : truth.last + 2] = -1
    for first, last in film.ignored:
        labels[first : last + 1] = -1
    return labels


def mixture_labels(film: Film, length: int) -> Floats:
    """1 for each stretch that is a transition nearly exactly, -1 if it is one roughly, 0 for others."""
    first = np.arange(film.num_frames - length)
    last, labels = first + length - 1, np.zeros(film.num_frames - length)
    for truth in film.truths:
        if truth.kind in ("dissolve", "fade"):
            common = np.minimum(last, truth.last) - np.maximum(first, truth.first) + 1
            either = np.maximum(last, truth.last) - np.minimum(first, truth.first) + 1
            labels[common / either > 0.4] = -1
            labels[common / either > 0.7] = 1
            if truth.last - truth.first > mixtures.LENGTHS[-1]:
                labels[common > 0] = -1
    for truth in film.truths:
        if truth.kind in ("cut", "similar"):
            labels[(first <= truth.first) & (truth.first <= last)] = 0
    for begin, end in film.ignored:
        labels[(last >= begin) & (first <= end)] = -1
    return labels


def fitted(films: Sequence[Examples]) -> dict[str, Any]:
    """The values of ``weights.py``."""
    values: dict[str, Any] = {}
    for what, strength, odds in (("cut", CUT_STRENGTH, CUT_ODDS), ("mixture", MIXTURE_STRENGTH, MIXTURE_ODDS)):
        names = list(getattr(films[0], f"{what}s"))
        seen = np.concatenate([np.stack([getattr(film, f"{what}s")[name] for name in names], 1) for film in films])
        labels = np.concatenate([getattr(film, f"are_{what}s") for film in films])
        model = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=4000)).fit(seen, labels)
        slopes = model[-1].coef_[0] / model[0].scale_
        values[f"{what.upper()}_BIAS"] = round(float(model[-1].intercept_[0] - slopes @ model[0].mean_) - odds, 4)
        values[f"{what.upper()}_WEIGHTS"] = {name: round(float(s), 4) for name, s in zip(names, slopes, strict=True)}
    return values


def found_pairs(film: Examples, values: dict[str, Any]) -> list[int]:
    """What the detector finds with these weights."""
    for module, what in ((cuts, "CUT"), (mixtures, "MIXTURE")):
        for name in (f"{what}_BIAS", f"{what}_WEIGHTS"):
            setattr(module, name, values[name])
    finder = ShotFinder()
    for glance in film.glances:
        finder.look_at(glance)
    return [(each.first + each.last) // 2 for each in finder.transitions()]


def check(films: Sequence[Examples]) -> None:
    """Print how right the detector is on films that its weights were not fitted on."""
    found: dict[str, list[int]] = {}
    order = np.random.default_rng(0).permutation(len(films))
    for fold in range(NUM_FOLDS):
        left_out = set(order[fold::NUM_FOLDS].tolist())
        values = fitted([film for number, film in enumerate(films) if number not in left_out])
        found |= {films[number].film.name: found_pairs(films[number], values) for number in left_out}
    for tolerance in (0, 1):
        print(tolerance, shot_score.summary([film.film for film in films], found, tolerance))


def written(values: dict[str, Any]) -> str:
    """The text of ``weights.py``."""
    lines = [
        '"""How much each observation speaks for a transition, in log odds; written by infra/bench/shot_fit.py."""',
        "",
    ]
    for name, value in values.items():
        if isinstance(value, dict):
            lines += [f"{name} = {{", *(f'    "{key}": {weight},' for key, weight in value.items()), "}"]
        else:
            lines.append(f"{name} = {value}")
    return "\n".join([*lines, ""])


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("corpus", type=Path, help="folder of the films; they are built there if they are missing")
    parser.add_argument("--check", action="store_true", help="cross-validate, and write nothing")
    parsed = parser.parse_args()
    practice = [shot_plan.medley("tuning", number, PRACTICE_SEED) for number in range(NUM_PRACTICE_FILMS)]
    practice += [
        shot_plan.medley("tuning", number, STEADY_SEED, STEADY_EFFECTS) for number in range(NUM_PRACTICE_FILMS)
    ]
    films = shot_corpus.build(parsed.corpus, "tuning") + [shot_corpus.medley(film, parsed.corpus) for film in practice]
    seen = [examples_of(film) for film in films]
    if parsed.check:
        check(seen)
    else:
        TARGET.write_text(written(fitted(seen)))


if __name__ == "__main__":
    main()
