"""Reading what the Kubernetes API answered without trusting its shape: any field may be absent or of another kind."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from telecine.redaction import mask

Object = Mapping[str, Any]
"""A Kubernetes object, or a part of one, as JSON gives it."""
MAX_CHARS = 300
"""Longest reason that is kept of what the API said."""


class Why(NamedTuple):
    """Why something waits, in one line, and whether waiting does not mend it."""

    text: str
    hopeless: bool = False


def at(found: object, *path: str) -> Any:
    """What stands at the end of a path of keys; None where a key is absent or a value is no object."""
    for key in path:
        found = found.get(key) if isinstance(found, Mapping) else None
    return found


def text(found: object, *path: str) -> str:
    """The string at the end of the path, or the empty one."""
    value = at(found, *path)
    return value if isinstance(value, str) else ""


def number(found: object, *path: str) -> int | None:
    """The integer at the end of the path, if there is one."""
    value = at(found, *path)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def objects(found: object, *path: str) -> list[Object]:
    """The objects of the list at the end of the path; what is no object is left out."""
    value = at(found, *path)
    listed = value if isinstance(value, Sequence) and not isinstance(value, str) else []
    return [item for item in listed if isinstance(item, Mapping)]


def condition(found: object, kind: str) -> Object:
    """The status condition of that type, or an empty one."""
    return next((one for one in objects(found, "status", "conditions") if text(one, "type") == kind), {})


def holds(found: object, kind: str) -> bool:
    """Whether the object has that condition and it is true."""
    return text(condition(found, kind), "status") == "True"


def message(event: object) -> str:
    """What an event says; its two APIs call it differently."""
    return text(event, "message") or text(event, "note")


def about(event: object) -> str:
    """Name of the object that an event is about."""
    return text(event, "involvedObject", "name") or text(event, "regarding", "name")


def line(said: str) -> str:
    """The text on one line without secrets, cut where it is longer than a person reads."""
    whole = " ".join(mask(said).split())
    return whole if len(whole) <= MAX_CHARS else whole[: MAX_CHARS - 1].rstrip() + "…"


def last_line(said: str) -> str:
    """The last line that holds anything."""
    return next((part.strip() for part in reversed(said.splitlines()) if part.strip()), "")


def ordinal(place: int) -> str:
    """1st, 2nd, 3rd, 4th, 11th, 21st."""
    ending = "th" if 10 < place % 100 < 14 else {1: "st", 2: "nd", 3: "rd"}.get(place % 10, "th")
    return f"{place}{ending}"
