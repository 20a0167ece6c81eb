"""Typed inputs: frozen dataclasses with bounds, read from JSON, TOML and ``--set key=value``.

A field is declared once, with :func:`param`; its check, its help text, its JSON schema and its place in
Airflow's trigger form all come from that declaration. Unknown keys are errors, never ignored.
"""

import dataclasses
import difflib
import json
import math
import os
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NewType, TypeVar, get_args, get_origin, get_type_hints

from telecine.errors import InputError

T = TypeVar("T")
Artifact = NewType("Artifact", str)
"""A file or folder, named by URI in inputs and by its path under ``ctx.dir`` in outputs.

What counts for reuse is the digest of its bytes, never where it lies.
"""

_JSON_TYPES = {bool: "boolean", int: "integer", float: "number", str: "string"}
_BOUNDS = {"ge": "minimum", "gt": "exclusiveMinimum", "le": "maximum", "lt": "exclusiveMaximum"}


def param(
    default: Any = dataclasses.MISSING,
    *,
    help: str,
    ge: float | None = None,
    gt: float | None = None,
    le: float | None = None,
    lt: float | None = None,
    choices: tuple[str, ...] | None = None,
    keyed: bool = True,
    needed_with: tuple[str, str] | None = None,
) -> Any:
    """Declare one input: its default, its meaning in a sentence, and the bounds it must keep.

    Args:
        keyed: whether another value is other work. Not for how work is done and not what is computed: calls that
            differ in it alone meet at one address, go on from each other's checkpoints and reuse each other's result.
        needed_with: another input and a value of it with which this one must not be empty.

    Raises:
        ValueError: an input without a default that is not keyed.
    """
    if not keyed and default is dataclasses.MISSING:
        raise ValueError("param: an input that is not keyed must have a default")
    rules = {"ge": ge, "gt": gt, "le": le, "lt": lt, "choices": choices, "needed_with": needed_with}
    rules |= {"keyed": None if keyed else False}
    metadata = {"help": help} | {name: rule for name, rule in rules.items() if rule is not None}
    return dataclasses.field(default=default, metadata=metadata)


def build(cls: type[T], values: Mapping[str, Any], *, owner: str) -> T:
    """Make a ``cls`` from plain values.

    Raises:
        InputError: for an unknown or missing key, a wrong type, a broken bound, or an input that another one needs;
            ``owner`` opens the message.
    """
    checked = check(cls, values, owner=owner)
    missing = [f.name for f in _fields(cls) if f.default is dataclasses.MISSING and f.name not in values]
    if missing:
        raise InputError(f"{owner}: {', '.join(missing)} must be given; set it with --set {missing[0]}=…")
    made = cls(**checked)
    for field in _fields(cls):
        other, value = field.metadata.get("needed_with", ("", None))
        if other and getattr(made, other) == value and not getattr(made, field.name):
            raise InputError(f"{owner}: {field.name} must be given where {other} is {value!r}")
    return made


def check(cls: type, values: Mapping[str, Any], *, owner: str) -> dict[str, Any]:
    """Plain values of some fields of a ``cls``, typed; raises :class:`InputError` as :func:`build` does."""
    for name in values:
        check_name(cls, name, owner=owner)
    fields = {field.name: field for field in _fields(cls)}
    types = get_type_hints(cls)
    return {name: _checked(fields[name], types[name], value, owner) for name, value in values.items()}


def check_name(cls: type, name: str, *, owner: str) -> None:
    """Raise :class:`InputError` unless ``cls`` has a field ``name``; suggests the nearest one."""
    names = [field.name for field in _fields(cls)]
    if name not in names:
        near = difflib.get_close_matches(name, names, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(names) or 'none'}"
        raise InputError(f"{owner}: there is no {name!r}; {hint}")


def load(text: str) -> dict[str, Any]:
    """Read inputs from a JSON object, a variable that holds one (``env:NAME``), or a ``.toml`` or ``.json`` file."""
    if text.lstrip().startswith("{"):
        return _object(text, "--inputs")
    if text.startswith("env:"):
        name = text.removeprefix("env:")
        if name not in os.environ:
            raise InputError(f"--inputs: there is no variable {name!r}; it should hold a JSON object")
        return _object(os.environ[name], name)
    path = Path(text.removeprefix("file://"))
    if not path.is_file():
        raise InputError(f"--inputs: no file {text!r}; expected a JSON object or a .toml or .json file")
    return read_toml(path) if path.suffix == ".toml" else _object(path.read_text(), str(path))


