"""Six parts, each true of the clip that it describes."""

import re

import pytest

from telecine_models.backlot import Clip, clip
from telecine_models.backlot.camera import CAMERAS, Camera
from telecine_models.backlot.caption import parse
from telecine_models.backlot.structured_caption import PARTS, StructuredCaption, parse_structured

SIZES = {"num_frames": 6, "fps": 6, "width_px": 32, "height_px": 32}
WHOLE = StructuredCaption(
    dense="All.", main_object="It.", background="There.", camera="Still.", style="So.", action="?"
)


def films() -> list[Clip]:
    plain = [clip(seed, **SIZES, style=None) for seed in range(20)]
    plays = [clip(seed, **SIZES, physics="bounce") for seed in range(4)]
    return [*plain, *plays, *(clip(seed, **SIZES, style=None, actions="random") for seed in range(6))]


def test_what_is_written_is_read_back() -> None:
    assert WHOLE.text.startswith("1. Dense caption: All. 2. Main object caption: It. 3. Background caption: There.")
    assert parse_structured(WHOLE.text) == WHOLE
    for film in films():
        read = parse_structured(film.truth["structured_text"])
        assert {name: getattr(read, name) for name in PARTS} == film.truth["structured_caption"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        WHOLE.text.replace("4. Camera caption: Still. ", ""),
        WHOLE.text.replace("Still.", ""),
        WHOLE.text.replace("4. Camera", "5. Camera"),
        WHOLE.text.replace("3. Background caption: There. 4. Camera caption: Still.", "4. Camera caption: Still. 3. X"),
    ],
)
def test_a_text_without_all_six_parts_in_order_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="structured caption: expected the parts 1. Dense caption"):
        parse_structured(text)


@pytest.mark.parametrize("camera", CAMERAS)
def test_the_camera_part_names_the_move_and_no_other(camera: Camera) -> None:
    truth = clip(1, **SIZES, camera=camera).truth
    text = truth["structured_caption"]["camera"]
    assert camera in text
    assert not [other for other in CAMERAS if other != camera and re.search(rf"\b{other}\b", text)]
    if camera != "static":
        assert f"{truth['camera']['amount']:.3g} {truth['camera']['unit']}" in text


def test_every_part_says_what_the_truth_holds() -> None:
    for film in films():
        truth, text = film.truth, film.truth["structured_caption"]
        for part in truth["parts"]:
            seen = any(sum(truth["objects"][member]["pixels"]) for member in part["members"])
            look = re.compile(rf"\b{part['colour']} (\w+ )?{part['shape']}")
            for name in ("dense", "main_object", "action"):
                assert bool(look.search(text[name])) == seen
            if seen and part["pattern"] != "plain":
                assert f"{part['colour']} {part['pattern']} {part['shape']}" in text["main_object"]
        place = truth["background"]["place"]
        assert (place if place else truth["background"]["colour"]).rstrip("s") in text["background"]
        assert ("game" in text["style"]) == ("game" in truth["style"])
        assert ("First-person" in text["camera"]) == (truth["actions"] is not None)


def test_the_sentence_is_a_caption_of_the_films_where_their_grammar_has_the_words() -> None:
    for seed in range(12):
        for camera in ("static", "pan left", "pan right"):
            truth = clip(seed, **SIZES, camera=camera).truth
            read = parse(truth["caption"])
            assert (read.background, read.texture) == (truth["background"]["colour"], truth["background"]["texture"])
            assert read.pan == truth["camera"]["direction"]
            assert [(s.count, s.size, s.colour, s.shape) for s in read.subjects] == [
                (p["count"], p["size"], p["colour"], p["shape"]) for p in truth["parts"]
            ]


def test_what_players_press_is_what_they_are_said_to_do() -> None:
    words = {"ws": ("walks forward", "walks backward"), "ad": ("steps left", "steps right")}
    for film in (film for film in films() if film.actions):
        said = film.truth["structured_caption"]["action"]
        for name, deeds in words.items():
            pressed = {row[name] for row in film.truth["actions"]}
            assert [deed in said for deed in deeds] == [1 in pressed, 2 in pressed]
