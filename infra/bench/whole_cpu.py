"""``whole_cpu.py FILE COMMAND…``: run a command; write user and system seconds of it and of all its descendants.

Worker processes of a fork server are nobody's children at the end, and would be counted by nobody. Here they become
children of this process, which waits for every one of them.
"""

import ctypes
import os
import resource
import subprocess
import sys
from pathlib import Path

PR_SET_CHILD_SUBREAPER = 36
"""Of Linux's prctl: orphans among the descendants become this process's children."""


def main() -> int:
    """Exit as the command does."""
    target, *command = sys.argv[1:]
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")
    process = subprocess.Popen(command)
    code = None
    while True:
        try:
            found, status = os.wait()
        except ChildProcessError:
            break
        if found == process.pid:
            code = process.returncode = os.waitstatus_to_exitcode(status)
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    Path(target).write_text(str(usage.ru_utime + usage.ru_stime))
    return code if code is not None and code >= 0 else 1


if __name__ == "__main__":
    sys.exit(main())
