"""The process runner: the command line as a child of the task, in the same Python."""

import os
import subprocess
import sys
import time

from telecine.launch import SUBMITTED, Launch

STOP_GRACE_S = 30.0
"""How long a stopped component may take to save before it is killed."""


class Child(subprocess.Popen[str]):
    """A started component: its standard output holds all it says, SIGTERM asks it to save and end."""

    def cause(self) -> str:
        """How it ended, in a few words."""
        code = self.returncode
        return f"killed by signal {-code}" if code < 0 else f"exit {code}"

    def stop(self) -> None:
        """Ask the component to save, and kill it when it does not end in time; nothing where it has ended."""
        if self.poll() is not None:
            return
        self.terminate()
        try:
            self.wait(STOP_GRACE_S)
        except subprocess.TimeoutExpired:
            self.kill()


def start(launch: Launch) -> Child:
    """Start the component."""
    started_by = {"TELECINE_PARENT_PID": str(os.getpid()), SUBMITTED: repr(time.time())}
    return Child(
        [sys.executable, "-P", "-m", "telecine.cli", *launch.argv()[1:]],
        env=os.environ | launch.variables() | started_by,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
