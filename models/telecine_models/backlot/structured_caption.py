"""Captions of clips: one sentence, and six parts as in Any2Caption (arXiv 2503.24379), true by construction."""

import dataclasses
import re

import numpy as np

from telecine_models.backlot.actions import KEYS, Walk
from telecine_models.backlot.camera import Move
from telecine_models.backlot.styles import Setting, Style
from telecine_models.backlot.world import STANDS, Part, Pattern

PARTS = ("dense", "main_object", "background", "camera", "style", "action")
_TITLES = {name: f"{name.replace('_', ' ').capitalize()} caption" for name in PARTS}
_STYLES: dict[Style, str] = {
    "studio": "A clean animation of flat shaded shapes in a bare studio with soft light",
    "open world": "A soft natural look with hazy distances under a cloudy sky, as in a nature film",
    "block game": "A video game with blocky textures, few bright colours, and hearts and slots on the display",
    "neon game": "A dark neon video game with scan lines, glowing bars and a small map on the display",
}
_PATTERNS: dict[Pattern, str] = {
    "plain": "",
    "striped": "striped ",
    "dotted": "dotted ",
    "checkered": "checkered ",
    "ringed": "ringed ",
}
_NUMBERS = {2: "two", 3: "three"}
_VERBS = {"pan": "pans", "tilt": "tilts", "roll": "rolls", "zoom": "zooms", "dolly": "dollies", "truck": "trucks"}
_KEY_WORDS = {
    "W": "walks forward",
    "S": "walks backward",
    "A": "steps left",
    "D": "steps right",
    "space": "jumps",
    "shift": "sneaks",
    "ctrl": "sprints",
}
_LITTLE_DEG = 5.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class StructuredCaption:
    """The six parts, each one or more sentences."""

    dense: str
    main_object: str
    background: str
    camera: str
    style: str
    action: str

    @property
    def text(self) -> str:
        """All parts as one numbered text, "1. Dense caption: ... 2. Main object caption: ..."."""
        return " ".join(f"{index}. {_TITLES[name]}: {getattr(self, name)}" for index, name in enumerate(PARTS, start=1))


def parse_structured(text: str) -> StructuredCaption:
    """Read what :attr:`StructuredCaption.text` writes.

    Raises:
        ValueError: a part is missing or empty, or their order or numbers are others.
    """
    pattern = " ".join(rf"{index}\. {_TITLES[name]}: (?P<{name}>\S.*?)" for index, name in enumerate(PARTS, start=1))
    found = re.fullmatch(pattern, text, re.DOTALL)
    if found is None:
        wanted = ", ".join(f"{index}. {_TITLES[name]}" for index, name in enumerate(PARTS, start=1))
        raise ValueError(f"structured caption: expected the parts {wanted}, none empty, got {text!r}")
    return StructuredCaption(**found.groupdict())


def sentence(parts: tuple[Part, ...], setting: Setting, move: Move | None) -> str:
    """One sentence without the patterns: the grammar of the films wherever that has words for what happens.

    ``move`` is None where a player moves the camera.
    """
    subjects = " and ".join(_clauses(parts, [name(part, with_pattern=False) for part in parts]))
    if setting.place is None:
        texture = "" if setting.texture == "plain" else f"{setting.texture} "
        where = f"on {with_article(f'{texture}{setting.colour} background')}"
    else:
        where = f"in {with_article(_place(setting))}"
    if move is None:
        return f"{subjects} {where} while a player moves the camera"
    camera = "" if move.kind == "static" else f" while the camera {moves(move)}"
    return f"{subjects} {where}{camera}"


def structured(
    parts: tuple[Part, ...],
    setting: Setting,
    move: Move | None,
    walked: Walk | None,
    num_flashes: int,
    defects: tuple[tuple[str, float], ...],
) -> StructuredCaption:
    """Say it all in six parts."""
    action = _action(parts, walked, num_flashes)
    camera = _camera(move, walked)
    style = _style(setting.style, defects)
    whole = sentence(parts, setting, move)
    return StructuredCaption(
        dense=f"{_capital(whole)}. {action} {camera} {style}",
        main_object=_main_object(parts),
        background=_background(setting),
        camera=camera,
        style=style,
        action=action,
    )


