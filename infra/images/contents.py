"""How many bytes an image holds, by what they belong to; run inside it, it prints that as JSON.

It needs the standard library alone, and reads file sizes, not a registry's compressed ones.
"""

import json
import os
import stat
from collections.abc import Iterable
from importlib.metadata import PackagePath, distributions
from pathlib import Path

NOT_OURS = ("/dev", "/proc", "/sys")
ENVIRONMENT = "/opt/telecine"


def measured() -> dict[str, int]:
    """Bytes in ``total``, of the ``base`` (all outside the environment), of each distribution, and of the ``rest``."""
    environment, total = _bytes_below(ENVIRONMENT), _bytes_below("/")
    packages = {found.name: _bytes_of(found.files or ()) for found in distributions(path=_site_packages())}
    rest = environment - sum(packages.values())
    return {"total": total, "base": total - environment, "rest": rest, **packages}


def told(sizes: dict[str, int], largest: int = 5) -> str:
    """One line for a person, in MiB: ``total = base + telecine + the largest packages + others``."""
    packages = {name: size for name, size in sizes.items() if name not in ("total", "base", "rest", "telecine")}
    top = sorted(packages, key=lambda name: -packages[name])[:largest]
    others = sum(size for name, size in packages.items() if name not in top) + sizes["rest"]
    parts = {"base": sizes["base"], "telecine": sizes["telecine"], **{name: packages[name] for name in top}}
    parts[f"{len(packages) - len(top)} others"] = others
    named = " + ".join(f"{name} {size / 2**20:.1f}" for name, size in parts.items())
    return f"{sizes['total'] / 2**20:.1f} MiB = {named}"


def _site_packages() -> list[str]:
    return [str(folder) for folder in Path(ENVIRONMENT, "lib").glob("python3*/site-packages")]


def _bytes_below(top: str) -> int:
    device, found = os.lstat(top).st_dev, 0
    for folder, folders, files in os.walk(top):
        inner = [os.path.join(folder, name) for name in folders]
        folders[:] = [os.path.basename(path) for path in inner if path not in NOT_OURS and _is_on(path, device)]
        found += sum(_size(os.path.join(folder, name)) for name in files)
    return found


def _is_on(path: str, device: int) -> bool:
    return os.lstat(path).st_dev == device


def _bytes_of(files: Iterable[PackagePath]) -> int:
    return sum(_size(str(file.locate())) for file in files)


def _size(path: str) -> int:
    """Bytes of a regular file; what was left out of the image, or lies in a folder not ours to read, counts nothing."""
    try:
        found = os.lstat(path)
    except OSError:
        return 0
    return found.st_size if stat.S_ISREG(found.st_mode) else 0


if __name__ == "__main__":
    print(json.dumps(measured()))
