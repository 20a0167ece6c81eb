"""What a captioner says of a clip."""

import dataclasses
import threading
import time
from collections.abc import Mapping, Sequence

from telecine_components.media.clips import PARTS

Parts = Mapping[str, str | None]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Told:
    """A caption.

    Attributes:
        parts: text of each of :data:`telecine_components.media.clips.PARTS`, None where nothing can be said. None of
            them are there after a fault.
        captioner: who says it.
        fault: why it said nothing, or empty.
        num_output_tokens: what a language model wrote for it, failed answers included.
    """

    parts: Parts
    captioner: str
    fault: str = ""
    num_output_tokens: int = 0


class Meter:
    """Tokens that a model wrote; threads may share it."""

    def __init__(self) -> None:
        self._lock, self._started_s, self.num_tokens = threading.Lock(), time.monotonic(), 0

    def add(self, num_tokens: int) -> None:
        with self._lock:
            self.num_tokens += num_tokens

    @property
    def tokens_per_s(self) -> float:
        """Since it was made."""
        return self.num_tokens / max(time.monotonic() - self._started_s, 1e-9)


def merged(captions: Sequence[Parts]) -> dict[str, str | None]:
    """One caption of several of successive windows: part by part in the order of time, no sentence said twice."""
    texts = {part: dict.fromkeys(text for each in captions if (text := each[part])) for part in PARTS}
    return {part: " ".join(said) or None for part, said in texts.items()}
