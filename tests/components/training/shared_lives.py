"""Two ranks that meet and count each other, with a fault planted in the one that follows.

``shared_lives.py FAULT [NUM_PROCESSES]``: both in this process and its child, or one of them on each of two nodes.
"""

import os
import signal
import sys
import time
from collections.abc import Callable

from telecine.errors import InputError, TelecineError
from telecine_components.training.ranks import Ranks, together

FAULT = sys.argv[1]
NUM_PROCESSES = int(sys.argv[2]) if sys.argv[2:] else 2
FAREWELL_S = 3.0
if __name__ != "__main__" and FAULT == "killed on its way":
    os.kill(os.getpid(), signal.SIGKILL)


def follow(ranks: Ranks, fault: str) -> None:
    """Meet the fault, or take part."""
    faults: dict[str, Callable[[], object]] = {
        "killed": lambda: os.kill(os.getpid(), signal.SIGKILL),
        "stopped": lambda: os.kill(os.getpid(), signal.SIGSTOP),
        "wrong input": lambda: _raise(InputError("the shard 7 is missing; encode it again")),
        "broken": lambda: _raise(ZeroDivisionError("of nothing")),
    }
    faults.get(fault, lambda: None)()
    ranks.total(1.0)
    if fault == "stopped at the end":
        os.kill(os.getpid(), signal.SIGSTOP)


def _raise(error: Exception) -> None:
    raise error


def main() -> int:
    """Lead; the exit code is that of the error."""
    try:
        with together(NUM_PROCESSES, follow, FAULT, farewell_s=FAREWELL_S) as ranks:
            print("met", flush=True)
            if not ranks.leads:
                follow(ranks, FAULT)
                return 0
            if FAULT == "stopped":
                time.sleep(600)
            ranks.total(1.0)
    except (TelecineError, RuntimeError) as error:
        print(f"{type(error).__name__}: {error}", flush=True)
        return getattr(error, "exit_code", 1)
    return 0


if __name__ == "__main__":
    sys.exit(main())
