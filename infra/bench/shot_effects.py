"""What happens inside a shot of the corpus without ending it, and the transitions that do end one."""

from collections.abc import Callable

import cv2
import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]
Effect = Callable[[Pixels, np.random.Generator], Pixels]

BLUR_STEPS = 6


def whip(wide: Pixels, draw: np.random.Generator) -> Pixels:
    """The camera swings by its whole view within a quarter of a second, smeared by its own motion."""
    num, lasts = len(wide), int(draw.integers(5, 11))
    begins = int(draw.integers(4, max(5, num - lasts - 4)))
    share = _smooth(np.clip((np.arange(num * BLUR_STEPS) / BLUR_STEPS - begins) / lasts, 0, 1))
    share = share if draw.uniform() < 0.5 else 1 - share
    return _seen(wide, 0.25 + 0.5 * share, np.full(len(share), draw.uniform(0.3, 0.7)), np.full(len(share), 0.5))


def shake(wide: Pixels, draw: np.random.Generator) -> Pixels:
    """A camera held by hand: a random walk that is drawn back, sharp in every frame."""
    place = np.zeros((len(wide), 2))
    pull, kick = 0.75, draw.uniform(0.008, 0.02)
    for index in range(1, len(wide)):
        place[index] = pull * place[index - 1] + draw.normal(0, kick, 2)
    x, y = (np.repeat(0.5 + place[:, axis], BLUR_STEPS) for axis in (0, 1))
    return _seen(wide, x, y, np.full(len(x), 0.7))


def zoom(wide: Pixels, draw: np.random.Generator) -> Pixels:
    """The lens goes in or out fast."""
    num, lasts = len(wide), int(draw.integers(8, 16))
    begins = int(draw.integers(2, max(3, num - lasts - 2)))
    share = _smooth(np.clip((np.arange(num * BLUR_STEPS) / BLUR_STEPS - begins) / lasts, 0, 1))
    scale = 1.0 - draw.uniform(0.4, 0.6) * (share if draw.uniform() < 0.5 else 1 - share)
    return _seen(wide, np.full(len(share), 0.5), np.full(len(share), 0.5), scale)


def pan(wide: Pixels, draw: np.random.Generator) -> Pixels:
    """The camera goes steadily and fast across all that there is."""
    share = np.linspace(0, 1, len(wide) * BLUR_STEPS)
    share = share if draw.uniform() < 0.5 else 1 - share
    return _seen(wide, 0.25 + 0.5 * share, np.full(len(share), draw.uniform(0.3, 0.7)), np.full(len(share), 0.5))


def glide(wide: Pixels, draw: np.random.Generator) -> Pixels:
    """The camera goes steadily and slowly one way, by up to a third of its view in ten frames, blurred or sharp."""
    num, scale = len(wide), 0.5
    away, angle = draw.uniform(0.0015, 0.03) * num * scale, draw.uniform(0, 2 * np.pi)
    reach = min(away, 0.45) * np.array([np.cos(angle), np.sin(angle)])
    steps = np.arange(num * BLUR_STEPS) / BLUR_STEPS
    share = (steps if draw.uniform() < 0.5 else np.floor(steps)) / num - 0.5
    return _seen(wide, 0.5 + reach[0] * share, 0.5 + reach[1] * share, np.full(len(share), scale))


def creep(wide: Pixels, draw: np.random.Generator) -> Pixels:
    """The lens goes in or out slowly for the whole shot."""
    share = np.arange(len(wide) * BLUR_STEPS) / BLUR_STEPS / len(wide)
    share = share if draw.uniform() < 0.5 else 1 - share
    scale = 0.9 - min(0.6, draw.uniform(0.001, 0.02) * len(wide)) * share
    return _seen(wide, np.full(len(share), 0.5), np.full(len(share), 0.5), scale)


def flash(frames: Pixels, draw: np.random.Generator) -> Pixels:
    """Photographers' flashes: a frame or two lit up, all over or from one side, then dying away."""
    lit = frames.astype(np.float32)
    for place in draw.integers(5, len(frames) - 6, size=2):
        side = np.ones(frames.shape[2]) if draw.uniform() < 0.6 else np.linspace(0, 1, frames.shape[2])
        for after, light in enumerate((draw.uniform(0.6, 0.95), draw.uniform(0, 0.8), 0.15)):
            share = (light * side).astype(np.float32)[None, :, None]
            lit[place + after] += share * (255 - lit[place + after])
    return lit.astype(np.uint8)


