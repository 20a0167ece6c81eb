"""The built-in captioner: says what can be measured of a clip, and nothing else."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from telecine_components.caption.write import colours
from telecine_components.caption.write.camera import CELL_PX, camera_motion, steps_of
from telecine_components.caption.write.frames import Series, evenly
from telecine_components.caption.write.moves import camera_sentence
from telecine_components.caption.write.things import GRID, Things, things_of

Pixels = npt.NDArray[np.uint8]
Codes = npt.NDArray[np.intp]
Row = Mapping[str, Any]

MEASURES = ("blur", "overlay_text", "black_bars", "mean_shot_s")
"""Columns of the manifest that the words depend on, beside those that say which frames."""
PICTURES_PER_S = 4.0
MAX_PICTURES = 33
SIDE_PX = 192
"""Of the longer side; cells of 12 pixels are then a sixteenth of it."""
MOST, SOME = 0.5, 0.25
"""A part of the picture is called by a colour that half of it has; two share it that have a quarter each."""
DARK, BRIGHT = 60, 170
LOW_CONTRAST, HIGH_CONTRAST = 80, 190
GREY, MUTED, VIVID = 6.0, 25.0, 70.0
"""Colourfulness of Hasler and Süsstrunk (2003): from 15 "slightly" to 82 "highly colourful"."""
SOFT = 0.5
BAR_LEVEL, MAX_BAR = 24, 0.25
SMALL, LARGE = 0.03, 0.15
STILL_LEVELS = 4
MIN_PATCH_SHARE = 0.2
SLOW_PER_S, QUICK_PER_S = 0.06, 0.4
TEXT, BARS = 0.005, 0.03


def series(clip: Row) -> Series:
    """The pictures that a clip is described by."""
    duration_s = clip["end_s"] - clip["start_s"]
    num = int(np.clip(round(duration_s * PICTURES_PER_S), 2, MAX_PICTURES))
    return Series(evenly(num, 0.0, duration_s), SIDE_PX)


def described(seen: Sequence[Pixels], clip: Row) -> dict[str, str | None]:
    """The six parts for pictures, uint8 [H, W, 3] of one size, that lie evenly over a clip; None: nothing is known.

    Equal pictures and measures give equal words.
    """
    seen = _without_bars(seen)
    lumas = [_luma(picture) for picture in seen]
    steps = steps_of(lumas)
    motion, things = camera_motion(steps), things_of(steps)
    codes = np.stack([colours.names_of(picture) for picture in seen])
    camera = camera_sentence(motion, clip["end_s"] - clip["start_s"])
    looks = _looks(np.stack(seen), lumas, clip)
    background = _background(codes)
    main_object = _main_object(things, codes) if things else None
    action = _action(things) if things else "Nothing moves." if _is_still(lumas) else None
    return {
        "dense": _joined(background, looks and f"It is {looks}.", main_object, action, camera),
        "main_object": main_object,
        "background": background,
        "camera": camera,
        "style": _joined(looks and f"The picture is {looks}.", _overlays(clip), _rhythm(clip)) or None,
        "action": action,
    }


def _background(codes: Codes) -> str:
    """What colours the picture has, and where."""
    height, width = codes.shape[1:]
    third, side = height // 3, width // 3
    halves = {
        ("upper", "lower"): (codes[:, :third], codes[:, -third:]),
        ("left", "right"): (codes[:, :, :side], codes[:, :, -side:]),
    }
    for (one, other), areas in halves.items():
        first, second = (colours.commonest(area, min_share=MOST) for area in areas)
        if first and second and first != second:
            return f"The {one} part of the picture is mostly {first} and the {other} part mostly {second}."
    shares = colours.shares(codes)
    ranked = [colours.NAMES[index] for index in np.argsort(-shares, kind="stable") if shares[index] >= SOME]
    if not ranked:
        return "The picture has many colours, and none prevails."
    most = shares[colours.NAMES.index(ranked[0])] >= MOST
    return f"The picture is mostly {ranked[0] if most else colours.listed(ranked)}."


def _main_object(things: Things, codes: Codes) -> str:
    """What moves by itself: one or several, how large, of what colour and where."""
    size = "small " if things.area < SMALL else "large " if things.area > LARGE else ""
    colour = _colour_of(things, codes)
    where = _where(things.place)
    if things.num <= 1:
        look = colours.listed([word for word in (size.strip(), colour) if word]) if size or colour else ""
        return f"Something {look + ' ' if look else ''}moves {where}."
    return f"Several {size}things{f', mostly {colour},' if colour else ''} move {where}."


def _colour_of(things: Things, codes: Codes) -> str | None:
    """The colour that the places that move have more of than the picture."""
    height, width = codes.shape[1:]
    rows, columns = (np.arange(size) * GRID // size for size in (height, width))
    patches = [
        picture[spots[rows[:, None], columns[None, :]]] for picture, spots in zip(codes, things.spots, strict=False)
    ]
    patch = np.concatenate(patches)
    return colours.conspicuous(patch, codes, min_share=MIN_PATCH_SHARE) if len(patch) else None


def _where(place: tuple[float, float]) -> str:
    column = "left" if place[0] < 0.38 else "right" if place[0] > 0.62 else ""
    row = "upper" if place[1] < 0.38 else "lower" if place[1] > 0.62 else ""
    if row and column:
        return f"at the {row} {column}"
    edge = {"upper": "at the top", "lower": "at the bottom"}.get(row) or (f"on the {column}" if column else "")
    return edge or "in the middle"


def _action(things: Things) -> str:
    one = things.num <= 1
    across, down = things.move
    if not things.coherent:
        return "It moves about." if one else "They move about in different directions."
    way = ("to the right" if across > 0 else "to the left") if abs(across) > abs(down) else "down" if down > 0 else "up"
    speed = float(np.hypot(across, down)) * PICTURES_PER_S
    pace = " slowly" if speed < SLOW_PER_S else " quickly" if speed > QUICK_PER_S else ""
    return f"{'It goes' if one else 'They go'} {way}{pace}."


def _is_still(lumas: Sequence[Pixels]) -> bool:
    """Whether no part of the picture changes; what is too small or too slow to be followed may still change it."""
    if len(lumas) < 2:
        return False
    changes = [cv2.blur(cv2.absdiff(one, other), (CELL_PX, CELL_PX)).max() for one, other in pairwise(lumas)]
    return float(np.median(changes)) < STILL_LEVELS


def _looks(seen: Pixels, lumas: Sequence[Pixels], clip: Row) -> str | None:
    """Light, contrast, sharpness and colour of uint8 [F, H, W, 3] in words; None where all of it is ordinary."""
    low, high = np.percentile(lumas, (2, 98))
    light = float(np.mean(lumas))
    words = [
        "dark" if light < DARK else "bright" if light > BRIGHT else "",
        "low in contrast" if high - low < LOW_CONTRAST else "rich in contrast" if high - low > HIGH_CONTRAST else "",
        "soft" if (clip["blur"] or 0) > SOFT else "",
        _colourfulness(seen.astype(np.float64)),
    ]
    said = [word for word in words if word]
    return colours.listed(said) if said else None


def _colourfulness(rgb: npt.NDArray[np.float64]) -> str:
    red, green, blue = np.moveaxis(rgb, -1, 0)
    one, other = red - green, (red + green) / 2 - blue
    value = np.hypot(one.std(), other.std()) + 0.3 * np.hypot(one.mean(), other.mean())
    return (
        "black and white" if value < GREY else "muted in colour" if value < MUTED else "vivid" if value > VIVID else ""
    )


def _overlays(clip: Row) -> str | None:
    text = "There is text over it." if (clip["overlay_text"] or 0) > TEXT else None
    bars = "It has black bars." if (clip["black_bars"] or 0) > BARS else None
    return _joined(text, bars) or None


def _rhythm(clip: Row) -> str | None:
    every_s = clip["mean_shot_s"]
    return f"The footage it is taken from is cut about every {every_s:.1f} seconds." if every_s else None


def _luma(picture: Pixels) -> Pixels:
    grey: Pixels = np.asarray(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), np.uint8)
    return grey


def _without_bars(seen: Sequence[Pixels]) -> list[Pixels]:
    """The pictures without the rows above and below, and the columns beside, that are black in all of them."""
    lit = np.max([_luma(picture) for picture in seen], axis=0) > BAR_LEVEL
    (top, bottom), (left, right) = (_inner(lit.any(axis=axis)) for axis in (1, 0))
    return [np.ascontiguousarray(picture[top:bottom, left:right]) for picture in seen]


def _inner(lit: npt.NDArray[np.bool_]) -> tuple[int, int]:
    """First and last of what is lit, unless more than bars would be cut off: then it is the scene that is dark."""
    places, size = np.flatnonzero(lit), len(lit)
    if not len(places) or places[0] > MAX_BAR * size or places[-1] < (1 - MAX_BAR) * size - 1:
        return 0, size
    return int(places[0]), int(places[-1]) + 1


def _joined(*sentences: str | None) -> str:
    return " ".join(sentence for sentence in sentences if sentence)
