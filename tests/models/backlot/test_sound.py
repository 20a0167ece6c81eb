"""Sounds begin at their events and are heard nowhere else."""

import numpy as np
import pytest

from telecine_models.backlot import Clip, clip
from telecine_models.backlot.sound import Event, waveform

RATE_HZ = 16000
TAIL_S = 0.2


def heard(film: Clip) -> np.ndarray:
    return film.sound(RATE_HZ)[0]


def films() -> list[Clip]:
    sizes = {"num_frames": 36, "fps": 12, "width_px": 32, "height_px": 32}
    plays = [clip(seed, **sizes, physics=physics) for seed in range(4) for physics in ("bounce", "collision")]
    flashes = [clip(seed, **sizes, num_flashes=2) for seed in range(3)]
    return [*plays, *flashes, clip(0, **sizes, actions="random", style="open world")]


def test_there_is_energy_just_after_every_event_and_silence_where_there_is_none() -> None:
    kinds = set()
    for film in films():
        sound = heard(film)
        assert len(sound) == 3 * RATE_HZ
        sounding = np.zeros(len(sound), np.bool_)
        for event in film.truth["events"]:
            first = int(event["time_s"] * RATE_HZ)
            sounding[first : first + int(TAIL_S * RATE_HZ) + 2] = True
            assert np.square(sound[first : first + 480]).sum() > 0
            kinds.add(event["kind"])
        assert not sound[~sounding].any()
        assert np.abs(sound).max(initial=0) <= 0.8
    assert kinds == {"bounce", "collision", "flash", "landing"}


@pytest.mark.parametrize("kind", ["bounce", "collision", "flash", "landing"])
def test_the_energy_peaks_at_the_event(kind: str) -> None:
    sound = waveform((Event(0.5, kind, 0, 1.0, 0.0),), 1.0, sample_rate_hz=RATE_HZ)[0]
    energy = np.square(sound).reshape(-1, 160).sum(axis=1)
    assert 0.5 <= energy.argmax() / 100 <= 0.52
    assert energy[50:55].sum() > 0.7 * energy.sum()


def test_a_weaker_event_is_quieter_and_one_at_the_left_is_heard_there() -> None:
    loud, weak = (waveform((Event(0.1, "bounce", 0, s, 0.0),), 0.5)[0] for s in (1.0, 0.25))
    assert np.allclose(weak, loud / 4, atol=1e-6)
    left, right = waveform((Event(0.1, "bounce", 0, 1.0, -1.0),), 0.5, num_channels=2)
    assert np.abs(left).max() > 0.3 and not right.any()
    middle = waveform((Event(0.1, "bounce", 0, 1.0, 0.0),), 0.5, num_channels=2)
    assert np.array_equal(middle[0], middle[1])


def test_many_events_at_once_do_not_exceed_the_range() -> None:
    events = tuple(Event(0.1, "bounce", index, 1.0, 0.0) for index in range(20))
    assert np.abs(waveform(events, 0.5)).max() == pytest.approx(0.8, abs=1e-6)


def test_an_event_at_the_end_is_cut_off_and_without_events_all_is_silent() -> None:
    assert waveform((Event(0.49, "flash", -1, 1.0, 0.0),), 0.5).shape == (1, 8000)
    assert not waveform((), 0.5, num_channels=2).any()


def test_a_flash_is_seen_when_it_is_heard() -> None:
    film = clip(3, num_frames=24, fps=12, width_px=32, height_px=32, camera="static", num_flashes=1)
    light = film.frames.mean(axis=(1, 2, 3))
    (event,) = film.truth["events"]
    assert light.argmax() == round(event["time_s"] * 12)
    assert light.max() > 1.5 * np.median(light)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sample_rate_hz": 4000}, "sample_rate_hz must be at least 8000, got 4000"),
        ({"num_channels": 3}, "num_channels must be 1 or 2, got 3"),
    ],
)
def test_wrong_rates_and_channels_are_refused(options: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        waveform((), 1.0, **options)
