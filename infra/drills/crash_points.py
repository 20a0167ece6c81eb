"""Crashes at every write of a commit, a checkpoint and an item, on a local store and over HTTP.

The work is :mod:`scripted_work`; the ways to die are: before and after every changing operation of the store, in the
middle of every file write (a file-size limit whose signal kills), at every changing system call (strace, where it is
installed), and before, in the middle of and after every changing HTTP request, those that upload a large file in parts
included. After each crash a fresh reader looks, and then the next attempt has to end at the undisturbed digests.
"""

import collections
import concurrent.futures
import dataclasses
import json
import os
import queue
import random
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fault_proxy import FaultProxy, Request
from places import BUCKET, HERE, ObjectServer, s3_environment
from record import Count, Trial
from scripted_work import Shape

SITUATIONS = ("fresh", "resumed", "forced", "broken")
"""Nothing stands; an attempt was killed half-way; a commit is replaced by force; a committed file was damaged."""
SYSTEM_CALLS = (
    "openat",
    "write",
    "rename,renameat,renameat2",
    "link,linkat",
    "unlink,unlinkat,rmdir",
    "mkdir",
    "fsync",
)
MOMENTS = {"before": "dropped", "middle": "cut_request", "after": "reply_lost"}
LARGE = Shape(num_items=0, num_steps=0, num_files=1, file_bytes=11 * 2**20)
"""A file that goes to an object store in parts: obstore does so above 5 MiB."""
LARGE_REQUESTS = 5
"""An attempt at it begins with these: the start of the upload, three parts, their completion."""
DEATHS = (-signal.SIGKILL, -signal.SIGXFSZ)
NUM_FULL = 2000
WORKERS = 2


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    """One crash: where, in which situation, how."""

    kind: str
    situation: str
    shape: Shape
    at: int
    moment: str = ""

    def __str__(self) -> str:
        return f"{self.kind} {self.situation} {self.shape} {self.moment} {self.at}"


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What one crash did."""

    injected: bool
    torn: tuple[str, ...] = ()
    lost: tuple[str, ...] = ()
    doubled: tuple[str, ...] = ()
    in_parts: bool = False


class Forge:
    """A warm process, a store of each kind, and templates of the situations; one crash at a time.

    Args:
        folder: of its own.
        server: the object server, shared by all.
    """

    def __init__(self, folder: Path, server: ObjectServer, seed: int) -> None:
        self.folder, self._server = folder, server
        self._victim: tuple[int, int, str] | None = None
        self._num_changes = 0
        self._met = self._in_parts = False
        self._digests: dict[Shape, dict[str, str]] = {}
        self._lock = threading.Lock()
        self.proxy = FaultProxy(server.port, seed, meet=self._meet)
        folder.mkdir()
        environment = os.environ | s3_environment(self.proxy.server_port)
        self._process = subprocess.Popen(
            [sys.executable, str(HERE / "attempt_process.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            text=True,
        )

    def close(self) -> None:
        """End the warm process and the proxy."""
        self._process.kill()
        self._process.wait()
        self.proxy.close()

    def crash(self, case: Case) -> Outcome:
        """Crash, look, go on; see the module."""
        place = self._prepared(case)
        before = self._read(place, case)
        self._met = self._in_parts = False
        died = self._crash(case, place)
        if not died:
            return Outcome(injected=False)
        seen = self._read(place, case)
        again = self._work(place, case, "attempt-3", force=case.situation == "forced")
        after = self._read(place, case)
        lost = []
        if again["code"] != 0:
            return Outcome(True, (), (f"the next attempt ended with {again['code']}",), (), self._in_parts)
        if again["found"]["digests"] != self._expected(case.shape):
            lost.append("the next attempt ended at other digests")
        if before["standing"] and case.situation == "forced" and not seen["standing"]:
            lost.append("a commit that stood is gone, and none took its place")
        doubled = _doubled(again["found"], seen) if case.situation != "forced" else []
        torn = [*(each for each in seen["torn"] if each not in before["torn"]), *after["torn"]]
        return Outcome(True, tuple(torn), tuple(lost), tuple(doubled), self._in_parts)

    def count(self, situation: str, shape: Shape, *, remote: bool) -> int:
        """Changing operations (local) or requests (remote) of an undisturbed attempt in a situation."""
        case = Case(kind="request" if remote else "operation", situation=situation, shape=shape, at=0)
        place = self._prepared(case)
        self._num_changes = 0
        done = self._work(place, case, "attempt-2", force=situation == "forced")
        assert done["code"] == 0, done
        return self._num_changes if remote else int(done["found"]["num_changes"])

    def _prepared(self, case: Case) -> dict[str, str]:
        """A copy of the situation's template."""
        remote = case.kind == "request"
        name = f"{case.situation}-{'-'.join(str(value) for value in dataclasses.astuple(case.shape))}"
        template = self._root(f"template-{name}", remote=remote)
        if case.situation != "fresh" and not template.exists():
            self._make_template(case, f"template-{name}", remote=remote)
        place = self._root("place", remote=remote)
        shutil.rmtree(place, ignore_errors=True)
        shutil.rmtree(self.folder / "home", ignore_errors=True)
        if case.situation != "fresh":
            shutil.copytree(template, place)
        return self._place("place", remote=remote)

    def _make_template(self, case: Case, name: str, *, remote: bool) -> None:
        place = self._place(name, remote=remote)
        half = case.situation == "resumed"
        changes = 2 * self.count("fresh", case.shape, remote=False) // 3 if half else None
        self._job("work", place, case, attempt="attempt-1", kill_at=changes)
        if case.situation == "broken":
            root = self._root(name, remote=remote)
            victim = next(path for path in sorted(root.rglob("*data.bin")) if "attempts" in str(path))
            data = victim.read_bytes()
            if remote:  # the server's own header stays; the bytes and their tag are another object's
                _, _, body = data.partition(b"\n")
                victim.write_bytes(json.dumps({"etag": "0" * 32}).encode() + b"\n" + b"?" + body[1:])
            else:
                victim.write_bytes(b"?" + data[1:])

    def _root(self, name: str, *, remote: bool) -> Path:
        if not remote:
            return self.folder / name
        return self._server.folder / BUCKET / "objects" / f"d.{self.folder.name}-{name}"

    def _place(self, name: str, *, remote: bool) -> dict[str, str]:
        store = f"s3://{BUCKET}/{self.folder.name}-{name}" if remote else f"file://{self.folder / name}"
        return {"store": store, "home": str(self.folder / "home")}

    def _expected(self, shape: Shape) -> dict[str, str]:
        """Digests of an undisturbed attempt."""
        if shape not in self._digests:
            shutil.rmtree(self.folder / "reference", ignore_errors=True)
            place = self._place("reference", remote=False)
            case = Case(kind="operation", situation="fresh", shape=shape, at=0)
            self._digests[shape] = self._work(place, case, "attempt-0", force=False)["found"]["digests"]
        return self._digests[shape]

    def _crash(self, case: Case, place: dict[str, str]) -> bool:
        force = case.situation == "forced"
        if case.kind == "operation":
            ended = self._job(
                "work", place, case, attempt="attempt-2", force=force, kill_at=case.at, moment=case.moment
            )
        elif case.kind == "size":
            ended = self._job("work", place, case, attempt="attempt-2", force=force, max_file_bytes=case.at)
        elif case.kind == "request":
            self._num_changes = 0
            ended = self._job(
                "work", place, case, attempt="attempt-2", force=force, victim=(case.at, MOMENTS[case.moment])
            )
        else:
            ended = self._job("work", place, case, attempt="attempt-2", force=force, trace=(case.kind, case.at))
        if ended["code"] >= 0:
            return False
        if ended["code"] not in DEATHS or (case.kind == "request" and not self._met):
            raise RuntimeError(f"{case}: the process died of {-ended['code']}, and not where it was to die")
        return True

    def _work(self, place: dict[str, str], case: Case, attempt: str, *, force: bool) -> dict[str, Any]:
        return self._job("work", place, case, attempt=attempt, force=force)

    def _read(self, place: dict[str, str], case: Case) -> dict[str, Any]:
        ended = self._job("read", place, case)
        assert ended["code"] == 0, ended
        return dict(ended["found"])

    def _job(
        self,
        deed: str,
        place: dict[str, str],
        case: Case,
        *,
        victim: tuple[int, str] | None = None,
        trace: tuple[str, int] | None = None,
        **more: Any,
    ) -> dict[str, Any]:
        """Have a forked process do something, and kill it the way that was asked for."""
        job = {"deed": deed, **place, "shape": dataclasses.asdict(case.shape), **more}
        held = victim is not None or trace is not None
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(json.dumps(job | {"wait": held}) + "\n")
        self._process.stdin.flush()
        pid = json.loads(self._process.stdout.readline())["pid"]
        tracer = _traced(pid, *trace) if trace else None
        if victim is not None:
            self._victim = (pid, *victim)
        if held:
            os.kill(pid, signal.SIGUSR1)
        ended = json.loads(self._process.stdout.readline())
        self._victim = None
        if tracer is not None:
            tracer.wait()
        return dict(ended)

    def _meet(self, request: Request) -> str | None:
        """Kill the sender of the nth changing request."""
        if request.method not in ("PUT", "POST", "DELETE"):
            return None
        with self._lock:
            self._num_changes += 1
            if self._victim is None or self._num_changes != self._victim[1]:
                return None
            pid, _, fault = self._victim
            self._met = True
            self._in_parts = "uploadId=" in request.target or "?uploads" in request.target
            os.kill(pid, signal.SIGKILL)
            return fault if fault != "cut_request" or request.body else "dropped"


