"""What an image installs: the project's own dependencies and those of one extra, one requirement a line.

It runs inside a build, before anything is installed there, and needs the standard library alone.
"""

import sys
import tomllib
from pathlib import Path


def wanted(project: Path, extra: str) -> list[str]:
    """Requirements of ``extra``, sorted; constraints.txt holds their versions.

    Args:
        project: a pyproject.toml.

    Raises:
        SystemExit: there is no such extra.
    """
    metadata = tomllib.loads(project.read_text())["project"]
    extras = metadata["optional-dependencies"]
    if extra not in extras:
        sys.exit(f"{project} has no extra {extra!r}; known: {', '.join(sorted(extras))}")
    return sorted([*metadata["dependencies"], *extras[extra]])


if __name__ == "__main__":
    print("\n".join(wanted(Path(sys.argv[1]), sys.argv[2])))
