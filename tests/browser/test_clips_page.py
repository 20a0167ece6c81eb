"""The page of curate.report in a real browser: filter, search, sort, turn pages, with many clips and hostile names."""

import base64
import io
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, Page

from telecine_components.curate.report import facts
from telecine_components.curate.report.page import Facts, render
from telecine_components.media import clips

NUM_CLIPS, PAGE = 10_000, 24
WAIT_S = 60.0
EMPTY = dict.fromkeys(clips.SCHEMA.names)
REASONS = (None, "too_short", "too_dark", "duplicate")
OWNED = "<img src=x onerror=\"document.title='owned'\"></script><script>document.title='owned'</script>"
PARTS = ("dense", "main_object", "background", "camera", "style", "action")
SHOWN = "[...document.querySelectorAll('#list > li')].map(card => Number(card.dataset.index))"


def _rows() -> list[dict[str, Any]]:
    rng = np.random.default_rng(0)
    stage = {"name": "curate.filter", "version": "f" * 64, "settings": '{"min_exposure": 0.12, "max_blur": 0.5}'}
    measured = [name for name in facts.MEASURES if name in EMPTY]
    rows = [
        EMPTY
        | {name: float(value) for name, value in zip(measured, rng.random(len(measured)), strict=True)}
        | {
            "clip_id": f"{place:016x}",
            "shot_id": f"f{place // 2:015x}",
            "source": f"day {place // 500}/film {place // 9:04d}.mp4",
            "source_digest": f"{place // 9:064x}",
            "start_s": 4.0 * (place % 9),
            "end_s": 4.0 * (place % 9) + float(rng.uniform(0.2, 4)),
            "width_px": 1280,
            "height_px": 720,
            "reason": REASONS[place % 4],
            "duplicate_of": f"{place - 3:016x}" if place % 4 == 3 else None,
            "caption": f"Somebody walks past door {place:04d}.",
            "captions": {part: f"What is said of the {part} of clip {place}." for part in PARTS},
            "captioner": "signals",
            "licence": "CC0-1.0",
            "stages": [stage],
        }
        for place in range(NUM_CLIPS)
    ]
    rows[0] |= {"source": OWNED, "caption": OWNED, "captions": {"dense": OWNED}, "licence": OWNED}
    rows[1]["blur"] = None
    return [*rows, EMPTY | {"source": OWNED, "reason": OWNED}]


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of ten thousand clips, one in ten of them with a poster."""
    rows = _rows()
    stream = io.BytesIO()
    Image.linear_gradient("L").resize((384, 54)).save(stream, format="JPEG")
    poster = f"data:image/jpeg;base64,{base64.b64encode(stream.getvalue()).decode()}"
    started = time.perf_counter()
    page = render(
        Facts(
            rows=rows,
            funnel=facts.funnel(rows),
            measures=facts.measures(rows, facts.thresholds(rows, {})),
            posters=[poster if place % 10 == 0 else None for place in range(len(rows))],
        )
    )
    print(f"{len(page) / 2**20:.1f} MiB in {time.perf_counter() - started:.1f} s")
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(page, encoding="utf-8")
    return path


@pytest.fixture
def seen(page: Page, report: Path) -> Iterator[Page]:
    """The page, opened from disk; fails on whatever the browser complains of, and on requests that leave the page."""
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda message: complaints.append(message.text))
    page.on("request", lambda request: complaints.append(request.url[:80]) if _leaves(request.url) else None)
    page.goto(report.as_uri())
    yield page
    assert page.title() == "Telecine: curated clips", "a name was run as a script"
    assert complaints == []


def _leaves(url: str) -> bool:
    return not url.startswith(("data:", "blob:")) and not url.endswith("report.html")


def test_a_person_filters_searches_sorts_and_turns_pages(seen: Page) -> None:
    assert _shown(seen) == list(range(PAGE)) and seen.inner_text("#place") == "1\u201324 of 10,001"
    seen.click("button:has-text('too dark')")
    assert _shown(seen) == list(range(2, 4 * PAGE, 4)) and seen.inner_text("#place").endswith("of 2,500")
    seen.click("#after")
    assert _shown(seen)[0] == 2 + 4 * PAGE
    seen.select_option("#show", "kept")
    assert _shown(seen) == list(range(0, 4 * PAGE, 4)), "another filter begins at its first page"

    rows = _rows()
    kept = sorted(range(0, NUM_CLIPS, 4), key=lambda place: rows[place]["blur"])
    seen.select_option("#sort", "blur")
    assert _shown(seen) == kept[:PAGE]
    seen.click("#turn")
    assert _shown(seen) == kept[::-1][:PAGE]

    seen.select_option("#show", "all")
    seen.fill("#search", "WALKS 4321.")
    _until(seen, [4321])
    seen.fill("#search", "no such words")
    _until(seen, [])
    assert seen.is_visible("#none") and seen.is_disabled("#after")


def test_clips_that_were_not_measured_come_last_both_ways(seen: Page) -> None:
    seen.fill("#search", "film 0000.mp4")
    _until(seen, list(range(1, 9)))
    seen.select_option("#sort", "blur")
    lowest = _shown(seen)
    seen.click("#turn")
    assert _shown(seen) == [*lowest[-2::-1], 1] and lowest[-1] == 1


def test_keys_do_what_the_page_says(seen: Page) -> None:
    seen.keyboard.press("ArrowRight")
    assert _shown(seen)[0] == PAGE
    seen.keyboard.press("j")
    seen.keyboard.press("j")
    seen.keyboard.press("k")
    seen.keyboard.press("Enter")
    opened = seen.locator("details[open]")
    opened.locator("dl").wait_for()
    assert opened.count() == 1 and f"background of clip {PAGE}." in opened.inner_text()
    seen.keyboard.press("ArrowLeft")
    seen.keyboard.press("/")
    seen.keyboard.type("walks 4321.j")
    _until(seen, [])
    seen.keyboard.press("Backspace")
    _until(seen, [4321])


def test_a_duplicate_leads_to_the_clip_that_is_kept_instead(seen: Page) -> None:
    seen.fill("#search", "walks 4323.")
    _until(seen, [4323])
    seen.click("#list button")
    assert _shown(seen) == [4320]
    assert seen.evaluate("document.querySelector('#list img').naturalWidth") == 384, "the poster is there"


def test_hostile_names_are_told_as_they_are(seen: Page) -> None:
    seen.click("#list summary")
    seen.wait_for_selector("#list dl")
    assert seen.inner_text("#list > li").count(OWNED) == 4
    seen.select_option("#show", "bad")
    assert OWNED in seen.inner_text("#list > li")


def test_mlflow_shows_it_in_a_sandbox_without_an_origin(page: Page, report: Path) -> None:
    """As MLflow's viewer of artifacts does: an iframe that may run scripts and nothing else, over a blob."""
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.evaluate(
        """html => {
          const frame = document.createElement("iframe");
          frame.sandbox = "allow-scripts"; frame.style = "width: 100%; height: 800px";
          frame.src = URL.createObjectURL(new Blob([html], { type: "text/html" }));
          document.body.append(frame);
        }""",
        report.read_text(),
    )
    inside = page.frame_locator("iframe")
    inside.locator("button:has-text('duplicate')").click()
    assert inside.locator("#place").inner_text().endswith("of 2,500")
    inside.locator("#list button").first.click()
    assert inside.locator("#list img").count() == 1
    assert complaints == []


@pytest.mark.parametrize(("width", "scheme"), [(360, "light"), (1280, "dark")])
def test_it_fits_a_phone_and_a_dark_room(
    chromium: Browser, report: Path, tmp_path: Path, width: int, scheme: Any
) -> None:
    context = chromium.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme)
    tab = context.new_page()
    tab.goto(report.as_uri())
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    background = tab.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(int(part) for part in background[4:-1].split(",")) > 384) == (scheme == "light")
    tab.screenshot(path=tmp_path / "page.png")
    context.close()


def _shown(page: Page) -> list[int]:
    return list(page.evaluate(SHOWN))


def _until(page: Page, wanted: list[int]) -> None:
    """Wait for the search, which waits for whoever types."""
    deadline = time.monotonic() + WAIT_S
    while (found := _shown(page)) != wanted:
        assert time.monotonic() < deadline, found
        time.sleep(0.05)
