"""Plays obey the laws of motion exactly, and each violation breaks one from the frame that it names."""

from typing import Any

import numpy as np
import pytest

from telecine_models.backlot import Clip, clip
from telecine_models.backlot.physics import (
    COLLISION_RESTITUTION,
    VIOLATIONS,
    Physics,
    Violation,
    bounce_heights,
    collide,
)
from telecine_models.backlot.world import HEIGHT_RATIOS

FPS = 24
G = 9.81
BROKEN = [(physics, violation) for physics, violations in VIOLATIONS.items() for violation in violations]


def played(seed: int, physics: Physics, violation: Violation | None = None, **options: Any) -> Clip:
    sizes = {"num_frames": 36, "fps": FPS, "width_px": 64, "height_px": 48}
    return clip(seed, **(sizes | options), physics=physics, violation=violation)


def centers(film: Clip) -> np.ndarray:
    return np.array([each["centers_m"] for each in film.truth["objects"]])


def first_broken_frame(film: Clip) -> int:
    return round(film.truth["physics"]["violation_s"] * FPS)


def test_a_fall_of_half_a_second_squared_times_g_hits_after_a_second() -> None:
    times_s = np.array((0.0, 0.5, 1.0, 1.5, 1.75))
    heights, hits, speeds = bounce_heights(times_s, G / 2, 0.5)
    assert hits[:2] == pytest.approx((1.0, 2.0)) and speeds[:2] == pytest.approx((G, G / 2))
    # From the ground at half the speed: highest in the middle, at a quarter of the height.
    assert heights == pytest.approx((G / 2, G / 2 * 0.75, 0.0, G / 8, G / 8 * 0.75))


def test_what_bounces_comes_to_rest_after_ever_shorter_flights() -> None:
    heights, hits, speeds = bounce_heights(np.linspace(0, 60, 6000), 2.0, 0.7)
    assert heights.min() == 0 and heights[-1] == 0
    assert np.allclose(np.diff(np.diff(hits)), -0.3 * np.diff(hits)[:-1])
    assert speeds[-1] < 0.25 / 0.7 + 1e-9


def test_heights_fall_with_the_acceleration_of_gravity_between_bounces() -> None:
    checked = 0
    for seed in range(12):
        film = played(seed, "bounce")
        for index, each in enumerate(film.truth["objects"]):
            heights = -np.array(each["centers_m"])[:, 1]
            hits = [event.time_s * FPS for event in film.events if event.object == index]
            for frame in range(1, 35):
                if not any(frame - 1 <= hit <= frame + 1 for hit in hits) and heights[frame] > heights.min() + 0.05:
                    second = heights[frame - 1] - 2 * heights[frame] + heights[frame + 1]
                    assert second == pytest.approx(-G / FPS**2, abs=3e-4)
                    checked += 1
    assert checked > 300


def test_equal_balls_keep_their_momentum_and_the_stated_share_of_their_relative_speed() -> None:
    for speeds in ((3.0, 0.0), (2.0, -1.5), (1.0, 1.0)):
        after = collide(np.array(speeds), 0.9)
        assert after.sum() == pytest.approx(sum(speeds))
        assert after[1] - after[0] == pytest.approx(0.9 * (speeds[0] - speeds[1]))
    assert collide(np.array((3.0, 0.0)), 1.0) == pytest.approx((0.0, 3.0))


def test_colliding_balls_touch_at_the_event_and_never_overlap() -> None:
    for seed in range(12):
        film = played(seed, "collision")
        radius = film.truth["objects"][0]["radius_m"]
        x = centers(film)[..., 0]
        gap = np.abs(x[1] - x[0]) - 2 * radius
        assert gap.min() > -1e-3
        (event,) = film.events
        before, after = int(event.time_s * FPS), int(event.time_s * FPS) + 1
        v_before, v_after = x[:, before] - x[:, before - 1], x[:, after + 1] - x[:, after]
        assert v_before.sum() == pytest.approx(v_after.sum(), abs=4e-4)
        closing = (v_before[1] - v_before[0]) * -COLLISION_RESTITUTION
        assert v_after[1] - v_after[0] == pytest.approx(closing, abs=4e-4)
        touch = gap[before] + (v_before[1] - v_before[0]) * np.sign(x[1, 0] - x[0, 0]) * (event.time_s * FPS - before)
        assert touch == pytest.approx(0, abs=2e-3)


