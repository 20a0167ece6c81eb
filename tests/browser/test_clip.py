"""A clip whose head was encoded and joined to copied packets plays in a browser, frame by frame."""

import base64
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from playwright.sync_api import Page

from telecine_components.media.cut import Cut, Rule, Span, cut

FPS = 25
PLAY = """async ([data, times]) => {
  const video = document.querySelector('video'), canvas = document.querySelector('canvas');
  video.src = 'data:video/mp4;base64,' + data;
  await new Promise((ok, no) => { video.oncanplay = ok; video.onerror = () => no(new Error(video.error.message)); });
  const drawn = canvas.getContext('2d', {willReadFrequently: true}), levels = [];
  for (const time of times) {
    const shown = new Promise(ok => { video.requestVideoFrameCallback(ok); });
    video.currentTime = time;
    await shown;
    drawn.drawImage(video, 0, 0, canvas.width, canvas.height);
    levels.push(drawn.getImageData(8, 8, 1, 1).data[1]);
  }
  return [video.duration, levels];
}"""


def _film(path: Path) -> None:
    """48 grey frames, each by four levels lighter than the one before, a keyframe every 24."""
    with av.open(str(path), "w") as film:
        stream = film.add_stream("libx264", rate=FPS, options={"g": "24", "crf": "12", "threads": "1"})
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for number in range(48):
            frame = av.VideoFrame.from_ndarray(np.full((64, 96, 3), 30 + 4 * number, np.uint8), format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, FPS)
            film.mux(stream.encode(frame))
        film.mux(stream.encode(None))


def test_a_joined_clip_shows_every_frame_at_its_time(page: Page, tmp_path: Path) -> None:
    _film(tmp_path / "film.mp4")
    span = Span(18, 48, 18 / FPS, 48 / FPS)
    assert cut(tmp_path / "film.mp4", [span], [tmp_path / "clip.mp4"], Rule()) == [Cut(18, 48, 6)]
    data = base64.b64encode((tmp_path / "clip.mp4").read_bytes()).decode()
    page.set_content("<video muted></video><canvas width=96 height=64></canvas>")
    duration, levels = page.evaluate(PLAY, [data, [(number + 0.5) / FPS for number in range(30)]])
    assert duration == pytest.approx(30 / FPS)
    assert [round((level - 30) / 4) for level in levels] == list(range(18, 48))
