"""A component on a leash saves and ends once whoever holds the other end of its standard input is gone."""

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

BODY = """
print("up", flush=True)
while not ctx.stop_requested:
    time.sleep(0.05)
raise RetryLater("saved")
"""


@pytest.fixture
def leashed(toys: Any) -> Iterator["subprocess.Popen[str]"]:
    """A component that works until it is stopped, on a leash."""
    toys.add("text.wait", what="Waits.", inputs="", outputs="", body=BODY)
    process = subprocess.Popen(
        [sys.executable, "-m", "telecine.cli", "run", "text.wait"],
        env=toys.environment | {"TELECINE_LEASH": "stdin"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    yield process
    process.kill()
    process.wait()


def test_a_component_works_while_its_leash_is_held_and_saves_when_it_is_not(
    leashed: "subprocess.Popen[str]",
) -> None:
    assert leashed.stdin is not None
    assert leashed.stdout is not None
    assert leashed.stdout.readline().strip() == "up"
    with pytest.raises(subprocess.TimeoutExpired):
        leashed.wait(1)
    leashed.stdin.close()
    assert leashed.wait(20) == 75
