"""A curation whose process group is killed with -9 and called again ends as the undisturbed one does, and what changes
afterwards is all that is done anew.
"""

import dataclasses
import os
import random
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

import curation_data
import evidence
from deployments import Deployment, Ended, ended, make_site
from record import Count, Trial
from telecine.storage import Store
from telecine.work import attempts

RUN = "curation"
FILTER: dict[str, Any] = {
    "min_side_px": 32,
    "max_logo": 1.0,
    "max_freeze": 1.0,
    "min_motion": 0.0,
    "min_suitability": 1.0,
}
"""What keeps every film, so that what is made anew can be counted."""
TIGHTER: dict[str, Any] = {"max_exposure": 0.5}
ENCODE: dict[str, Any] = {"width_px": 24, "height_px": 16, "num_frames": 4}
COPIES: dict[str, Any] = {"epsilon": 0.0}
"""Nothing is dropped for looks: the films are of one make."""
STEPS = {
    "short": ("curate.split", "curate.filter", "curate.encode"),
    "full": (
        "curate.split",
        "curate.filter",
        "curate.dedup",
        "curate.balance",
        "caption.write",
        "curate.cut",
        "curate.encode",
        "curate.report",
    ),
}
WITH_ITEMS = ("curate.split", "caption.write", "curate.cut", "curate.encode")
READS_VIDEOS = WITH_ITEMS
CHOOSES = ("curate.filter", "curate.dedup", "curate.balance", "caption.write")
"""Each writes a manifest that the steps after it read."""
LEFT_OUT = ("num_rejected", "num_exact", "num_perceptual", "num_semantic", "num_over_quota")
NUM_FILES, NUM_ADDED = {"short": 10, "full": 200}, 5
KILLS: dict[str, dict[str, int]] = {
    "short": {"curate.split": 2, "curate.encode": 2},
    "full": {
        "curate.split": 6,
        "curate.filter": 2,
        "curate.dedup": 2,
        "curate.balance": 2,
        "caption.write": 5,
        "curate.cut": 4,
        "curate.encode": 5,
        "curate.report": 2,
    },
}
"""How often each step is killed; one that ends before its moment has come goes without."""
JITTER_S = 0.3
START_S = 0.8
"""A step without items is killed at some moment of its first so many seconds."""
WAIT_S = 600.0

Records = dict[str, bytes]


@dataclasses.dataclass
class Found:
    """What was met so far."""

    killed: "Counter[str]" = dataclasses.field(default_factory=Counter)
    lost: list[str] = dataclasses.field(default_factory=list)
    doubled: list[str] = dataclasses.field(default_factory=list)
    torn: list[str] = dataclasses.field(default_factory=list)