def test_what_passes_behind_something_is_hidden_and_comes_out_again() -> None:
    for seed in range(12):
        mover, screen = played(seed, "occlusion").truth["objects"]
        ratio = np.array(mover["visible_ratio"])
        assert ratio[0] > 0 and ratio[-1] > 0
        assert (ratio[15:21] == 0).all()
        assert min(screen["visible_ratio"]) == 1
        x = np.array(mover["centers_m"])[:, 0]
        assert np.allclose(np.diff(x), np.diff(x)[0], atol=2e-4)


@pytest.mark.parametrize(("physics", "violation"), BROKEN)
def test_a_violation_changes_nothing_before_its_frame_and_something_after(
    physics: Physics, violation: Violation
) -> None:
    for seed in range(6):
        sound, broken = played(seed, physics), played(seed, physics, violation)
        assert (sound.truth["physics"]["plausible"], broken.truth["physics"]["plausible"]) == (True, False)
        assert broken.truth["physics"]["violation"] == violation
        first = first_broken_frame(broken)
        assert 0 < first < 36
        assert np.array_equal(sound.frames[:first], broken.frames[:first])
        assert not np.array_equal(sound.frames[first + 1 :], broken.frames[first + 1 :])


def test_what_floats_stays_where_it_is_above_the_ground() -> None:
    for seed in range(8):
        film = played(seed, "bounce", "floating")
        index = film.truth["physics"]["object"]
        heights = -centers(film)[index, :, 1]
        first = first_broken_frame(film)
        assert np.ptp(heights[first:]) == 0
        assert heights[first - 1] > heights[first]
        each = film.truth["objects"][index]
        assert heights[-1] > HEIGHT_RATIOS[each["shape"]] * each["radius_m"] + 0.1
        assert not [event for event in film.events if event.object == index]


def test_what_vanishes_is_seen_before_and_never_after() -> None:
    for physics, seed in (("bounce", 1), ("collision", 2), ("occlusion", 3)):
        film = played(seed, physics, "vanishing")
        each = film.truth["objects"][film.truth["physics"]["object"]]
        first = first_broken_frame(film)
        assert each["pixels"][0] > 0
        assert sum(each["pixels"][first:]) == 0
        assert each["exists"] == [frame < first for frame in range(36)]


def test_balls_that_pass_through_each_other_overlap_and_keep_their_speeds() -> None:
    for seed in range(8):
        film = played(seed, "collision", "passing through")
        x = centers(film)[..., 0]
        assert (np.abs(x[1] - x[0]) < film.truth["objects"][0]["radius_m"]).any()
        assert np.allclose(np.diff(x, axis=1), np.diff(x, axis=1)[:, :1], atol=2e-4)
        assert film.events == ()


def test_what_teleports_moves_once_by_far_more_than_ever() -> None:
    for seed in range(8):
        film = played(seed, "bounce", "teleporting")
        x = centers(film)[film.truth["physics"]["object"], :, 0]
        jumps = np.flatnonzero(np.abs(np.diff(x)) > 0.3) + 1
        assert jumps.tolist() == [first_broken_frame(film)]


def test_what_changes_its_colour_shows_the_new_one() -> None:
    for seed in range(6):
        film = played(seed, "collision", "changing colour")
        first, index = first_broken_frame(film), film.truth["physics"]["object"]
        assert len(set(film.truth["objects"][index]["colours"])) == 2
        shown = [film.frames[frame][film.masks[index, frame]].mean(axis=0) for frame in (first - 1, first)]
        assert np.abs(shown[1] - shown[0]).max() > 30


def test_a_violation_that_is_none_of_the_play_is_refused() -> None:
    with pytest.raises(ValueError, match="violation of occlusion must be one of .*, got 'floating'"):
        played(0, "occlusion", "floating")
    with pytest.raises(ValueError, match="violation needs physics to violate, got 'floating' without"):
        clip(0, num_frames=8, fps=8, width_px=32, height_px=32, violation="floating")
    with pytest.raises(ValueError, match="num_frames must be at least 4 with physics, got 3"):
        played(0, "bounce", num_frames=3)
