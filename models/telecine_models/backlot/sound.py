"""What is heard: events with their times, and a waveform that sounds at them and is silent elsewhere."""

import dataclasses
from typing import Literal

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Waveform = npt.NDArray[np.float32]
Kind = Literal["bounce", "collision", "flash", "landing"]

_DECAY_S = 0.035
_LENGTH_S = 0.2
_PARTIALS_HZ: dict[Kind, tuple[float, ...]] = {
    "bounce": (220.0, 440.0),
    "collision": (900.0, 1430.0, 2300.0),
    "landing": (90.0, 140.0),
}
_LOUDEST = 0.8


@dataclasses.dataclass(frozen=True, order=True)
class Event:
    """Something that is heard.

    Attributes:
        object: index of the thing that makes the sound, -1 if none does.
        strength: loudness in (0, 1].
        side: where from, -1 at the left and 1 at the right.
    """

    time_s: float
    kind: Kind
    object: int
    strength: float
    side: float


def waveform(
    events: tuple[Event, ...], duration_s: float, *, sample_rate_hz: int = 16000, num_channels: int = 1
) -> Waveform:
    """Samples in -1..1, float32 [channels, samples]: a short decaying sound begins at each event.

    Of two channels the first is the left one, and an event is louder in the one it is nearer to.

    Raises:
        ValueError: a rate below 8000, or channels that are neither one nor two.
    """
    if sample_rate_hz < 8000:
        raise ValueError(f"waveform: sample_rate_hz must be at least 8000, got {sample_rate_hz}")
    if num_channels not in (1, 2):
        raise ValueError(f"waveform: num_channels must be 1 or 2, got {num_channels}")
    mixed = np.zeros((num_channels, round(duration_s * sample_rate_hz)))
    for event in events:
        first = int(np.ceil(event.time_s * sample_rate_hz))
        sound = _sound(event.kind, sample_rate_hz)[: max(0, mixed.shape[1] - first)]
        gains = (1.0,) if num_channels == 1 else (np.sqrt((1 - event.side) / 2), np.sqrt((1 + event.side) / 2))
        for channel, gain in enumerate(gains):
            mixed[channel, first : first + len(sound)] += gain * event.strength * sound
    # Sounds at one time may add up to more than there is room for.
    return (mixed * (_LOUDEST / max(1.0, float(np.abs(mixed).max(initial=0.0))))).astype(np.float32)


def _sound(kind: Kind, sample_rate_hz: int) -> Floats:
    """One event at full strength: at most 1, loudest in its first milliseconds, and zero at its end."""
    times = np.arange(round(_LENGTH_S * sample_rate_hz)) / sample_rate_hz
    envelope = np.exp(-times / _DECAY_S) * (1 - times / _LENGTH_S)
    if kind == "flash":
        hiss: Floats = envelope * np.random.default_rng(0).uniform(-1, 1, len(times))
        return hiss
    partials = _PARTIALS_HZ[kind]
    tone = np.sum([np.sin(2 * np.pi * frequency * times) for frequency in partials], axis=0) / len(partials)
    sound: Floats = envelope * tone
    return sound
