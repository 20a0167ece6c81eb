"""What a language model is asked about a clip, and what its answer has to be."""

import base64
import json
import re
from collections.abc import Sequence
from typing import Any

from telecine_components.media.clips import PARTS

MAX_WORDS, MAX_CHARS = 250, 3000
"""Of one part; a longer one is no caption but an essay, or goes in circles, perhaps without a space."""
_WHAT = {
    "dense": "one paragraph of at most 120 words that tells all of it: who or what, where, how it looks and moves",
    "main_object": "the main subject: what it is, how it looks, where in the picture it is",
    "background": "where it plays: surroundings, light, what lies behind the subject",
    "camera": "the camera: shot size, angle, and how it moves (pan, tilt, zoom, dolly, truck, static, handheld)",
    "style": "the look: live action or animation, colours, mood, sharpness",
    "action": "what happens, in the order of time",
}
PROMPT = (
    "These are {num} frames of one shot of a video in the order of time, evenly spaced over {duration_s:.1f} seconds. "
    "Describe the shot for somebody who wants to film it again. Say only what can be seen; guess no names, no sound "
    "and nothing outside the frame. Do not speak of frames, images or the viewer. Answer with one JSON object that has "
    "exactly these keys, each a string that is not empty:\n{keys}"
)
FORMAT: dict[str, Any] = {
    "type": "json_schema",
    "json_schema": {
        "name": "caption",
        "strict": True,
        "schema": {
            "type": "object",
            "properties": {part: {"type": "string", "description": what} for part, what in _WHAT.items()},
            "required": list(PARTS),
            "additionalProperties": False,
        },
    },
}
"""For servers that can hold a model to a schema."""


class BadAnswer(Exception):
    """There is no caption of this clip; another try may give one, unless it ``is_final``."""

    def __init__(self, reason: str, num_tokens: int = 0, *, is_final: bool = False) -> None:
        super().__init__(reason)
        self.reason, self.num_tokens, self.is_final = reason, num_tokens, is_final


def messages(jpegs: Sequence[bytes], duration_s: float) -> list[dict[str, Any]]:
    """The question about frames, which go with it as data URLs."""
    keys = "\n".join(f'- "{part}": {what}' for part, what in _WHAT.items())
    text = PROMPT.format(num=len(jpegs), duration_s=duration_s, keys=keys)
    pictures = [{"type": "image_url", "image_url": {"url": _data_url(jpeg)}} for jpeg in jpegs]
    return [{"role": "user", "content": [*pictures, {"type": "text", "text": text}]}]


def parse(answer: str) -> dict[str, str]:
    """The six parts of an answer.

    Raises:
        BadAnswer: it is not one JSON object with all of them, each a text of reasonable length.
    """
    found = re.search(r"\{.*\}", answer, re.DOTALL)  # some models wrap it in a code fence or begin with a word
    try:
        said = json.loads(found.group()) if found else None
    except (ValueError, RecursionError) as error:  # also a number of thousands of digits, and too many brackets
        raise BadAnswer(f"not JSON: {error}"[:200]) from None
    if not isinstance(said, dict):
        raise BadAnswer(f"not a JSON object: {answer[:60]!r}")
    parts = {part: said.get(part) for part in PARTS}
    unlike = [part for part, text in parts.items() if not isinstance(text, str) or not text.strip()]
    if unlike:
        raise BadAnswer(f"without {', '.join(unlike)}")
    texts = {part: " ".join(str(text).split()) for part, text in parts.items()}
    halves = [part for part, text in texts.items() if any("\ud800" <= sign <= "\udfff" for sign in text)]
    if halves:  # of a surrogate pair, which no file takes
        raise BadAnswer(f"half a character in {', '.join(halves)}")
    long = [part for part, text in texts.items() if len(text) > MAX_CHARS or text.count(" ") >= MAX_WORDS]
    if long:
        raise BadAnswer(f"{', '.join(long)} has more than {MAX_WORDS} words, or {MAX_CHARS} characters")
    return texts


def _data_url(jpeg: bytes) -> str:
    return f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}"
