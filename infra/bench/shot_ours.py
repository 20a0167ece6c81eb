"""Our side of the shot benches, in a process of its own: ``shot_ours.py find|decode FILE``.

Prints, as JSON, the CPU seconds (user and system, all threads) from opening a file to its shots, or to its last frame
decoded and nothing done with it, and what was found.
"""

import json
import resource
import sys
from pathlib import Path

from telecine_components.media.decode import open_video
from telecine_components.media.shots.film import film_of


def _cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    """See the module."""
    what, path = sys.argv[1], Path(sys.argv[2])
    began = _cpu_s()
    if what == "find":
        cuts = [each.first for each in film_of(path).transitions]
    else:
        with open_video(path) as video:
            cuts = [sum(1 for _ in video.frames())]
    print(json.dumps({"cpu_s": _cpu_s() - began, "cuts": cuts}))


if __name__ == "__main__":
    main()
