"""Draws the manifest of the shot corpus: ``python infra/bench/shot_plan.py > infra/bench/shot_corpus.json``.

Which parts a film has, what happens in each, and how they are joined. The manifest in the repository is frozen: it was
drawn once, before any detector was tuned, and is not drawn again. Other seeds give other corpora for whoever wants one.
"""

import argparse
import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from shot_effects import PLAIN, STEADY, WIDE
from shot_material import SPANS

SOURCES = {"tuning": ("cosmos_30s", "carphone"), "test": ("bikes", "nasa_13013", "bigbuckbunny")}
FIRST_SEED = {"tuning": 10_000, "test": 20_000}
MEDLEYS = 60
FROZEN_SEED = 7
EFFECT_RATIO = 0.62
EFFECTS = (*WIDE, *PLAIN, "flash", "whip", "shake")
STEADY_FRAMES = (40, 100)
MIN_PURE_FRAMES = 12
DISSOLVE_FRAMES = (4, 6, 8, 12, 16, 20, 24)
JOINS = {"cut": 0.44, "similar": 0.10, "dissolve": 0.26, "fade": 0.20}
NATURAL: dict[str, list[dict[str, Any]]] = {
    "tuning": [
        {
            "source": "cosmos_30s",
            "transitions": [
                ["fade", 69, 94],
                ["fade", 149, 175],
                ["fade", 200, 259],
                ["cut", 285, 285],
                ["fade", 306, 347],
                ["cut", 355, 355],
                ["fade", 371, 428],
                ["fade", 442, 504],
                ["cut", 522, 522],
                ["cut", 572, 572],
                ["cut", 609, 609],
                ["fade", 623, 653],
            ],
            "ignored": [[0, 69], [701, 718]],
        },
        {"source": "carphone", "transitions": [], "ignored": []},
    ],
    "test": [
        {
            "source": source,
            "transitions": [["cut", pair, pair] for pair in (29, 75, 136, 186, 241)],
            "ignored": [],
        }
        for source in ("bikes", "scene_cuts")
    ]
    + [
        {"source": "nasa_13013", "transitions": [["dissolve", 149, 178], ["cut", 239, 239]], "ignored": []},
        {"source": "bigbuckbunny", "transitions": [], "ignored": []},
    ],
}
"""Clips as they are, with the transitions that were found by eye, frame by frame, as pairs [kind, first, last]."""


