"""What a person may ask for: typed, bounded, and refused in one sentence that says what, which value and what fits."""

import dataclasses
import json
from typing import Any

from telecine import config
from telecine.errors import InputError
from telecine_components.deploy.serve.tasks import Film

OWNER = "video request"
SIZES = ("num_frames", "height_px", "width_px")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Limits:
    """Bounds of one service.

    Attributes:
        defaults: values that a request need not give.
        patch: frames, height and width of the model's patch; a size is a multiple of it.
        most: the largest value of each bounded field.
    """

    defaults: dict[str, Any]
    patch: tuple[int, int, int]
    most: dict[str, int]
    max_prompt_chars: int

    def film(self, body: bytes) -> Film:
        """The film that the body of a request (a JSON object) asks for; raises :class:`InputError`."""
        try:
            values = json.loads(body)
        except (ValueError, RecursionError) as error:  # no UTF-8, no JSON, an integer of thousands of digits
            raise InputError(f"{OWNER}: the body must be a JSON object, got none that parses: {error}") from None
        if not isinstance(values, dict):
            raise InputError(f"{OWNER}: the body must be a JSON object, got {type(values).__name__}")
        film = config.build(Film, {**self.defaults, **values}, owner=OWNER)
        self._check_prompt(film.prompt)
        for name, most in self.most.items():
            if getattr(film, name) > most:
                raise InputError(f"{OWNER}: {name} must be at most {most} here, got {getattr(film, name)}")
        for name, patch in zip(SIZES, self.patch, strict=True):
            if getattr(film, name) % patch:
                raise InputError(
                    f"{OWNER}: {name} must be a multiple of {patch} (the model's patch), got {getattr(film, name)}"
                )
        return film

    def _check_prompt(self, prompt: str) -> None:
        if not prompt.strip():
            raise InputError(f"{OWNER}: prompt must say something, got {prompt!r}")
        if len(prompt) > self.max_prompt_chars:
            raise InputError(f"{OWNER}: prompt must be at most {self.max_prompt_chars} characters, got {len(prompt)}")
        try:
            prompt.encode()
        except UnicodeEncodeError as error:
            raise InputError(f"{OWNER}: prompt must be valid Unicode, got {error.reason} at {error.start}") from None
