"""The page of deploy.serve in a real browser: log in, ask for a film, watch it."""

import base64
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import ElementHandle, Page

from telecine_components.media.encode import write_mp4

DRAWN = """video => {
  const canvas = document.createElement("canvas");
  canvas.width = video.videoWidth; canvas.height = video.videoHeight;
  const drawing = canvas.getContext("2d");
  drawing.drawImage(video, 0, 0);
  const data = drawing.getImageData(0, 0, canvas.width, canvas.height).data;
  const colours = new Set();
  for (let i = 0; i < data.length; i += 4) colours.add(data[i] << 16 | data[i + 1] << 8 | data[i + 2]);
  return colours.size;
}"""


WAIT_S = 60.0


def until(page: Page | ElementHandle, expression: str) -> None:
    """Wait until an expression holds; asked from outside, because the page's policy lets nobody evaluate in it."""
    deadline = time.monotonic() + WAIT_S
    while not page.evaluate(expression):
        assert time.monotonic() < deadline, expression
        time.sleep(0.05)


@pytest.fixture(scope="module")
def service(launcher: Any) -> Any:
    return launcher.start(model_name="served", num_steps=20)


def test_a_person_logs_in_asks_for_a_film_and_sees_it_move(service: Any, page: Page, tmp_path: Path) -> None:
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda message: complaints.append(message.text) if "Security Policy" in message.text else None)
    page.goto(service.url)
    page.fill("#token", "not the token")
    page.click("text=Log in")
    until(page, "document.querySelector('#message').textContent.includes('not the token')")
    page.fill("#token", service.token)
    page.click("text=Log in")

    prompt = "a red square that only this test asks for"  # the page also lists films of services before this one
    page.fill("#prompt", prompt)
    page.fill("#num_frames", "16")
    page.click("text=Make the film")
    card = f"li[data-status=done]:has-text('{prompt}')"
    video = page.wait_for_selector(f"{card} video")
    assert video is not None
    until(video, "video => video.readyState >= 2")
    until(video, "video => video.currentTime > 0.2")
    first = video.evaluate("video => video.currentTime")
    until(video, f"video => Math.abs(video.currentTime - {first}) > 0.2")
    page.screenshot(path=tmp_path / "film.png")

    assert video.evaluate("video => [video.videoWidth, video.videoHeight]") == [256, 256]
    assert video.evaluate("video => video.duration") == pytest.approx(2.0, abs=0.2)
    assert video.evaluate(DRAWN) > 8, "one flat colour has one; the model of the tests paints 64 pixels"
    assert "served version 1" in page.inner_text(card)
    assert complaints == []


def test_a_flat_film_would_be_noticed(page: Page, tmp_path: Path) -> None:
    """What the test above asserts of the film can fail: a film of one colour has one, whatever the codec does."""
    write_mp4(tmp_path / "flat.mp4", np.full((8, 64, 64, 3), 90, dtype=np.uint8), 8.0)
    data = base64.b64encode((tmp_path / "flat.mp4").read_bytes()).decode()
    page.set_content(f"<video muted autoplay src='data:video/mp4;base64,{data}'></video>")
    video = page.wait_for_selector("video")
    assert video is not None
    until(video, "video => video.readyState >= 2")
    assert video.evaluate(DRAWN) == 1


def test_a_film_that_takes_long_says_how_far_it_is_and_can_be_cancelled(service: Any, page: Page) -> None:
    page.goto(service.url)
    page.fill("#token", service.token)
    page.click("text=Log in")
    page.fill("#prompt", "<b>a long film</b>")
    page.fill("#num_steps", "500000")
    page.click("text=Make the film")
    until(page, "/step [1-9]\\d* of 500000/.test(document.querySelector('#films').textContent)")
    assert "<b>a long film</b>" in page.inner_text("li[data-status=running]")
    page.click("li[data-status=running] button")
    page.wait_for_selector("li[data-status=cancelled]")
    assert service.http.get("/v1/videos").json()["videos"][0]["status"] == "cancelled"