class Curation:
    """``telecine run`` of one step after the other over one folder, in a deployment of its own."""

    def __init__(self, place: Deployment, videos: Path, steps: tuple[str, ...]) -> None:
        self.place, self.videos, self.steps = place, videos, steps
        self.with_items = [name for name in steps if name in WITH_ITEMS]
        self.store = Store(place.store_uri)
        self.settings: dict[str, dict[str, Any]] = {
            "curate.filter": dict(FILTER),
            "curate.dedup": COPIES,
            "curate.encode": ENCODE,
        }

    def inputs(self, name: str, made: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
        """Of a step, from what the steps before it made."""
        given = dict(self.settings.get(name, {}))
        if name in READS_VIDEOS:
            given["videos_uri"] = str(self.videos)
        if name != "curate.split":
            chosen = [step for step in ("curate.split", *CHOOSES) if step in made]
            given["clips_uri"] = made[chosen[-1]]["outputs"]["clips_uri"]
        return given

    def start(self, name: str, made: Mapping[str, dict[str, Any]]) -> "subprocess.Popen[str]":
        """Begin a step."""
        return self.place.start_run(name, self.inputs(name, made), "--run", RUN)

    def run(self) -> dict[str, dict[str, Any]]:
        """All steps to their end; the result document of each."""
        made: dict[str, dict[str, Any]] = {}
        for name in self.steps:
            made[name] = _document(name, ended(self.start(name, made)))
        return made

    def records(self, name: str = "*") -> Records:
        """Bytes of the commits of a component's items, by their place in the store."""
        assert self.store.root is not None
        paths = self.store.root.glob(f"work/{name}/items/*/commit.json")
        return {path.relative_to(self.store.root).as_posix(): path.read_bytes() for path in paths}


def curation_kills(trial: Trial) -> Count:
    """See the module."""
    site, found = make_site(trial.folder / "site"), Found()
    num_files = NUM_FILES[trial.size]
    videos = trial.folder / "videos"
    curation_data.write_films(videos, range(num_files))
    total = sum(KILLS[trial.size].values()) + 1
    calm, shaken = (
        Curation(_place(trial.folder / name, site), videos, STEPS[trial.size]) for name in ("calm", "shaken")
    )
    expected = calm.run()
    lost_clips = {
        f"{name} {output}": count
        for name, document in expected.items()
        for output, count in document["outputs"].items()
        if output in LEFT_OUT and count
    }
    if lost_clips:
        raise RuntimeError(
            f"the drill counts on films that are all kept, and these of their clips were not: {lost_clips}"
        )
    made = _kill_all(shaken, trial, found, {name: len(calm.records(name)) for name in calm.steps})
    _judge(shaken, made, calm, expected, found, patient=trial.size == "full")
    _judge_threshold(shaken, found)
    if trial.size == "full":
        _judge_files(shaken, num_files, found)
    trial.progress(total, total)
    good = not (found.lost or found.doubled or found.torn)
    victims = ", ".join(f"{count} {name}" for name, count in sorted(found.killed.items()))
    return Count(
        what=f"kill -9 of the whole process group of a curation of {num_files} files at random points, the call "
        f"repeated: {victims}; then its digests and items against the undisturbed one's, what gc leaves, and what is "
        "done anew after a threshold and files changed",
        injected=found.killed.total(),
        lost=len(found.lost),
        doubled=len(found.doubled),
        torn=len(found.torn),
        recovered=found.killed.total() if good else 0,
        findings=(*found.lost, *found.doubled, *found.torn),
    )


def _place(folder: Path, site: Path) -> Deployment:
    place = Deployment(folder, site, groups=True)
    place.prepare_tracker()
    return place


def _document(name: str, done: Ended) -> dict[str, Any]:
    if done.code != 0:
        raise RuntimeError(f"{name} ended with {done.code}: {done.err}")
    return done.document


def _kill_all(
    curation: Curation, trial: Trial, found: Found, num_items: Mapping[str, int]
) -> dict[str, dict[str, Any]]:
    """Kill each step so often, at drawn numbers of its items, and let it end after the last time."""
    total = sum(KILLS[trial.size].values()) + 1
    draw = random.Random(trial.seed)  # noqa: S311 - moments
    made: dict[str, dict[str, Any]] = {}
    for name in curation.steps:
        for at in sorted(draw.randrange(max(1, num_items[name])) for _ in range(KILLS[trial.size].get(name, 0))):
            process = curation.start(name, made)
            reached = _reach(curation, process, name, at, draw)
            before = curation.records()
            if reached:
                os.killpg(process.pid, signal.SIGKILL)
                found.killed[name] += 1
            if (code := ended(process).code) not in (0, -signal.SIGKILL):
                found.lost.append(f"lost: {name} ended with {code}")
            trial.progress(found.killed.total(), total)
            _judge_kill(curation, before, found)
        made[name] = _document(name, ended(curation.start(name, made)))
    return made


def _reach(curation: Curation, process: "subprocess.Popen[str]", name: str, at: int, draw: random.Random) -> bool:
    """Wait until a step has committed so many items, and a moment more; False where it ended before."""
    deadline = time.monotonic() + WAIT_S
    if name not in WITH_ITEMS:
        time.sleep(draw.uniform(0.0, START_S))
        return process.poll() is None
    while len(curation.records(name)) < at:
        if process.poll() is not None or time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    time.sleep(draw.uniform(0.0, JITTER_S))
    return process.poll() is None


def _judge_kill(curation: Curation, before: Records, found: Found) -> None:
    """What was committed before a kill has to be there after it, and whole."""
    after = curation.records()
    found.lost += [f"lost: {path} was committed" for path, data in before.items() if after.get(path) != data]
    found.torn += [f"torn: {problem}" for problem in evidence.torn_commits(curation.store)]


def _judge(
    curation: Curation,
    made: dict[str, dict[str, Any]],
    calm: Curation,
    expected: dict[str, dict[str, Any]],
    found: Found,
    *,
    patient: bool,
) -> None:
    """Compare with the undisturbed curation, after garbage was collected."""
    for name, document in made.items():
        if evidence.digests_of(curation.store, document) != evidence.digests_of(calm.store, expected[name]):
            found.lost.append(f"lost: {name}: the digests differ from the undisturbed curation's")
    if patient:
        time.sleep(attempts.LEASE_S + 5.0)
    collected = curation.place.call("gc", "--keep-days", "1")
    if collected.code != 0:
        found.lost.append(f"lost: telecine gc ended with {collected.code}: {collected.last_line}")
    young = () if patient else ("#",)
    left = evidence.astray(curation.store, [_work(document) for document in made.values()])
    found.lost += [f"lost: after gc {what}" for what in left if not any(mark in what for mark in young)]
    for name in curation.with_items:
        ours, theirs = set(_files(curation, name)), set(_files(calm, name))
        found.lost += [f"lost: {name}: {path}" for path in sorted(theirs - ours)]
        found.doubled += [f"doubled: {name}: {path}" for path in sorted(ours - theirs)]
    found.doubled += [f"doubled: clip {clip} has two rows" for clip in _doubled_clips(made)]
    found.torn += [f"torn: {problem}" for problem in evidence.torn_commits(curation.store)]


def _work(document: dict[str, Any]) -> str:
    return f"work/{document['component']}/{document['key']}"


def _files(curation: Curation, name: str) -> list[str]:
    """Every file of a component's items; a folder is named by its content."""
    return [entry.path for entry in curation.store.entries(f"work/{name}/items")]


def _doubled_clips(made: dict[str, dict[str, Any]]) -> list[str]:
    doubled: set[str] = set()
    for name in set(CHOOSES) & made.keys():
        path = made[name]["outputs"]["clips_uri"].removeprefix("file://")
        counts = Counter(pq.read_table(path, columns=["clip_id"])["clip_id"].to_pylist())
        doubled |= {clip for clip, count in counts.items() if clip is not None and count > 1}
    return sorted(doubled)


def _judge_threshold(curation: Curation, found: Found) -> None:
    """Tighten a threshold of the filter: the filter is done anew and what reads it, but no item."""
    curation.settings["curate.filter"] = FILTER | TIGHTER
    made = _again(curation, "a tighter threshold", 0, found)
    decisions = [document["decision"] for document in made.values()]
    if decisions != ["reused", *["ran"] * (len(decisions) - 1)]:
        found.doubled.append(f"doubled: a threshold changed, and the steps were {decisions}")
    if not made["curate.filter"]["outputs"]["num_rejected"]:
        found.lost.append("lost: the tighter threshold rejected nothing, so it shows nothing")
    curation.settings["curate.filter"] = dict(FILTER)


def _judge_files(curation: Curation, num_files: int, found: Found) -> None:
    """Add files, then change one: those are done, and no other."""
    curation_data.write_films(curation.videos, range(num_files, num_files + NUM_ADDED))
    _again(curation, f"{NUM_ADDED} added files", NUM_ADDED, found)
    curation_data.write_film(curation.videos, 0, seed=10**6)
    _again(curation, "a changed file", 1, found)


def _again(curation: Curation, change: str, num_expected: int, found: Found) -> dict[str, dict[str, Any]]:
    """Run all steps and count the items that are new; none that stood may be touched."""
    before = {name: curation.records(name) for name in curation.with_items}
    made = curation.run()
    for name, standing in before.items():
        after = curation.records(name)
        num_new = len(after.keys() - standing.keys())
        if num_new != num_expected:
            found.doubled.append(f"doubled: {change}: {name} made {num_new} items, expected {num_expected}")
        touched = [path for path, data in standing.items() if after.get(path) != data]
        found.doubled += [f"doubled: {change}: {name} made {path} again" for path in touched]
    return made
