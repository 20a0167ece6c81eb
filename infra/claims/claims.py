"""``make claims``: try research claims at toy scale, keep them in docs/claims.json and show them in docs/claims.md.

ROW=id tries one, SEEDS=10,11,12,13,14 takes other seeds, PROFILE=gpu the same studies larger on a device, and --size
short is what the suite runs. A claim that is not reproduced is an answer: it ends with 0 like one that is.
"""

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import diffmoe
import findings
import fulldit
import gamefactory
import pictures
import suitability
from findings import Finding, Trial
from runs import Journal, Runs
from telecine import settings, tracking
from telecine.errors import InputError, RetryLater

STUDIES: dict[str, Callable[[Trial], Finding]] = {
    "diffmoe_vs_dense": diffmoe.vs_dense,
    "diffmoe_vs_dense_3x": diffmoe.vs_dense_3x,
    "fulldit_composes": fulldit.study,
    "gamefactory_generalises": gamefactory.study,
    "vtss_beats_thresholds": suitability.study,
}
"""Rows that are tried by one call share their runs: one that both need is carried out once."""
RECORD = Path(__file__).resolve().parents[2] / "docs" / "claims.json"
SEEDS = "0,1,2,3,4"
NUM_WORKERS = {"laptop": 2, "gpu": 4}
EX_TEMPFAIL, EX_CONFIG = 75, 78


def main(argv: Sequence[str] | None = None) -> int:
    """Try what was asked for; 78 for a wrong value, 75 if MLflow does not answer."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--row", choices=sorted(STUDIES), help="one claim; all by default")
    parser.add_argument("--seeds", default=SEEDS, help="whole numbers with commas between; five or more")
    parser.add_argument("--profile", choices=("laptop", "gpu"), default="laptop")
    parser.add_argument("--size", choices=("short", "full"), default="full")
    parser.add_argument("--record", type=Path, default=RECORD, help="where the rows are kept; a page lies beside it")
    parser.add_argument("--workers", type=_count, help="processes of one thread each; 2, or 4 on a device")
    parsed = parser.parse_args(argv)
    try:
        seeds = findings.seeds_of(parsed.seeds)
        findings.check_device(parsed.profile)
        places = settings.from_environment()
        workers = NUM_WORKERS[parsed.profile] if parsed.workers is None else parsed.workers
        with tracking.translated(places), Runs(workers, Journal.connected(places)) as runs:
            tried = [_tried(name, parsed, seeds, runs) for name in ([parsed.row] if parsed.row else sorted(STUDIES))]
    except InputError as error:
        print(f"claims: {error}", file=sys.stderr)
        return EX_CONFIG
    except RetryLater as error:
        print(f"claims: {error}", file=sys.stderr)
        return EX_TEMPFAIL
    print(findings.markdown(tried))
    return 0


def _count(text: str) -> int:
    if not text.isdigit():
        raise argparse.ArgumentTypeError(f"must be a number of processes from 0, got {text!r}")
    return int(text)


def _tried(name: str, parsed: argparse.Namespace, seeds: tuple[int, ...], runs: Runs) -> dict[str, Any]:
    """Try one claim; its row is kept at once, because the next one may take minutes and MLflow may be away."""
    began = time.monotonic()
    folder = parsed.record.parent / "claims"
    trial = Trial(size=parsed.size, profile=parsed.profile, seeds=seeds, runs=runs, pictures=folder / name)
    with runs.claim(name, {"size": parsed.size, "profile": parsed.profile, "seeds": parsed.seeds}) as noted:
        found = STUDIES[name](trial)
        row = findings.row(name, found, trial, time.monotonic() - began)
        pictures.effects(row, folder / f"{name}.png")
        drawn = [folder / f"{name}.png", *(sorted(trial.pictures.glob("*.png")) if trial.pictures.exists() else [])]
        findings.merge(parsed.record, [row])
        noted.finding(row, drawn)
    return row


if __name__ == "__main__":
    sys.exit(main())
