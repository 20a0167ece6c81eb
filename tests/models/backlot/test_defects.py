"""Graded defects: the higher the severity, the further from the clean film, each in its own way."""

import functools

import numpy as np
import pytest

from telecine_models.backlot import clip
from telecine_models.backlot.defects import GRADED_DEFECTS, GradedDefect, spoil

SEVERITIES = (0.1, 0.25, 0.5, 0.75, 1.0)


@functools.cache
def clean(seed: int = 0) -> np.ndarray:
    return clip(seed, num_frames=16, fps=8, width_px=64, height_px=48, camera="pan left").frames


def ladder(kind: GradedDefect, seed: int = 0) -> list[np.ndarray]:
    return [spoil(clean(seed), kind, severity, seed) for severity in SEVERITIES]


def rises(values: list[float]) -> bool:
    return bool((np.diff(values) > 0).all())


def detail(frames: np.ndarray) -> float:
    """Mean squared difference of neighbouring pixels."""
    return float(np.square(np.diff(frames.astype(float), axis=2)).mean())


def restless(frames: np.ndarray) -> float:
    return float(np.abs(np.diff(frames.astype(float), axis=0)).mean())


@pytest.mark.parametrize("kind", GRADED_DEFECTS)
def test_the_error_grows_with_the_severity(kind: GradedDefect) -> None:
    for seed in range(4):
        errors = [float(np.square(each.astype(float) - clean(seed)).mean()) for each in ladder(kind, seed)]
        assert errors[0] > 0
        assert rises(errors)


@pytest.mark.parametrize("kind", GRADED_DEFECTS)
def test_the_same_arguments_spoil_alike_and_leave_the_film_as_it_was(kind: GradedDefect) -> None:
    before = clean().copy()
    one, other = (spoil(clean(), kind, 0.6, 7) for _ in range(2))
    assert np.array_equal(one, other)
    assert np.array_equal(clean(), before)
    assert one.dtype == np.uint8 and one.shape == before.shape


@pytest.mark.parametrize("kind", ["noise", "logo", "text", "freeze", "shake"])
def test_the_seed_says_where_and_how(kind: GradedDefect) -> None:
    assert len({spoil(clean(), kind, 0.5, seed).tobytes() for seed in range(8)}) > 1


def test_each_defect_does_what_its_name_says() -> None:
    brightness = {kind: [float(each.mean()) for each in ladder(kind)] for kind in GRADED_DEFECTS}
    assert rises(brightness["overexposure"])
    assert rises(brightness["underexposure"][::-1])
    details = {kind: [detail(each) for each in ladder(kind)] for kind in GRADED_DEFECTS}
    assert rises(details["noise"])
    assert rises(details["blur"][::-1])
    assert rises([restless(each) for each in ladder("shake")])
    frozen = [int((np.diff(each.astype(int), axis=0) == 0).all(axis=(1, 2, 3)).sum()) for each in ladder("freeze")]
    assert frozen[0] >= 1 and frozen[-1] == 15 and rises([float(each) for each in frozen[1:]])
    blocks = ladder("blockiness")[-1][:, :48, :60].reshape(16, 8, 6, 10, 6, 3).astype(float)
    assert np.ptp(blocks, axis=(2, 4)).max() <= 1


@pytest.mark.parametrize("kind", ["logo", "text"])
def test_a_mark_stays_in_its_place(kind: GradedDefect) -> None:
    touched = (spoil(clean(), kind, 0.5, 3) != clean()).any(axis=(0, 3))
    assert 0.005 < touched.mean() < 0.3


def test_a_clip_is_spoilt_in_the_stated_order_and_its_truth_says_so() -> None:
    sizes = {"num_frames": 6, "fps": 6, "width_px": 32, "height_px": 32}
    spoilt = clip(9, **sizes, defects=(("overexposure", 0.5), ("blur", 1.0)))
    pure = clip(9, **sizes)
    assert spoilt.truth["defects"] == [{"kind": "overexposure", "severity": 0.5}, {"kind": "blur", "severity": 1.0}]
    assert np.array_equal(spoilt.depth, pure.depth) and np.array_equal(spoilt.instances, pure.instances)
    assert spoilt.truth["objects"] == pure.truth["objects"]
    assert np.array_equal(spoilt.frames, spoil(spoil(pure.frames, "overexposure", 0.5, 0), "blur", 1.0, 0))
    assert "clear overexposure and heavy blur" in spoilt.truth["structured_caption"]["style"]


@pytest.mark.parametrize("severity", [0.0, -0.1, 1.01])
def test_a_severity_outside_its_range_is_refused(severity: float) -> None:
    with pytest.raises(ValueError, match=rf"severity must lie in \(0, 1\], got {severity}"):
        spoil(clean(), "blur", severity, 0)