def strobe(frames: Pixels, draw: np.random.Generator) -> Pixels:
    """Light that goes on and off every few frames."""
    period = int(draw.integers(2, 5))
    gain = np.where((np.arange(len(frames)) // period) % 2, 1.0, draw.uniform(0.15, 0.5))
    lit: Pixels = np.clip(frames * gain[:, None, None, None].astype(np.float32), 0, 255).astype(np.uint8)
    return lit


def dark(frames: Pixels, draw: np.random.Generator) -> Pixels:
    """Low light: little signal, and the sensor's noise."""
    return _noisy(frames * np.float32(draw.uniform(0.12, 0.3)), 4.0, draw)


def grain(frames: Pixels, draw: np.random.Generator) -> Pixels:
    """Film grain."""
    return _noisy(frames.astype(np.float32), draw.uniform(6, 12), draw)


def still(frames: Pixels, draw: np.random.Generator) -> Pixels:
    """A photograph held for the whole shot, with a little noise."""
    return _noisy(np.repeat(frames[:1], len(frames), axis=0).astype(np.float32), 1.0, draw)


def hold(frames: Pixels, draw: np.random.Generator) -> Pixels:
    """Drawn animation: each picture stays for two to four frames, and then jumps."""
    every = int(draw.integers(2, 5))
    return frames[np.arange(len(frames)) // every * every]


def crossing(frames: Pixels, draw: np.random.Generator) -> Pixels:
    """Something large and near passes between the camera and the scene, as a lorry does."""
    out, width = frames.copy(), frames.shape[2]
    lasts, begins = int(draw.integers(8, 15)), int(draw.integers(3, len(frames) - 17))
    coarse = draw.integers(0, 256, (5, 8, 3)).astype(np.uint8)
    body = np.asarray(cv2.resize(coarse, (round(width * draw.uniform(0.4, 0.9)), frames.shape[1] * 4 // 5)), np.uint8)
    for step in range(lasts):
        left = round(-body.shape[1] + (width + body.shape[1]) * (step + 0.5) / lasts)
        shown = slice(max(0, left), min(width, left + body.shape[1]))
        out[begins + step, -body.shape[0] :, shown] = body[:, shown.start - left : shown.stop - left]
    return out


WIDE: dict[str, Effect] = {"whip": whip, "shake": shake, "zoom": zoom, "pan": pan}
STEADY: dict[str, Effect] = {"glide": glide, "creep": creep}
"""In practice films alone: the corpus was frozen without them."""
PLAIN: dict[str, Effect] = {
    "flash": flash,
    "strobe": strobe,
    "dark": dark,
    "grain": grain,
    "still": still,
    "hold": hold,
    "crossing": crossing,
}


def dissolved(left: Pixels, right: Pixels, *, eased: bool) -> Pixels:
    """Equally many frames of both, mixed; eased begins and ends gently."""
    share = np.arange(1, len(left) + 1) / (len(left) + 1)
    weights = (_smooth(share) if eased else share).astype(np.float32)[:, None, None, None]
    mixed: Pixels = np.rint((1 - weights) * left + weights * right).astype(np.uint8)
    return mixed


def faded(frames: Pixels, level: int, *, out: bool) -> Pixels:
    """Frames that go to a plain level, or come from it; the plain frame itself is not among them."""
    share = (np.arange(1, len(frames) + 1) / (len(frames) + 1)).astype(np.float32)[:, None, None, None]
    share = share if out else 1 - share
    mixed: Pixels = np.rint((1 - share) * frames + share * level).astype(np.uint8)
    return mixed


def _seen(wide: Pixels, x: Floats, y: Floats, scale: Floats) -> Pixels:
    """What a view of ``scale`` of the material's sides at (x, y) sees; BLUR_STEPS views make up a frame."""
    height, width = wide.shape[1] // 2, wide.shape[2] // 2
    out = np.empty((len(wide), height, width, 3), np.uint8)
    for index, frame in enumerate(wide):
        views = [
            _view(frame, x[step], y[step], scale[step], (width, height))
            for step in range(index * BLUR_STEPS, (index + 1) * BLUR_STEPS)
        ]
        out[index] = np.mean(views, axis=0)
    return out


def _view(frame: Pixels, x: float, y: float, scale: float, size: tuple[int, int]) -> Pixels:
    box = frame.shape[1] * scale, frame.shape[0] * scale
    left = np.clip(x * frame.shape[1] - box[0] / 2, 0, frame.shape[1] - box[0])
    top = np.clip(y * frame.shape[0] - box[1] / 2, 0, frame.shape[0] - box[1])
    matrix = np.array([[box[0] / size[0], 0, left], [0, box[1] / size[1], top]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return np.asarray(cv2.warpAffine(frame, matrix, size, flags=flags, borderMode=cv2.BORDER_REPLICATE), np.uint8)


def _smooth(share: Floats) -> Floats:
    eased: Floats = share * share * (3 - 2 * share)
    return eased


def _noisy(frames: npt.NDArray[np.float32], sigma: float, draw: np.random.Generator) -> Pixels:
    noise = draw.normal(0, sigma, frames.shape).astype(np.float32)
    noisy: Pixels = np.clip(frames + noise, 0, 255).astype(np.uint8)
    return noisy
