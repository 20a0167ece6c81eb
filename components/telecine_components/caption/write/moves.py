"""From what the background does to the words that a camera operator uses for it."""

from telecine_components.caption.write.camera import CameraMotion

MIN_TRAVEL = 0.015
"""Travel over the clip, in shorter sides of the picture, below which nobody sees the camera move."""
MINOR = 0.5
"""A second move is told where it is at least this share of the largest."""
MIN_SEEN_RATIO = 0.5
MIN_DURATION_S = 0.5
"""In less nobody can tell a move of the camera from a jerk."""
PARALLAX = 0.2
"""How much more near than far things must move, relative to the move itself, for the camera to travel."""
SLOW_PER_S, QUICK_PER_S = 0.04, 0.25
SHAKE, STRONG_SHAKE = 0.014, 0.1
_REACH, _NEAR = 0.45, 0.15
"""How far a turn or a zoom of one moves the picture's points on average, and how far a zoom_by_y of one does."""


def camera_sentence(motion: CameraMotion, duration_s: float) -> str | None:
    """One sentence on the camera; None where too little was seen to say anything."""
    if motion.seen_ratio < MIN_SEEN_RATIO or duration_s < MIN_DURATION_S:
        return None
    moves = camera_moves(motion)
    handheld = motion.shake > SHAKE
    shaking = "shakes strongly" if motion.shake > STRONG_SHAKE else "shakes a little, as if held by hand"
    if not moves:
        return f"The camera stays in place and {shaking}." if handheld else "The camera is static."
    pace = _pace(max(travel for _, travel in moves) / duration_s)
    told = " and ".join(words for words, _ in moves)
    return f"The camera {told}{pace} and {shaking}." if handheld else f"The camera {told}{pace}."


def camera_moves(motion: CameraMotion) -> list[tuple[str, float]]:
    """What the camera does, as in "pans left", with the travel it causes; the largest first, small ones left out."""
    travels = [_sideways(motion), _up_or_down(motion), _rolling(motion), _inwards(motion)]
    ranked = sorted(travels, key=lambda move: -move[1])
    least = max(MIN_TRAVEL, MINOR * ranked[0][1])
    return [move for move in ranked if move[1] >= least]


def _sideways(motion: CameraMotion) -> tuple[str, float]:
    # The picture moves against the camera.
    side = "left" if motion.x > 0 else "right"
    parallax = motion.x_by_y / motion.x if motion.x else 0.0
    if parallax > PARALLAX:
        return f"trucks {side}", abs(motion.x)
    if parallax < -PARALLAX:
        # What is near moves the other way: it turns about something between near and far.
        return f"orbits {'right' if side == 'left' else 'left'} around the scene", abs(motion.x)
    return f"pans {side}", abs(motion.x)


def _up_or_down(motion: CameraMotion) -> tuple[str, float]:
    return f"tilts {'up' if motion.y > 0 else 'down'}", abs(motion.y)


def _rolling(motion: CameraMotion) -> tuple[str, float]:
    way = "counterclockwise" if motion.roll > 0 else "clockwise"
    return f"rolls {way}", _REACH * abs(motion.roll)


def _inwards(motion: CameraMotion) -> tuple[str, float]:
    way = "in" if motion.zoom > 0 else "out"
    parallax = motion.zoom_by_y / motion.zoom if motion.zoom else 0.0
    if parallax > PARALLAX:
        return f"dollies {way}", _REACH * abs(motion.zoom) + _NEAR * abs(motion.zoom_by_y)
    return f"zooms {way}", _REACH * abs(motion.zoom)


def _pace(travel_per_s: float) -> str:
    return " slowly" if travel_per_s < SLOW_PER_S else " quickly" if travel_per_s > QUICK_PER_S else ""
