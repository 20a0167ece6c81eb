"""The code behind a component: its import closure, and a digest of each module's bytes.

The closure covers the packages named by the entry points ``telecine.components`` and ``telecine.sources``. The
platform itself stays outside: it moves bytes and never makes them (docs/adr/0003).
"""

import functools
import hashlib
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path

import grimp

from telecine.component import packages

SOURCE_GROUP = "telecine.sources"


def module_digests(entry_module: str) -> dict[str, str]:
    """Digest of every first-party module that ``entry_module`` imports, itself included."""
    graph = _graph(entry_module.partition(".")[0])
    closure = {entry_module, *graph.find_upstream_modules(entry_module)}
    return {module: _digest(module) for module in sorted(closure)}


def combined(modules: dict[str, str]) -> str:
    """One digest for :func:`module_digests`."""
    text = "".join(f"{digest}  {module}\n" for module, digest in sorted(modules.items()))
    return hashlib.sha256(text.encode()).hexdigest()


@functools.cache
def _graph(package: str) -> grimp.ImportGraph:
    sources = {point.value for point in entry_points(group=SOURCE_GROUP)}
    return grimp.build_graph(*sorted({package, *packages(), *sources}), cache_dir=None)


def _digest(module: str) -> str:
    """By the file's place: find_spec imports the packages above a module, and with them what only its image holds."""
    top, *inner = module.split(".")
    package = find_spec(top)
    assert package is not None and package.submodule_search_locations is not None
    place = Path(package.submodule_search_locations[0], *inner)
    file = place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
    return hashlib.sha256(file.read_bytes()).hexdigest()[:16]
