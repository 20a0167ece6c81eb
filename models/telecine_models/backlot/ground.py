"""The backdrop behind the objects: its texture, and whether the camera pans over it."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from telecine_models.backlot.scene import DIRECTIONS, Direction, Texture

Frames = npt.NDArray[np.uint8]
Planes = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

_PAN_STEPS = 3
_PAN_REACH = 0.14
"""How far a pan may go in so many frames, in sides of the picture."""
_PAN_PAIRS = 3
_STILL_WORSE = 1.15
_PLAIN_BELOW = 0.035
_CLEAR = 0.45
"""Share of a texture's variance that a regular pattern must explain."""
_ROWS_MORE = 0.3
"""How much more of it a gradient must explain, because clouds too have brighter and darker rows."""
_RATES: dict[Texture, tuple[float, float]] = {"striped": (6.0, 8.0), "checkered": (7.0, 8.0)}
"""Half turns of a texture's wave along the shorter side: of a film's backdrop and of a studio's wall."""
_UPPER = 0.66
_LEAST_PX = 16


def read_texture(light: Planes, bare: Bools, noise: float) -> tuple[Texture, float]:
    """Texture and confidence from the brightness [H, W] of a backdrop about 1, where it is ``bare``.

    Only the upper part is read: in a studio the rest is floor, seen at a slant.

    Args:
        noise: what noise adds to the standard deviation of ``light``.
    """
    side = min(light.shape)
    rows, columns = np.nonzero(bare[: max(1, round(_UPPER * light.shape[0]))])
    if len(rows) < _LEAST_PX:
        return "plain", 0.0
    values = light[rows, columns].astype(np.float64)
    values -= values.mean()
    power = float((values**2).mean())
    spread = max(power - noise**2, 0.0)
    if spread < _PLAIN_BELOW**2:
        return "plain", 1 - spread**0.5 / _PLAIN_BELOW / 2
    sums, num = np.bincount(rows, values), np.maximum(np.bincount(rows), 1)
    shares: dict[Texture, float] = {"gradient": float((sums**2 / num).sum()) / len(values) / power - _ROWS_MORE}
    for texture, rates in _RATES.items():
        waves = [sorted(_wave(values, columns, rows, rate / side, sign) for sign in (1, -1)) for rate in rates]
        # Checks are waves along both diagonals, stripes along one.
        shares[texture] = max(more - less if texture == "striped" else 2 * less for less, more in waves) / power
    best = max(shares, key=lambda name: shares[name])
    clear = shares[best] - _CLEAR
    return best if clear > 0 else "cloudy", float(min(1.0, abs(clear) / 0.3) * spread / power)


def _wave(values: Floats, x: Ints, y: Ints, rate: float, sign: int) -> float:
    """Mean power of a wave of ``rate`` half turns per pixel along both axes."""
    turn = np.exp(1j * np.pi * rate * (x + sign * y))
    return float(2 * abs((values * turn).mean()) ** 2)


def read_pan(frames: Frames, bare: Callable[[int], Bools], factor: int) -> tuple[Direction | None, float]:
    """Where the camera pans to, and confidence, by the shift that makes two of the frames [F, H, W, 3] alike.

    A pan of stripes looks like another one across it, so it is their grain that tells; noise hides it.

    Args:
        bare: where a frame shows the backdrop alone, in pictures smaller by ``factor``.
    """
    steps = min(_PAN_STEPS, len(frames) - 1)
    if steps < 1:
        return None, 0.0
    begins = np.unique(np.linspace(0, len(frames) - 1 - steps, _PAN_PAIRS).astype(int))
    pairs = np.stack((begins, begins + steps), axis=1)
    seen = np.array(
        [[bare(index).repeat(factor, axis=0).repeat(factor, axis=1) for index in pair] for pair in pairs.tolist()]
    )
    height, width = seen.shape[2:]
    # Shadows move over the floor of a studio.
    upper = max(1, round(_UPPER * height))
    seen, grey = seen[:, :, :upper], frames[pairs, :upper, :width].sum(axis=-1, dtype=np.float32)
    # Across a pan every pixel tells the same, so in large pictures some lines are enough.
    rows, columns = (slice(None), slice(None), slice(None, None, factor)), (..., slice(None, None, factor))
    reach = range(1, max(2, 1 + int(_PAN_REACH * min(height, width))))
    still = _difference(grey[rows], seen[rows], 0, 0)
    best = {
        name: min(_difference(grey[lines], seen[lines], dx * far, dy * far) for far in reach)
        for name, (dx, dy) in DIRECTIONS.items()
        for lines in (rows if dx else columns,)
    }
    first, second = sorted(best, key=lambda name: best[name])[:2]
    # A plain backdrop looks the same wherever the camera goes, and noise makes some way look better than none.
    if still <= _STILL_WORSE * best[first]:
        return None, max(0.0, 1 - still / max(best[first], 1e-9))
    return first, float(1 - best[first] / max(min(still, best[second]), 1e-9))


def _difference(grey: Planes, seen: Bools, dx: int, dy: int) -> float:
    """Mean square difference of pairs [P, 2, H, W] if the camera has moved by (dx, dy) pixels between them."""
    height, width = grey.shape[2:]
    if abs(dx) >= width or abs(dy) >= height:
        return float("inf")
    then = (slice(None), 0, slice(max(dy, 0), height + min(dy, 0)), slice(max(dx, 0), width + min(dx, 0)))
    now = (slice(None), 1, slice(max(-dy, 0), height + min(-dy, 0)), slice(max(-dx, 0), width + min(-dx, 0)))
    both = seen[then] & seen[now]
    squared = (grey[then] - grey[now]) ** 2
    return float((squared * both).sum() / max(int(both.sum()), 1))