def name(part: Part, *, with_pattern: bool = True) -> str:
    """A part's things with their number and look, as in "two small red striped circles"."""
    size = "" if part.size == "medium" else f"{part.size} "
    pattern = _PATTERNS[part.look.pattern] if with_pattern else ""
    look = f"{size}{part.look.colour} {pattern}{part.look.shape}"
    return with_article(look) if part.count == 1 else f"{_NUMBERS[part.count]} {look}s"


def moves(move: Move) -> str:
    """What a camera that moves does, as in "pans left"."""
    if move.kind == "orbit":
        return f"orbits {move.direction} around the scene"
    return f"{_VERBS[move.kind]} {move.direction}"


def with_article(words: str) -> str:
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def _main_object(parts: tuple[Part, ...]) -> str:
    first, *others = parts
    text = f"The main object is {name(first)}." if first.count == 1 else f"The main objects are {name(first)}."
    return text if not others else f"{text} There {_is(others[0])} also {_listed([name(part) for part in others])}."


def _background(setting: Setting) -> str:
    if setting.place is None:
        look = "plain" if setting.texture == "plain" else setting.texture
        return f"The background is a bare room with {look} {setting.colour} walls and a floor of the same kind."
    return f"The background is {with_article(_place(setting))} with low walls far away, under an open sky."


def _camera(move: Move | None, walked: Walk | None) -> str:
    if move is None:
        turned = np.zeros(2) if walked is None else walked.angles_deg[-1]
        ends = [
            f"{abs(degrees):.0f} degrees to the {words[int(degrees > 0)]}"
            for degrees, words in zip(turned, (("left", "right"), ("top", "bottom")), strict=True)
            if abs(degrees) > _LITTLE_DEG
        ]
        where = f"and ends turned by {_listed(ends)}" if ends else "and ends about as it began"
        return f"First-person view: the camera is moved by a player {where}."
    if move.kind == "static":
        return "The camera is static."
    return f"The camera {moves(move)}: a {move.name} of {move.amount:.3g} {move.unit}."


def _style(style: Style, defects: tuple[tuple[str, float], ...]) -> str:
    flaws = [f"{_degree(severity)} {kind}" for kind, severity in defects]
    return f"{_STYLES[style]}." + (f" The footage is spoilt by {_listed(flaws)}." if flaws else "")


def _action(parts: tuple[Part, ...], walked: Walk | None, num_flashes: int) -> str:
    texts = [f"{_capital(clause)}." for clause in _clauses(parts, [_the(part) for part in parts])]
    if walked is not None:
        # Who sprints without a step stays where he is.
        steps = walked.actions.keys[:, :4].any(axis=1)
        ways = {key: walked.actions.keys[:, index] & (steps if key == "ctrl" else 1) for index, key in enumerate(KEYS)}
        pressed = [words for key, words in _KEY_WORDS.items() if ways[key].any()]
        texts.append(f"The player {_listed(pressed) if pressed else 'stays in place'}.")
    if num_flashes:
        texts.append("A flash lights up everything." if num_flashes == 1 else f"{num_flashes} flashes light it up.")
    return " ".join(texts)


def _clauses(parts: tuple[Part, ...], names: list[str]) -> list[str]:
    """Who does what, part by part; those that only stand are told together."""
    standing = [name for part, name in zip(parts, names, strict=True) if part.deed == STANDS]
    clauses = [f"{name} {part.deed}" for part, name in zip(parts, names, strict=True) if part.deed != STANDS]
    if not standing:
        return clauses
    return [*clauses, f"{_listed(standing)} {STANDS if len(standing) == 1 else 'stand on the ground'}"]


def _the(part: Part) -> str:
    return f"the {part.look.colour} {part.look.shape}{'' if part.count == 1 else 's'}"


def _place(setting: Setting) -> str:
    scenery = {"plains": "grassy plain", "forest": "dark forest floor", "desert": "sandy desert"}
    kind = {"open world": "natural", "block game": "blocky", "neon game": "glowing"}
    return f"{kind[setting.style]} {scenery[setting.place or 'plains']}"


def _degree(severity: float) -> str:
    return "slight" if severity < 1 / 3 else "clear" if severity < 2 / 3 else "heavy"


def _is(part: Part) -> str:
    return "is" if part.count == 1 else "are"


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


def _listed(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