def read_toml(path: Path) -> dict[str, Any]:
    """A TOML file that a person wrote; raises :class:`InputError` where it is none."""
    try:
        return tomllib.loads(path.read_text())
    except (ValueError, RecursionError) as error:  # of Python's own, too: what is no UTF-8, and 5000 digits
        raise InputError(f"{path}: not valid TOML: {error}") from error


def parse_setting(text: str, cls: type | None = None) -> tuple[str, Any]:
    """Read ``key=value`` as a person types it: text for a text field of ``cls``, else JSON where it parses."""
    name, equals, raw = text.partition("=")
    name = name.strip()
    if not equals:
        raise InputError(f"--set: expected key=value, got {text!r}")
    if cls is not None and _plain(get_type_hints(cls).get(name)) is str:
        return name, raw
    try:
        return name, json.loads(raw)
    except (ValueError, RecursionError):
        return name, raw


def json_schema(cls: type, name: str) -> dict[str, Any]:
    """JSON schema of one field, as Airflow's ``Param`` takes it."""
    field = next(f for f in _fields(cls) if f.name == name)
    annotation = get_type_hints(cls)[name]
    rules = {_BOUNDS[rule]: field.metadata[rule] for rule in _BOUNDS if rule in field.metadata}
    if "choices" in field.metadata:
        rules["enum"] = list(field.metadata["choices"])
    described: dict[str, Any] = {"description": field.metadata["help"]}
    if get_origin(annotation) is tuple:
        element = _JSON_TYPES[_plain(get_args(annotation)[0])]
        return described | {"type": "array", "items": {"type": element, **rules}}
    return described | {"type": _JSON_TYPES[_plain(annotation)], **rules}


def is_artifact(cls: type, name: str) -> bool:
    """Whether a field names bytes (compared by digest) rather than a value."""
    return get_type_hints(cls)[name] is Artifact


def is_keyed(cls: type, name: str) -> bool:
    """Whether another value of a field is other work; see :func:`param`. Raises TypeError for an artifact without."""
    field = next(f for f in _fields(cls) if f.name == name)
    keyed = bool(field.metadata.get("keyed", True))
    if not keyed and is_artifact(cls, name):
        raise TypeError(f"{cls.__module__}: {name} is an artifact, and what work is made from is always keyed")
    return keyed


def _fields(cls: type) -> tuple[dataclasses.Field[Any], ...]:
    return dataclasses.fields(cls)


def _plain(annotation: Any) -> Any:
    return str if annotation is Artifact else annotation


def _object(text: str, where: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where}: not valid JSON: {error}") from error
    if not isinstance(value, dict):
        raise InputError(f"{where}: expected a JSON object, got {type(value).__name__}")
    return value


def _checked(field: dataclasses.Field[Any], annotation: Any, value: Any, owner: str) -> Any:
    if get_origin(annotation) is tuple:
        if not isinstance(value, list | tuple):
            raise InputError(f"{owner}: {field.name} must be a list, got {value!r}")
        element = get_args(annotation)[0]
        return tuple(_checked(field, element, part, owner) for part in value)
    value = _typed(field.name, _plain(annotation), value, owner)
    if annotation is Artifact and value == "" and field.default is dataclasses.MISSING:
        raise InputError(f"{owner}: {field.name} must name a file or a folder, got {value!r}")
    _check_bounds(field, value, owner)
    return value


def _typed(name: str, expected: type, value: Any, owner: str) -> Any:
    if expected is float and type(value) is int:
        value = float(value) if abs(value) <= sys.float_info.max else math.inf
    if type(value) is not expected:
        raise InputError(f"{owner}: {name} must be of type {expected.__name__}, got {value!r}")
    if isinstance(value, float) and not math.isfinite(value):
        raise InputError(f"{owner}: {name} must be a finite number, got {value!r}")
    return value


def _check_bounds(field: dataclasses.Field[Any], value: Any, owner: str) -> None:
    rules = field.metadata
    tests = {
        "ge": ("at least", lambda bound: value >= bound),
        "gt": ("greater than", lambda bound: value > bound),
        "le": ("at most", lambda bound: value <= bound),
        "lt": ("less than", lambda bound: value < bound),
        "choices": ("one of", lambda bound: value in bound),
    }
    for rule, (words, holds) in tests.items():
        if rule in rules and not holds(rules[rule]):
            raise InputError(f"{owner}: {field.name} must be {words} {rules[rule]}, got {value!r}")
