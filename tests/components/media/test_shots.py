"""Shots between transitions."""

from telecine_components.media.shots.shot import Shot, Transition, shots_between


def test_frames_inside_a_transition_belong_to_no_shot() -> None:
    found = shots_between([Transition(29, 29, "cut"), Transition(60, 72, "dissolve")], 100)
    assert found == [
        Shot(0, 30, "start", "cut"),
        Shot(30, 61, "cut", "dissolve"),
        Shot(73, 100, "dissolve", "end"),
    ]


def test_a_film_without_transitions_is_one_shot() -> None:
    assert shots_between([], 5) == [Shot(0, 5, "start", "end")]
