"""``make drills``: inject faults, count what they did to the store's promises, keep the counts in docs/drills.json.

ROW=id runs one drill, SEED=n makes other choices, and --size short is what the suite runs.
"""

import argparse
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import container_builds
import container_flywheel
import crash_points
import curation_kills
import full_disk
import http_faults
import leaks
import process_kills
import races
import record
import training_kills
import two_demos
from record import Count, Drill, Trial

DRILLS: dict[str, Drill] = {
    "commit_crash_points": crash_points.commit_crash_points,
    "container_flywheel": container_flywheel.container_flywheel,
    "container_images": container_builds.container_images,
    "credentials": leaks.credentials,
    "curation_kills": curation_kills.curation_kills,
    "full_disk": full_disk.full_disk,
    "process_kills": process_kills.process_kills,
    "racing_pairs": races.racing_pairs,
    "s3_faults": http_faults.s3_faults,
    "store_outage": http_faults.store_outage,
    "training_kills": training_kills.training_kills,
    "two_demos": two_demos.two_demos,
    "zombie_attempt": http_faults.zombie_attempt,
}
ROW_ONLY = {"short": {"container_flywheel", "container_images"}, "full": set[str]()}
"""What a call without ROW leaves out: the suite runs containers in tests/platform/runners/test_container.py."""
RECORD = Path(__file__).resolve().parents[2] / "docs" / "drills.json"


def main() -> int:
    """Run the drills that were asked for; 1 if any promise broke."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--row", choices=sorted(DRILLS), help="one drill; all by default")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--size", choices=("short", "full"), default="full")
    parser.add_argument("--record", type=Path, default=RECORD, help="where the counts are kept")
    parsed = parser.parse_args()
    rows, held = [], True
    for name in [parsed.row] if parsed.row else sorted(set(DRILLS) - ROW_ONLY[parsed.size]):
        count, row = _run(name, parsed.seed, parsed.size)
        record.merge(parsed.record, [row])
        rows.append(row)
        held = held and count.holds
        for finding in count.findings:
            print(f"{name}: {finding}", file=sys.stderr)
    print(record.table(rows))
    return 0 if held else 1


def _run(name: str, seed: int, size: record.Size) -> tuple[Count, dict[str, Any]]:
    folder = Path(tempfile.mkdtemp(prefix=f"drill-{name}-"))
    began = time.monotonic()
    try:
        count = DRILLS[name](Trial(seed, size, folder, lambda done, total: _show(name, done, total, began)))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return count, record.row(name, count, time.monotonic() - began, size)


def _show(name: str, done: int, total: int, began: float) -> None:
    """A line that rewrites itself in a terminal, one at each tenth of the way anywhere else."""
    seconds = time.monotonic() - began
    eta = f"{seconds / done * (total - done):.0f}s" if done else "?"
    line = f"{name} {done}/{total} elapsed={seconds:.0f}s eta={eta}"
    if sys.stderr.isatty():
        print(f"\r{line}\x1b[K", end="\n" if done >= total else "", file=sys.stderr, flush=True)
    elif done * 10 // total != (done - 1) * 10 // total:
        print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
