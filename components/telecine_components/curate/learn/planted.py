"""The quality of films that were spoilt on purpose, from the truth beside them."""

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from telecine.errors import InputError
from telecine_components.curate.suitability.model import HIGHEST, LOWEST

_WHAT = "curate.learn: truth_uri must be the folder of backlot.shoot that curate.split read"


def planted_quality(severities: Iterable[float]) -> float:
    """1 + 4 times the product of (1 - severity): 5 for a clean film, 1 for one that anyone would throw away.

    Damages multiply, so that faults which are each too mild to reject a film may do so together.
    """
    return LOWEST + (HIGHEST - LOWEST) * math.prod(1 - severity for severity in severities)


def planted_qualities(sources: Iterable[str], folder: Path) -> dict[str, float]:
    """Quality by source, of those that have their truth beside them.

    Raises:
        InputError: none has, or a truth does not say how much each defect spoils.
    """
    names = sorted(set(sources))
    found = {name: planted_quality(_severities(truth)) for name in names if (truth := _truth(folder / name)).is_file()}
    if not found:
        raise InputError(f"{_WHAT}; no film of clips_uri has its .json there, such as {names[:1]}")
    return found


def _truth(film: Path) -> Path:
    return film.with_suffix(".json")


def _severities(truth: Path) -> list[float]:
    try:
        found: Any = json.loads(truth.read_text(encoding="utf-8"))
        severities = [defect["severity"] for defect in found["defects"]]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"{_WHAT}; {truth.name} gives no defects with kind and severity: {error!r}") from None
    for severity in severities:
        if type(severity) not in (int, float) or not 0 < severity <= 1:
            raise InputError(f"{_WHAT}; severities must be numbers in (0, 1], {truth.name} gives {severity!r:.60}")
    return severities