def _doubled(done: dict[str, Any], seen: dict[str, Any]) -> list[str]:
    """What an attempt did again that a commit held: items, and steps up to that of the newest checkpoint."""
    again = [step for step in done["steps"] if step <= max(seen["steps"], default=0)]
    return [*sorted(set(done["made"]) & set(seen["items"])), *(f"step {step}" for step in again)]


def commit_crash_points(trial: Trial) -> Count:
    """Kill attempts at every write; see the module."""
    server = ObjectServer(trial.folder / "objects")
    forges: queue.Queue[Forge] = queue.Queue()
    made = [Forge(trial.folder / f"forge-{index}", server, trial.seed) for index in range(WORKERS)]
    for forge in made:
        forges.put(forge)
    cases = _cases(trial, made[0])
    seen: collections.Counter[str] = collections.Counter()
    findings: list[str] = []

    def one(case: Case) -> tuple[Case, Outcome]:
        forge = forges.get()
        try:
            return case, forge.crash(case)
        finally:
            forges.put(forge)

    try:
        with concurrent.futures.ThreadPoolExecutor(WORKERS) as pool:
            for index, (case, outcome) in enumerate(pool.map(one, cases)):
                _add(seen, findings, case, outcome)
                trial.progress(index + 1, len(cases))
    finally:
        for forge in made:
            forge.close()
        server.kill()
    kinds = ", ".join(f"{seen[kind]} {kind}" for kind in ("operation", "size", "request", "system call") if seen[kind])
    kinds += f"; {seen['in parts']} requests belonged to an upload in parts"
    if not seen["in parts"]:
        seen["lost"] += 1
        findings.append("lost: no upload in parts was met; is LARGE still above obstore's threshold?")
    return Count(
        what=f"SIGKILL at every write of items, checkpoints and a commit on file:// and s3:// ({kinds})",
        injected=seen["injected"],
        lost=seen["lost"],
        doubled=seen["doubled"],
        torn=seen["torn"],
        recovered=seen["recovered"],
        findings=tuple(findings),
    )


