"""A score of fitness for training in place of many thresholds, like Koala-36M's VTSS (arXiv 2410.08260, section 4.3).

Each measure that goes beyond what is usual among good clips, towards the end that is known to be bad, takes a share of
the score away, and what they leave is multiplied:

    score = worst + (best - worst) * product over measures of (1 - RUINED * fault) ** strength

where fault is 0 up to the measure's knee and 1 at the value that ruins a clip, in a straight line between. So a measure
that gets worse never raises the score, several mild faults add up, and :meth:`Model.costs` says what took how much.
Every constant is in the model: a clip has the same score alone as in any batch, unlike with the paper's released code,
which standardises over the set.
"""

import dataclasses
import json
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from telecine.errors import InputError

LOWEST, HIGHEST = 1.0, 5.0
"""Ends of the scale on which people rate and the model scores."""
THRESHOLD = 2.5
"""Clips of a lower score are unsuitable: where the two modes of the paper's scores meet."""
RUINED = 0.95
"""Share of the score that a ruined measure of strength 1 takes away."""
FORMAT = "telecine suitability 1"

Row = Mapping[str, Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Penalty:
    """What one measure may cost.

    Attributes:
        measure: a column of the clip manifest; one that is bad at both ends has two penalties.
        knee: up to here it costs nothing.
        ruin: from here on it costs all that it can; below the knee where less is worse.
        strength: 0 for what does not matter.
    """

    measure: str
    knee: float
    ruin: float
    strength: float

    def fault(self, value: float) -> float:
        """How far a value is on the way from the knee to ruin, 0 .. 1."""
        return min(1.0, max(0.0, (value - self.knee) / (self.ruin - self.knee)))

    def cost(self, row: Row) -> float:
        """How much it takes away, as a logarithm; KeyError if the row lacks the measure."""
        return -self.strength * math.log1p(-RUINED * self.fault(row[self.measure]))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Model:
    """What was learned.

    Attributes:
        truth: what it was fitted to: "planted", "ratings", or both.
        worst, best: the score of a clip that lost everything, and of one without any fault.
        metrics: how well it does on sources that it was not fitted to.
    """

    penalties: tuple[Penalty, ...]
    worst: float
    best: float
    truth: str
    metrics: Mapping[str, float] = dataclasses.field(default_factory=dict)

    @property
    def measures(self) -> tuple[str, ...]:
        """Columns that a row must have."""
        return tuple(dict.fromkeys(penalty.measure for penalty in self.penalties))

    def missing(self, row: Row) -> list[str]:
        """Measures that a row lacks or has no number for."""
        return [name for name in self.measures if row.get(name) is None or not math.isfinite(row[name])]

    def score(self, row: Row) -> float:
        """Suitability of a clip, 1 bad .. 5 good.

        Raises:
            KeyError: the row lacks a measure.
        """
        kept = math.exp(-math.fsum(penalty.cost(row) for penalty in self.penalties))
        return self.worst + (self.best - self.worst) * kept

    def costs(self, row: Row) -> dict[str, float]:
        """What each measure takes away, as a share of what is left by the others: 0 nothing .. 1 everything."""
        shares = dict.fromkeys(self.measures, 0.0)
        for penalty in self.penalties:
            shares[penalty.measure] += penalty.cost(row)
        return {name: 1 - math.exp(-cost) for name, cost in shares.items() if cost}

    def to_json(self) -> str:
        """The model as text; equal models give equal text."""
        return json.dumps({"format": FORMAT, **dataclasses.asdict(self)}, indent=1, sort_keys=True) + "\n"


def from_json(text: str, *, owner: str, known: Sequence[str]) -> Model:
    """The model that a text holds.

    Args:
        owner: opens error messages.
        known: columns that a manifest has.

    Raises:
        InputError: it holds none, or one that asks for measures that there are not.
    """
    what = f"{owner}: suitability_uri must be a model that curate.learn wrote"
    try:
        values = json.loads(text)
        if values.pop("format") != FORMAT:
            raise ValueError("another format")
        penalties = tuple(Penalty(**each) for each in values.pop("penalties"))
        model = Model(penalties=penalties, **values)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise InputError(f"{what} (JSON, {FORMAT!r}): {error}") from None
    if unknown := [each.measure for each in penalties if each.measure not in known]:
        raise InputError(f"{what} of this version; it needs the measures {unknown}, which the manifest does not have")
    if wrong := [each for each in penalties if not _is_sound(each)]:
        raise InputError(f"{what}; got {wrong[0]!r:.200}, expected a ruin apart from the knee and a strength from 0")
    ends = (model.worst, model.best)
    if not (all(map(_is_number, ends)) and LOWEST <= model.worst <= model.best <= HIGHEST):
        told = " and ".join(f"{end!r:.60}" for end in ends)
        raise InputError(f"{what}; expected {LOWEST:g} <= worst <= best <= {HIGHEST:g}, got {told}")
    return model


def _is_sound(penalty: Penalty) -> bool:
    numbers = (penalty.knee, penalty.ruin, penalty.strength)
    return all(map(_is_number, numbers)) and penalty.knee != penalty.ruin and penalty.strength >= 0


def _is_number(value: object) -> bool:
    """Whether a value of JSON, whose integers have no end, is one that arithmetic takes."""
    return isinstance(value, int | float) and -sys.float_info.max <= value <= sys.float_info.max


def load(path: Path, *, owner: str, known: Sequence[str]) -> Model:
    """Read a model's file; raises :class:`InputError` as :func:`from_json` does."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{owner}: suitability_uri must be a model's file, got {path.name}: {error}") from None
    return from_json(text, owner=owner, known=known)
