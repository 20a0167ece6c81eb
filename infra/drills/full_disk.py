"""A full disk: a small file system of its own (a private mount) holds the store, and an honest file fills it.

In every other turn it holds the whole home, as it does by default: MLflow's database and the memory of digests, too.
"""

import dataclasses
import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import evidence
from deployments import CODE_RETRY, Deployment, make_site
from record import Count, Trial
from telecine.storage import Store

DISK_BYTES = 6 * 2**20
FILE_BYTES = 200_000
SENTENCES = ("there is no space left", "database or disk is full", "disk I/O error")
"""In our words, or in those of SQLite, which MLflow passes on; the last means no room for a database's index."""
NUM = {"short": 2, "full": 12}


def full_disk(trial: Trial) -> Count:
    """Run the drill in a mount namespace of its own, which needs no root where user namespaces are allowed."""
    job = json.dumps({"seed": trial.seed, "size": trial.size, "folder": str(trial.folder)})
    command = ["unshare", "--map-root-user", "--mount", sys.executable, __file__, job]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    last = ""
    for last in process.stdout:
        if last.startswith("done "):
            trial.progress(int(last.split()[1]), NUM[trial.size])
    if process.wait() != 0:
        raise RuntimeError("the small file system could not be made: unshare and mount have to be allowed here")
    found = json.loads(last)
    return Count(**found | {"findings": tuple(found["findings"])})


def main() -> int:
    """In the namespace: mount, run, print the counts."""
    job = json.loads(sys.argv[1])
    folder = Path(job["folder"])
    disk = folder / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(disk)]
    subprocess.run(mount, check=True)
    trial = Trial(job["seed"], job["size"], folder, lambda done, _: print(f"done {done}", flush=True))
    print(json.dumps(dataclasses.asdict(_drill(trial, disk))))
    return 0


def _drill(trial: Trial, disk: Path) -> Count:
    site = make_site(trial.folder / "site")
    draw = random.Random(trial.seed)  # noqa: S311 - sizes, no secrets
    inputs = {"num_steps": 6, "num_items": 3, "file_bytes": FILE_BYTES, "seed": trial.seed}
    roomy = Deployment(trial.folder / "roomy", site)
    roomy.prepare_tracker()
    reference = roomy.run("toy.train", inputs).document
    expected = evidence.digests_of(Store(roomy.store_uri), reference)
    lost: list[str] = []
    torn: list[str] = []
    injected = recovered = 0
    for index in range(NUM[trial.size]):
        together = index % 2 == 1
        home = disk / "home" if together else trial.folder / f"home-{index}"
        place = Deployment(home, site, store_uri="" if together else f"file://{disk}/store")
        place.prepare_tracker()
        _fill(disk, free=draw.randint(4096, 6 * FILE_BYTES))
        full = place.run("toy.train", inputs)
        store = Store(place.store_uri)
        half = evidence.torn_commits(store)
        (disk / "filler").unlink()
        again = place.run("toy.train", inputs)
        injected += full.code != 0
        bad = _complaints(full.code, full.err, again.code, again.last_line)
        if again.code == 0 and evidence.digests_of(store, again.document) != expected:
            bad.append("after space was freed, the same call ended at other digests")
        half += evidence.torn_commits(store)
        lost += [f"lost: turn {index}: {problem}" for problem in bad]
        torn += [f"torn: turn {index}: {problem}" for problem in half]
        recovered += full.code != 0 and not bad and not half
        shutil.rmtree(disk / ("home" if together else "store"))
        trial.progress(index + 1, NUM[trial.size])
    return Count(
        what=f"the file system of the store, in every other turn of the home as well, runs full at {NUM[trial.size]} "
        "random moments, then has room again",
        injected=injected,
        lost=len(lost),
        torn=len(torn),
        recovered=recovered,
        findings=(*lost, *torn),
    )


def _fill(disk: Path, *, free: int) -> None:
    """Write a file until only ``free`` bytes are left."""
    stat = os.statvfs(disk)
    (disk / "filler").write_bytes(b"\0" * max(0, stat.f_bavail * stat.f_frsize - free))


def _complaints(code: int, err: str, again: int, last_line: str) -> list[str]:
    problems = []
    last = (err.strip().splitlines() or [""])[-1]
    clear = last.startswith("telecine: ") and any(text in last for text in SENTENCES)
    if code not in (0, CODE_RETRY) or (code and not clear) or "Traceback" in err:
        problems.append(f"exit {code}, expected {CODE_RETRY} and one clear sentence: {last!r}")
    if again != 0:
        problems.append(f"after space was freed: exit {again}: {last_line}")
    return problems


if __name__ == "__main__":
    sys.exit(main())
