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
    spec = find_spec(module)
    assert spec is not None and spec.origin is not None
    return hashlib.sha256(Path(spec.origin).read_bytes()).hexdigest()[:16]
