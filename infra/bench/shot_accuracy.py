"""How right our shot detector and its peers are on the shot corpus: ``python infra/bench/shot_accuracy.py``.

Writes the tables of docs/shots.md. What the peers find is kept in the cache folder beside the corpus and their virtual
environment, because it takes minutes and depends on nothing of ours.
"""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import shot_corpus
import shot_score
from shot_corpus import Film
from telecine_components.media.shots.film import film_of

CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "telecine" / "shots"
HERE = Path(__file__).parent
PEERS, REQUIREMENTS = HERE / "shot_peers.py", HERE / "peers.txt"
PAGE = HERE.parents[1] / "docs" / "shots.md"
BEGIN, END = "<!-- written by infra/bench/shot_accuracy.py -->", "<!-- end -->"
RIVALS = ("adaptive", "adaptive, tuned", "koala")
_TIMEOUT_S = 3600.0

Found = dict[str, list[int]]


def peer_python(folder: Path = CACHE, requirements: Path = REQUIREMENTS) -> str:
    """The interpreter of the peers, in an environment that is made on first use."""
    digest = hashlib.sha256(requirements.read_bytes()).hexdigest()[:8]
    home = folder / f"peers-{digest}"
    python = home / "bin" / "python"
    if not (home / "complete").exists():
        base = os.path.realpath(sys.executable)
        subprocess.run([base, "-m", "venv", str(home)], check=True)
        command = [str(python), "-m", "pip", "install", "--quiet", "--no-deps", "--requirement", str(requirements)]
        subprocess.run(command, check=True, timeout=_TIMEOUT_S)
        (home / "complete").touch()
    return str(python)


def found_by_peers(films: Sequence[Film], folder: Path = CACHE) -> dict[str, Any]:
    """What each peer finds in each film, by the film's name."""
    names = " ".join(film.name for film in films)
    seen = PEERS.read_bytes() + REQUIREMENTS.read_bytes() + shot_corpus.MANIFEST.read_bytes() + names.encode()
    kept = folder / f"found-{hashlib.sha256(seen).hexdigest()[:12]}.json"
    if not kept.exists():
        command = [peer_python(folder), str(PEERS), "find", *(str(film.path) for film in films)]
        done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=_TIMEOUT_S)
        kept.write_text(json.dumps({Path(path).stem: found for path, found in json.loads(done.stdout).items()}))
    found: dict[str, Any] = json.loads(kept.read_text())
    return found


def tuned_setting(films: Sequence[Film], found: Mapping[str, Any]) -> str:
    """The setting of AdaptiveDetector's grid with the best F1 (mean of both tolerances) on these films."""

    def mean_f1(setting: str) -> float:
        cuts = {name: each["grid"][setting] for name, each in found.items()}
        return sum(shot_score.score(films, cuts, tolerance).f1 for tolerance in (0, 1))

    settings: list[str] = list(next(iter(found.values()))["grid"])
    return max(settings, key=mean_f1)


def by_detector(films: Sequence[Film], peers: Mapping[str, Any], setting: str) -> dict[str, Found]:
    """The pairs that each detector names, by its name; ours comes first."""
    ours = {film.name: [(each.first + each.last) // 2 for each in film_of(film.path).transitions] for film in films}
    found: dict[str, Found] = {"ours": ours}
    for name in ("adaptive", "content", "histogram", "koala"):
        found[name] = {film: each[name] for film, each in peers.items()}
    found["adaptive, tuned"] = {film: each["grid"][setting] for film, each in peers.items()}
    return found


def quality_gate(films: Sequence[Film], found: Mapping[str, Found]) -> str:
    """``equal`` if ours has the higher F1 overall, and none lower on hard cuts alone or on real clips alone."""
    real = [film for film in films if film.cast in ("natural", "real")]
    behind = []
    for tolerance in (0, 1):
        for name in RIVALS:
            measured = [
                ("overall", shot_score.score, films, True),
                ("hard cuts", shot_score.cuts_alone, films, False),
                ("real clips", shot_score.score, real, False),
            ]
            for what, scored, among, above in measured:
                ours, theirs = (scored(among, found[each], tolerance).f1 for each in ("ours", name))
                if ours < theirs or (above and ours == theirs):
                    behind.append(f"{what} at tolerance {tolerance}: {ours:.3f} against {theirs:.3f} of {name}")
    return f"differs: {'; '.join(behind)}" if behind else "equal"


def planted_inside(films: Sequence[Film]) -> dict[str, int]:
    """How many planted transitions lie inside what our detector calls one shot."""
    inside = {"cut": 0, "similar": 0, "dissolve": 0, "fade": 0}
    for film in films:
        shots = film_of(film.path).shots
        for truth in film.truths:
            middle = (truth.first + truth.last) // 2
            inside[truth.kind] += any(shot.start <= middle and middle + 1 < shot.end for shot in shots)
    return inside


def main() -> None:
    """Judge all detectors and write the tables."""
    splits = {split: shot_corpus.build(CACHE / "corpus", split) for split in ("tuning", "test")}
    peers = {split: found_by_peers(films) for split, films in splits.items()}
    setting = tuned_setting(splits["tuning"], peers["tuning"])
    found = {split: by_detector(films, peers[split], setting) for split, films in splits.items()}
    lines = [f"Tuned setting of AdaptiveDetector: `{setting}`.", ""]
    for split, tolerance in (("test", 0), ("test", 1), ("tuning", 0)):
        lines += [f"### {split} films, tolerance {tolerance}", "", *_table(splits[split], found[split], tolerance), ""]
    inside = ", ".join(f"{count} of kind {kind}" for kind, count in planted_inside(splits["test"]).items())
    lines += [f"Planted transitions of the test films inside one of our shots: {inside}.", ""]
    lines += [f"Quality gate on the test films: {quality_gate(splits['test'], found['test'])}."]
    before, _, rest = PAGE.read_text().partition(BEGIN)
    PAGE.write_text(f"{before}{BEGIN}\n" + "\n".join(lines) + f"\n{END}{rest.partition(END)[2]}")
    print("\n".join(lines))


def _table(films: Sequence[Film], found: Mapping[str, Found], tolerance: int) -> list[str]:
    rows = {name: shot_score.summary(films, each, tolerance) for name, each in found.items()}
    columns = list(rows["ours"])
    head = ["| detector | " + " | ".join(columns) + " |", "|---|" + "---|" * len(columns)]
    return head + [
        f"| {name} | " + " | ".join(str(row[column]) for column in columns) + " |" for name, row in rows.items()
    ]


if __name__ == "__main__":
    main()