def _add(seen: "collections.Counter[str]", findings: list[str], case: Case, outcome: Outcome) -> None:
    if not outcome.injected:
        return
    seen["injected"] += 1
    seen["in parts"] += outcome.in_parts
    seen["system call" if case.kind in SYSTEM_CALLS else case.kind] += 1
    for name in ("torn", "lost", "doubled"):
        found = getattr(outcome, name)
        seen[name] += bool(found)
        findings.extend(f"{name}: {case}: {problem}" for problem in found)
    seen["recovered"] += not (outcome.torn or outcome.lost or outcome.doubled)


def _cases(trial: Trial, forge: Forge) -> list[Case]:
    """Every crash of this trial, in an order that the seed decides."""
    draw = random.Random(trial.seed)  # noqa: S311 - shapes, no secrets
    if trial.size == "short":
        shape = Shape(num_items=1, num_steps=3, num_files=1, file_bytes=3000)
        every = [case for situation in SITUATIONS for case in _of(forge, situation, shape, draw)]
        traced = [case for case in every if case.kind in SYSTEM_CALLS]
        plain = [case for case in every if case.kind not in SYSTEM_CALLS]
        parts = [case for case in _requests(forge, "fresh", LARGE) if case.at <= LARGE_REQUESTS]
        return draw.sample(plain, 85) + draw.sample(traced, min(10, len(traced))) + draw.sample(parts, 5)
    cases = [case for situation in SITUATIONS for case in _requests(forge, situation, LARGE)]
    while len(cases) < NUM_FULL * 1.1:  # a limit or a call that the attempt never meets is no crash
        shape = Shape(draw.randint(1, 3), draw.randint(3, 4), draw.randint(1, 3), draw.randint(100, 200_000))
        cases += [case for situation in SITUATIONS for case in _of(forge, situation, shape, draw)]
    draw.shuffle(cases)
    return cases


def _of(forge: Forge, situation: str, shape: Shape, draw: random.Random) -> Iterator[Case]:
    for at in range(1, forge.count(situation, shape, remote=False) + 1):
        for moment in ("before", "after"):
            yield Case(kind="operation", situation=situation, shape=shape, at=at, moment=moment)
    yield from _requests(forge, situation, shape)
    for _ in range(20):
        yield Case(kind="size", situation=situation, shape=shape, at=draw.randint(0, shape.file_bytes))
    if shutil.which("strace"):
        for calls in SYSTEM_CALLS:
            for at in range(1, _MOST[calls] + 1):
                yield Case(kind=calls, situation=situation, shape=shape, at=at)


def _requests(forge: Forge, situation: str, shape: Shape) -> Iterator[Case]:
    for at in range(1, forge.count(situation, shape, remote=True) + 1):
        for moment in MOMENTS:
            yield Case(kind="request", situation=situation, shape=shape, at=at, moment=moment)


_MOST = {
    "openat": 12,
    "write": 16,
    "rename,renameat,renameat2": 8,
    "link,linkat": 6,
    "unlink,unlinkat,rmdir": 8,
    "mkdir": 12,
    "fsync": 10,
}


def _traced(pid: int, calls: str, at: int) -> "subprocess.Popen[str]":
    """strace on a waiting process, which it kills at the nth of these system calls."""
    command = ["strace", "-f", "-p", str(pid), "-e", f"trace={calls}", "-e", f"inject={calls}:signal=KILL:when={at}"]
    tracer = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    assert tracer.stderr is not None
    line = tracer.stderr.readline()
    assert "attached" in line, line
    threading.Thread(target=tracer.stderr.read, daemon=True).start()
    return tracer
