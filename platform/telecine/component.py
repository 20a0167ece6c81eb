"""What a component is: a light declaration that any process can import, and the heavy code it names.

``components/<area>/<verb>/spec.py`` holds ``Inputs``, ``Outputs`` and one ``COMPONENT``; the code named by
``entry`` is imported only in the process that runs it. A TOML file in a folder ``recipes`` beside it gives values of
inputs that belong together a name.
"""

import dataclasses
import difflib
import importlib
import pkgutil
import sys
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from telecine import config
from telecine.errors import InputError

ENTRY_POINT_GROUP = "telecine.components"
POOLS = {"telecine_light": "tasks of one processor", "telecine_heavy": "tasks of several processors or a GPU"}
"""Airflow pools that bound what runs at once; a deployment makes them and says how many slots each has."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Resources:
    """What one execution needs; never where it runs."""

    cpus: int = 1
    memory_gib: float = 1.0
    gpus: int = 0
    nodes: int = 1
    ray_workers: int = 0

    @property
    def pool(self) -> str:
        """The pool of :data:`POOLS` whose slots it takes."""
        return "telecine_heavy" if self.cpus > 1 or self.gpus else "telecine_light"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Component:
    """A step as a value.

    Attributes:
        name: ``area.verb``, which is also its folder and its tag.
        inputs, outputs: frozen dataclasses made of :func:`telecine.config.param` fields.
        entry: ``module:function`` with the signature ``run(inputs, ctx) -> outputs``.
        image: the dependency set that ``entry`` needs (``airflow curate train serve monitor``).
        effects: it changes the world outside its own address (registers, reports, deploys): it is never
            taken from another run's cache, and it is written to be idempotent.
        follower: ``module:function`` with the signature ``follow(inputs, follower) -> None``, which the nodes of a job
            run that do not lead; see :mod:`telecine.nodes`.
        max_nodes: how many nodes a cluster's profile may give it.
        max_ray_workers: how many Ray workers a cluster's profile may give it; 0 where it does not hand items out.
    """

    name: str
    inputs: type
    outputs: type
    entry: str
    image: str
    resources: Resources = Resources()
    effects: bool = False
    follower: str = ""
    max_nodes: int = 1
    max_ray_workers: int = 0

    def __post_init__(self) -> None:
        for cls in (self.inputs, self.outputs):
            if not dataclasses.is_dataclass(cls) or not cls.__dataclass_params__.frozen:  # type: ignore[attr-defined]
                raise TypeError(f"{self.name}: {cls.__name__} must be a frozen dataclass")

    @property
    def entry_module(self) -> str:
        """Module that holds the code, the root of the import closure that keys the work."""
        return self.entry.partition(":")[0]

    def parse(self, values: Mapping[str, Any]) -> Any:
        """Check plain values and make an ``Inputs``; raises :class:`InputError`."""
        return config.build(self.inputs, values, owner=self.name)

    @property
    def recipes(self) -> dict[str, Path]:
        """Files of the recipes beside the spec, by name; only their names are read."""
        spec = getattr(sys.modules.get(self.inputs.__module__), "__file__", None)
        folder = Path(spec).parent / "recipes" if spec else None
        return {path.stem: path for path in sorted(folder.glob("*.toml"))} if folder else {}

    def recipe(self, text: str) -> dict[str, Any]:
        """Values of inputs that a recipe of this component, or a person's own ``.toml`` file, gives.

        Raises:
            InputError: no such recipe or file, or a value that the inputs do not take.
        """
        path = Path(text) if text.endswith(".toml") else self._recipe_file(text)
        if not path.is_file():
            raise InputError(f"{self.name}: no file {text!r}; expected a recipe's name or a .toml file")
        values = config.read_toml(path)
        config.check(self.inputs, values, owner=f"{self.name}, recipe {text}")
        return values

    def _recipe_file(self, name: str) -> Path:
        known = self.recipes
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            listed = f"known: {', '.join(known)}" if known else "it has none"
            hint = f"did you mean {near[0]!r}?" if near else f"{listed}; a file of your own ends in .toml"
            raise InputError(f"{self.name}: there is no recipe {name!r}; {hint}")
        return known[name]

    def load(self) -> Callable[[Any, Any], Any]:
        """Import the heavy code and return its function."""
        module, _, function = self.entry.partition(":")
        loaded: Callable[[Any, Any], Any] = getattr(importlib.import_module(module), function)
        return loaded


def packages() -> list[str]:
    """Packages that declare components, by the entry point group ``telecine.components``."""
    return sorted({point.value for point in entry_points(group=ENTRY_POINT_GROUP)})


def names() -> list[str]:
    """Every installed component's name, sorted."""
    return sorted(name for package in packages() for name in _names_in(package))


def find(name: str) -> Component:
    """The component called ``name``; raises :class:`InputError` with the known names."""
    if name not in names():
        raise InputError(f"there is no component {name!r}; known: {', '.join(names()) or 'none installed'}")
    for package in packages():
        if name in _names_in(package):
            component: Component = importlib.import_module(f"{package}.{name}.spec").COMPONENT
            break
    if component.name != name:
        raise TypeError(f"{package}.{name}.spec declares {component.name!r}; folder and name must agree")
    return component


def _names_in(package: str) -> Iterator[str]:
    root = find_spec(package)
    if root is None or root.submodule_search_locations is None:
        return
    for area in pkgutil.iter_modules(root.submodule_search_locations):
        if not area.ispkg:
            continue
        folders = find_spec(f"{package}.{area.name}")
        assert folders is not None and folders.submodule_search_locations is not None
        for verb in pkgutil.iter_modules(folders.submodule_search_locations):
            if verb.ispkg and _has_spec(f"{package}.{area.name}.{verb.name}"):
                yield f"{area.name}.{verb.name}"


def _has_spec(package: str) -> bool:
    folder = find_spec(package)
    locations = folder.submodule_search_locations if folder else None
    return any(module.name == "spec" for module in pkgutil.iter_modules(locations or []))
