"""Shots of small films of each kind, drawn for the purpose."""

import dataclasses
from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from telecine_components.media.glance import Glance
from telecine_components.media.shots.finder import MIXTURE_DISCOUNT, Rule, ShotFinder, candidates
from telecine_components.media.shots.plain import PlainRun, PlainRuns, widened
from telecine_components.media.shots.products import REACH_PAIRS, contrasts_of, products_of, sketches_of
from telecine_components.media.shots.shot import NO_DOUBT, Doubt, Shot, Transition, shots_between

Pixels = npt.NDArray[np.uint8]
SHOT_FRAMES = 30


def _scenery(seed: int, width_px: int = 400) -> Pixels:
    """A picture with large and small things in it [H, W, 3]."""
    draw = np.random.default_rng(seed)
    scenery = np.zeros((54, width_px, 3), np.float32)
    for cells in (3, 9, 27):
        coarse = draw.uniform(0, 255, (cells, cells * width_px // 54, 3)).astype(np.float32)
        scenery += cv2.resize(coarse, (width_px, 54), interpolation=cv2.INTER_CUBIC) / 3
    return np.clip(scenery, 0, 255).astype(np.uint8)


def _shot(seed: int, num_frames: int = SHOT_FRAMES, speed: float = 0.5) -> Pixels:
    """A camera that pans slowly, with a little noise [F, H, W, 3]."""
    scenery, draw = _scenery(seed), np.random.default_rng((seed, 1))
    frames = np.stack([scenery[:, (left := round(speed * index)) : left + 96] for index in range(num_frames)])
    return np.clip(frames + draw.normal(0, 1.5, frames.shape), 0, 255).astype(np.uint8)


def _dissolve(left: Pixels, right: Pixels, length: int) -> Pixels:
    weights = (np.arange(1, length + 1) / (length + 1))[:, None, None, None]
    mixed = (1 - weights) * left[-length:] + weights * right[:length]
    return np.concatenate([left[:-length], mixed.astype(np.uint8), right[length:]])


def _fade(left: Pixels, right: Pixels, length: int, held: int, level: int) -> Pixels:
    weights = (np.arange(1, length + 1) / (length + 1))[:, None, None, None]
    out = (1 - weights) * left[-length:] + weights * level
    back = weights * right[:length] + (1 - weights) * level
    plain = np.full((held, *left.shape[1:]), level)
    return np.concatenate([left[:-length], out, plain, back, right[length:]]).astype(np.uint8)


def _glances(frames: Pixels) -> list[Glance]:
    small = [np.asarray(cv2.cvtColor(frame, cv2.COLOR_RGB2YCrCb), np.uint8) for frame in frames]
    return [
        Glance(index, index / 25, ycc[..., 0].copy(), np.stack([cv2.resize(ycc[..., c], (48, 27)) for c in (2, 1)]))
        for index, ycc in enumerate(small)
    ]


def _found(frames: Pixels, **options: int) -> list[Transition]:
    finder = ShotFinder(**options)
    for glance in _glances(frames):
        finder.look_at(glance)
    return finder.transitions()


def _covers(found: Sequence[Transition], first: int, last: int, kind: str) -> None:
    assert [each.kind for each in found] == [kind]
    assert first <= (found[0].first + found[0].last) // 2 <= last
    assert abs(found[0].first - first) <= 3
    assert abs(found[0].last - last) <= 3


def test_a_hard_cut_is_found_at_its_pair() -> None:
    assert _found(np.concatenate([_shot(1), _shot(2)])) == [Transition(29, 29, "cut")]


@pytest.mark.parametrize("length", [4, 12, 24])
def test_a_dissolve_is_found_over_its_pairs(length: int) -> None:
    film = _dissolve(_shot(3, 60, speed=0.1), _shot(4, 60, speed=0.1), length)
    _covers(_found(film), 60 - length - 1, 59, "dissolve")


@pytest.mark.parametrize(("level", "held"), [(0, 0), (0, 5), (0, 60), (255, 4)])
def test_a_fade_by_way_of_a_plain_colour_is_one_transition(level: int, held: int) -> None:
    film = _fade(_shot(5, 50), _shot(6, 50), 8, held, level)
    _covers(_found(film), 41, 57 + held, "fade")


def test_a_whip_pan_is_no_transition() -> None:
    scenery = _scenery(7)
    places = np.concatenate([np.zeros(25), np.linspace(0, 200, 9), np.full(25, 200)]).astype(int)
    blurred = [scenery[:, left : left + 96] for left in places]
    for index in range(26, 34):
        blurred[index] = np.asarray(cv2.blur(blurred[index], (25, 1)), np.uint8)
    assert _found(np.stack(blurred)) == []


def test_a_short_film_that_pans_all_the_time_has_no_transition() -> None:
    draw = np.random.default_rng(0)
    plain = np.full((54, 400, 3), 90, np.uint8)
    for centre in draw.integers(0, 400, 40):
        cv2.circle(plain, (int(centre), int(draw.integers(54))), 7, draw.integers(0, 255, 3).tolist(), -1)
    assert _found(np.stack([plain[:, 2 * index : 2 * index + 96] for index in range(40)])) == []


@pytest.mark.parametrize("speed_px", [0.5, 0.9, 1.25])
def test_a_steady_pan_over_a_photograph_has_no_transition(speed_px: float) -> None:
    # Large things are stronger than small ones, as in photographs: what lies between is nearly a mixture of the ends.
    draw, still = np.random.default_rng(5), np.full((54, 300, 3), 128, np.float32)
    for cells in (1, 2, 4, 8, 16):
        coarse = draw.normal(0, 55 / cells**0.7, (cells + 1, cells * 300 // 54 + 1, 1)).astype(np.float32)
        still += cv2.resize(np.repeat(coarse, 3, axis=2), (300, 54), interpolation=cv2.INTER_CUBIC)
    picture = np.clip(still, 0, 255).astype(np.uint8)
    frames = [cv2.getRectSubPix(picture, (96, 54), (47.5 + speed_px * index, 26.5)) for index in range(90)]
    assert _found(np.stack(frames)) == []


@pytest.mark.parametrize("level", [255, 0])
def test_a_flash_and_a_blackout_of_a_frame_are_no_transition(level: int) -> None:
    film = _shot(8, 60)
    film[30] = (0.15 * film[30] + 0.85 * level).astype(np.uint8)
    assert _found(film) == []


def test_a_light_that_goes_on_and_off_is_no_transition() -> None:
    film = _shot(9, 60)
    film[20:40] = (film[20:40] * np.where(np.arange(20) // 3 % 2, 1.0, 0.3)[:, None, None, None]).astype(np.uint8)
    assert _found(film) == []


def test_slides_are_cut_where_they_change_and_nowhere_else() -> None:
    draw = np.random.default_rng(0)
    slides = np.concatenate([np.repeat(_shot(seed, 1), 40, axis=0) for seed in (10, 11, 12)])
    noisy = np.clip(slides + draw.normal(0, 1, slides.shape), 0, 255).astype(np.uint8)
    assert _found(noisy) == [Transition(39, 39, "cut"), Transition(79, 79, "cut")]


def test_a_shot_that_goes_on_after_darkness_is_one_shot() -> None:
    film = _shot(13, 100, speed=0.1)
    film[45:55] = 0
    assert all(each.kind == "cut" for each in _found(film))
    assert widened([], [], [1.0] * 10) == []


def test_it_makes_no_difference_how_a_film_is_divided_into_blocks() -> None:
    film = np.concatenate([_shot(1), _dissolve(_shot(3, 60), _shot(4, 60), 12), _fade(_shot(5), _shot(6), 6, 9, 0)])
    whole = _found(film)
    assert len(whole) >= 4
    for block_frames in (7, 16, 50):
        assert _found(film, block_frames=block_frames) == whole


def test_frames_that_were_not_looked_at_count() -> None:
    finder = ShotFinder()
    for glance in _glances(np.concatenate([_shot(1), _shot(2)])):
        if glance.index < 10 or glance.index > 20 or glance.index % 2 == 0:
            finder.look_at(glance)
    assert [dataclasses.replace(shot, doubts=()) for shot in finder.shots()] == [
        Shot(0, 30, "start", "cut"),
        Shot(30, 60, "cut", "end"),
    ]


def test_a_transition_that_a_strict_rule_leaves_out_casts_doubt_on_its_shot() -> None:
    finder = ShotFinder(Rule(cut=11.0))
    for glance in _glances(np.concatenate([_shot(1), _shot(2)])):
        finder.look_at(glance)
    (shot,) = finder.shots()
    assert NO_DOUBT < shot.doubt_within(0, 60) < 0
    assert shot.doubt_within(30, 60) < shot.doubt_within(0, 60), "what is doubtful lies before"
    calm = ShotFinder()
    for glance in _glances(_shot(1, speed=0)):
        calm.look_at(glance)
    (still,) = calm.shots()
    assert NO_DOUBT <= still.doubt_within(0, 30) < shot.doubt_within(0, 60)


def test_a_dissolve_casts_less_doubt_than_a_cut_of_equal_odds() -> None:
    film, rule = _glances(_dissolve(_shot(3, 60, speed=0.1), _shot(4, 60, speed=0.1), 12)), Rule(mixture=4.0)
    finder = ShotFinder(rule)
    for glance in film:
        finder.look_at(glance)
    (shot,) = finder.shots()
    possible = candidates(products_of(sketches_of(film)), range(len(film)), rule)
    likeliest = max(possible, key=lambda each: each.excess)
    assert likeliest.kind == "dissolve"
    assert shot.doubt_within(0, len(film)) == likeliest.excess - MIXTURE_DISCOUNT


def test_a_doubt_counts_in_every_span_that_it_reaches_into() -> None:
    shot = Shot(0, 100, "start", "end", doubts=(Doubt(40, 60, -1.0),))
    assert [shot.doubt_within(*span) for span in ((0, 50), (50, 100), (45, 55), (0, 100))] == [-1.0] * 4
    # Frame 40 shows what is before it, frame 60 what is after.
    assert shot.doubt_within(0, 41) == shot.doubt_within(60, 100) == NO_DOUBT
    assert shot.doubt_within(0, 42) == shot.doubt_within(59, 100) == -1.0


def test_a_stricter_rule_finds_no_more() -> None:
    film = _glances(np.concatenate([_shot(1), _dissolve(_shot(3, 60), _shot(4, 60), 12)]))
    counts = []
    for odds in (0.0, 3.0, 100.0):
        finder = ShotFinder(Rule(cut=odds, mixture=odds))
        for glance in film:
            finder.look_at(glance)
        counts.append(len(finder.transitions()))
    assert counts[0] == 2
    assert counts == sorted(counts, reverse=True)
    assert counts[-1] == 0


def test_a_film_of_one_frame_is_one_shot() -> None:
    finder = ShotFinder()
    finder.look_at(_glances(_shot(1, 1))[0])
    assert finder.shots() == [Shot(0, 1, "start", "end")]


def test_a_sketch_is_the_means_of_cells_whatever_is_sketched_with_it() -> None:
    glances = _glances(_shot(14, 5, speed=3))
    sketches = sketches_of(glances)
    luma, chroma = glances[3].luma.astype(float), glances[3].chroma.astype(float)
    cells = luma.reshape(18, 3, 32, 3).mean(axis=(1, 3)).ravel()
    coloured = chroma.reshape(2, 9, 3, 16, 3).mean(axis=(2, 4)).ravel()
    assert np.abs(sketches[3] - np.concatenate([cells, 2 * (coloured - 128)])).max() <= 1
    assert np.array_equal(sketches[3:4], sketches_of(glances[3:4]))


def test_products_are_those_of_the_frames_themselves() -> None:
    sketches = sketches_of(_glances(_shot(14, 70, speed=3)))
    products = products_of(sketches)
    values = sketches.astype(float)
    assert products.whole[5, 20] == pytest.approx(values[20] @ values[25] / 576)
    assert products.whole[REACH_PAIRS, 60] == 0
    centred = np.concatenate([values[:, :576] - values[:, :576].mean(axis=1, keepdims=True), values[:, 576:]], axis=1)
    assert products.varied[7, 62] == pytest.approx(centred[62] @ centred[69] / 576)
    assert products.distance(3)[11] == pytest.approx(np.sqrt(((values[11] - values[14]) ** 2).sum() / 576))
    assert contrasts_of(sketches) == pytest.approx(np.sqrt(products.varied[0]))


def test_plain_frames_at_the_ends_of_a_film_separate_nothing() -> None:
    plain, runs = np.zeros((10, 54, 96, 3), np.uint8), PlainRuns()
    runs.look_at(sketches_of(_glances(np.concatenate([plain, _shot(1), plain, _shot(2), plain]))))
    assert [(run.start, run.end) for run in runs.runs()] == [(40, 50)]


def test_a_plain_run_takes_in_the_fades_that_lead_to_it() -> None:
    contrasts = [40.0] * 20 + [30.0, 20.0, 10.0] + [0.0] * 10 + [15.0, 25.0] + [40.0] * 20
    found = widened([Transition(34, 34, "cut")], [PlainRun(23, 33, 0.0)], contrasts)
    assert found == [Transition(19, 34, "fade")]


def test_frames_inside_a_transition_belong_to_no_shot() -> None:
    found = shots_between([Transition(29, 29, "cut"), Transition(60, 72, "dissolve")], 100)
    assert found == [
        Shot(0, 30, "start", "cut"),
        Shot(30, 61, "cut", "dissolve"),
        Shot(73, 100, "dissolve", "end"),
    ]


def test_a_film_without_transitions_is_one_shot() -> None:
    assert shots_between([], 5) == [Shot(0, 5, "start", "end")]