def main() -> None:
    """Print a manifest."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seed", type=int, default=FROZEN_SEED)
    parser.add_argument("--films", type=int, default=MEDLEYS, help="of each split")
    parsed = parser.parse_args()
    films = [film for split in SOURCES for film in _split(split, parsed.seed, parsed.films)]
    lines = ",\n  ".join(json.dumps(film) for film in films)
    print(f'{{"frozen": "Drawn before any tuning; never change a film, only add corpora.", "films": [\n  {lines}\n]}}')


def _split(split: str, seed: int, num_films: int) -> list[dict[str, Any]]:
    natural = [{"name": f"{split}-{each['source']}", "split": split, "natural": each} for each in NATURAL[split]]
    return natural + [medley(split, number, seed) for number in range(num_films)]


def medley(split: str, number: int, seed: int, effects: Sequence[str] = EFFECTS) -> dict[str, Any]:
    """A film of four to six shots: a third of real shots alone, a third of Backlot alone, a third of both."""
    draw = np.random.default_rng((seed, FIRST_SEED[split], number))
    cast = ("real", "backlot", "mixed")[number % 3]
    # The frozen manifest's seed is 7; other seeds film other worlds.
    first_seed = FIRST_SEED[split] + 100 * number + 1_000_000 * (seed - FROZEN_SEED)
    parts = [_part(draw, split, cast, first_seed, effects)]
    joins: list[dict[str, Any]] = []
    for place in range(1, int(draw.integers(4, 7))):
        join = str(draw.choice(list(JOINS), p=list(JOINS.values())))
        if join == "similar":
            parts.append(_similar(parts[-1], draw))
            joins.append({"kind": "cut", "similar": True})
            continue
        parts.append(_other(draw, split, cast, first_seed + 10 * place, effects, parts[-1]))
        joins.append(_fitting(_join(draw, join), parts, joins))
    return {
        "name": f"{split}-{number:02d}-{cast}" + ("" if seed == FROZEN_SEED else f"-{seed}"),
        "split": split,
        "cast": cast,
        "seed": first_seed,
        "encoding": ("telecine", "x264", "long")[number // 3 % 3],
        "fades_in": bool(draw.uniform() < 0.15),
        "fades_out": bool(draw.uniform() < 0.15),
        "parts": parts,
        "joins": joins,
    }


def _join(draw: np.random.Generator, join: str) -> dict[str, Any]:
    if join == "dissolve":
        return {"kind": join, "frames": int(draw.choice(DISSOLVE_FRAMES)), "eased": bool(draw.uniform() < 0.3)}
    if join == "fade":
        level = int(draw.choice([0, 255], p=[0.7, 0.3]))
        out, back, held = int(draw.integers(3, 13)), int(draw.integers(3, 13)), int(draw.integers(0, 7))
        return {"kind": join, "out": out, "held": held, "in": back, "level": level}
    return {"kind": "cut"}


def _fitting(join: dict[str, Any], parts: list[dict[str, Any]], joins: list[dict[str, Any]]) -> dict[str, Any]:
    """The join before the last part, shortened until both shots keep frames of their own; parts grow where they can."""
    left, right = parts[-2], parts[-1]
    out, back = _taken(join)
    _grow(left, out)
    _grow(right, back)
    spare = left["frames"] - _taken(joins[-1])[1] if joins else left["frames"]
    out, back = min(out, spare - MIN_PURE_FRAMES), min(back, right["frames"] - MIN_PURE_FRAMES)
    if join["kind"] == "dissolve":
        return join | {"frames": min(out, back)} if min(out, back) >= DISSOLVE_FRAMES[0] else {"kind": "cut"}
    if join["kind"] == "fade":
        return join | {"out": out, "in": back} if min(out, back) >= 2 else {"kind": "cut"}
    return join


def _taken(join: dict[str, Any]) -> tuple[int, int]:
    """How many frames of the shot before and of the shot after are mixed."""
    return {"dissolve": (join.get("frames", 0),) * 2, "fade": (join.get("out", 0), join.get("in", 0))}.get(
        join["kind"], (0, 0)
    )


def _grow(part: dict[str, Any], frames: int) -> None:
    span = _shot(part)
    if span is None:
        part["frames"] += frames
        return
    part["frames"] = min(part["frames"] + frames, span[1] - span[0])
    part["start"] = min(part["start"], span[1] - part["frames"])


def _part(draw: np.random.Generator, split: str, cast: str, seed: int, effects: Sequence[str]) -> dict[str, Any]:
    effect = "none"
    if draw.uniform() < EFFECT_RATIO:
        effect = str(draw.choice(effects))
    frames = int(draw.integers(*(STEADY_FRAMES if effect in STEADY else (22, 52))))
    part: dict[str, Any] = {"effect": effect, "frames": frames, "look": int(draw.choice([0, 0, 1, 2]))}
    if effect in STEADY and draw.uniform() < 0.5:
        return part | {"source": "leaves", "seed": seed + int(draw.integers(10)), "look": 0}
    if cast == "real" or (cast == "mixed" and draw.uniform() < 0.4):
        source = str(draw.choice(SOURCES[split]))
        spans = [span for span in SPANS[source] if span[1] - span[0] >= 24]
        start, end = spans[draw.integers(len(spans))]
        part["frames"] = min(frames, end - start)
        return part | {"source": source, "start": start + int(draw.integers(end - start - part["frames"] + 1))}
    if draw.uniform() < 0.12:
        return part | {"source": "slides", "seed": seed // 100, "number": seed % 100, "effect": "still"}
    return part | {"source": "backlot", "seed": seed + int(draw.integers(10)), "look": 0}


def _other(
    draw: np.random.Generator, split: str, cast: str, seed: int, effects: Sequence[str], before: dict[str, Any]
) -> dict[str, Any]:
    """A part that does not go on where the one before ended: another place, or another shot of the same clip."""
    while True:
        part = _part(draw, split, cast, seed, effects)
        near = part["source"] == before["source"] and abs(part.get("start", -1000) - before.get("start", 1000)) < 130
        if not near or _shot(part) != _shot(before) or part["look"] != before["look"]:
            return part


def _similar(before: dict[str, Any], draw: np.random.Generator) -> dict[str, Any]:
    """The same place seen by another camera: closer, from the side, or mirrored; of slides, the next one."""
    part = before | {"look": (before["look"] + int(draw.integers(1, 3))) % 3}
    if before["source"] == "leaves":
        part["look"] = 0
    if before["source"] == "slides":
        part["number"] = before["number"] + 1
    elif part["effect"] in WIDE | STEADY:
        part["effect"] = "none"
    return part


def _shot(part: dict[str, Any]) -> tuple[int, int] | None:
    """The span of a real clip that a part lies in."""
    spans = SPANS.get(part["source"], ())
    return next((span for span in spans if span[0] <= part["start"] < span[1]), None)


if __name__ == "__main__":
    main()
