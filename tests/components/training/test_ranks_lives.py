"""Ranks live and die together, and the one that leads says why."""

import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch.distributed as dist

from telecine_components.training.ranks import CPU, Ranks, together
from telecine_components.training.watchdog import FolderStore

SCRIPT = Path(__file__).with_name("shared_lives.py")


def start(fault: str, *more: str, **variables: str) -> "subprocess.Popen[str]":
    path = os.pathsep.join(filter(None, sys.path))
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", **variables}
    command = [sys.executable, str(SCRIPT), fault, *more]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def follower_of(process: "subprocess.Popen[str]") -> int:
    """The process of the rank that follows."""
    words = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return next(int(word) for word in words if "spawn_main" in Path(f"/proc/{word}/cmdline").read_text())


def state_of(pid: int) -> str:
    """The letter of a process's state; empty where there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][:1]
    except OSError:
        return ""


@pytest.mark.parametrize(
    ("fault", "code", "words"),
    [
        ("none", 0, "met"),
        ("killed on its way", 75, "RetryLater: rank-1 ended with -9; call again to go on"),
        ("killed", 75, "RetryLater: rank-1 ended with -9; call again to go on"),
        ("wrong input", 78, "InputError: the shard 7 is missing; encode it again"),
        ("broken", 1, "RuntimeError: rank-1 failed: ZeroDivisionError: of nothing"),
    ],
)
def test_what_becomes_of_a_follower_is_told_by_its_leader(fault: str, code: int, words: str) -> None:
    leader = start(fault)
    out, err = leader.communicate(timeout=120)
    assert (out.splitlines()[-1:], leader.returncode) == ([words], code), err


def test_a_follower_that_is_stopped_ends_with_its_leader() -> None:
    leader = start("stopped")
    assert leader.stdout is not None and leader.stdout.readline() == "met\n"
    follower = follower_of(leader)
    deadline = time.monotonic() + 60
    while state_of(follower) != "T":
        assert time.monotonic() < deadline
        time.sleep(0.02)
    leader.kill()
    leader.communicate()
    while state_of(follower) not in ("", "Z"):
        assert time.monotonic() < deadline, "the follower outlives its leader"
        time.sleep(0.02)


def test_a_follower_that_hangs_when_all_is_done_keeps_nobody() -> None:
    leader = start("stopped at the end")
    out, err = leader.communicate(timeout=120)
    assert (out, leader.returncode) == ("met\n", 0), err
    assert "event=ranks_not_parted waited_s=3" in err


def test_a_node_that_hangs_when_all_is_done_keeps_nobody() -> None:
    place = {"PET_NNODES": "2", "PET_MASTER_ADDR": "127.0.0.1", "PET_MASTER_PORT": str(free_port())}
    place["GLOO_SOCKET_IFNAME"] = "lo"
    other, leader = (start("stopped at the end", "1", PET_NODE_RANK=number, **place) for number in ("1", "0"))
    try:
        # Nobody on this node can kill the one that hangs, and so end what was begun with it.
        out, err = leader.communicate(timeout=60)
        assert (out, leader.returncode, state_of(other.pid)) == ("met\n", 0, "T"), err
        assert "event=ranks_not_parted waited_s=3" in err
    finally:
        leader.kill()
        other.kill()
        other.communicate()


def test_a_rank_that_is_alone_makes_no_group_and_waits_for_nobody() -> None:
    existed = dist.is_initialized()
    with together(1, start) as ranks:
        assert (ranks.size, ranks.board, dist.is_initialized()) == (1, None, existed)
        ranks.await_leader("evaluated")


def test_a_follower_waits_for_the_deed_of_its_leader_and_for_no_other(tmp_path: Path) -> None:
    board, ended = FolderStore(tmp_path / "board"), threading.Event()
    leader, follower = (Ranks(number, 2, CPU, board) for number in (0, 1))

    def wait() -> None:
        follower.await_leader("measured")
        ended.set()

    threading.Thread(target=wait, daemon=True).start()
    leader.await_leader("read")
    assert not ended.wait(0.3)
    leader.await_leader("measured")
    assert ended.wait(10)
