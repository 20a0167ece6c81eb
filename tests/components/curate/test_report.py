"""curate.report: every row told once, nothing that a name can do to the page, equal bytes for equal manifests."""

import base64
import hashlib
import io
import json
import re
from collections import Counter
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from telecine import tracking
from telecine.errors import InputError
from telecine_components.curate.filter.funnel import RULES
from telecine_components.curate.report import facts
from telecine_components.curate.report.page import Facts, render
from telecine_components.curate.report.posters import data_uris
from telecine_components.curate.report.sheets import STRIP_PX, sheets, spread, write_sheet
from telecine_components.media import clips

Run = Callable[..., Any]
Rows = list[dict[str, Any]]

EMPTY = dict.fromkeys(clips.SCHEMA.names)
SPLIT = {"name": "curate.split", "version": "a" * 64, "settings": '{"max_clip_s": 4.0}'}
FILTER = {"name": "curate.filter", "version": "b" * 64, "settings": '{"max_blur": 0.5, "min_motion": 0.001}'}
HOSTILE = (
    "</script><script>document.title='owned'</script>.mp4",
    '"><img src=x onerror="document.title=\'owned\'">.mp4',
    "<!--<script >.mp4",
    "</SCRIPT /x><script src=//example.org/x.js>.mp4",
    "$\\frac{1}{0$ \u2028 \u202e 映画 é.mp4",
    "../../../../etc/passwd",
)


def clip(number: int, **columns: Any) -> dict[str, Any]:
    row = {
        "clip_id": f"{number:016x}",
        "source": f"film {number // 4}.mp4",
        "start_s": 2.0 * (number % 4),
        "end_s": 2.0 * (number % 4) + 1.5,
        "width_px": 160,
        "height_px": 120,
        "blur": (number % 10) / 10,
        "motion": number / 100,
        "stages": [SPLIT, FILTER],
    }
    return EMPTY | row | columns


def bad(source: str, reason: str) -> dict[str, Any]:
    return EMPTY | {"source": source, "reason": reason}


def some_rows(seed: int, number: int = 60) -> Rows:
    rng = np.random.default_rng(seed)
    reasons = [None, None, "too_short", "too_blurry", "duplicate", "odd reason"]
    rows = [clip(place, reason=reasons[rng.integers(len(reasons))]) for place in range(number)]
    return rows + [bad(f"bad {place}.mp4", ["empty file", "cannot be read: x"][place % 2]) for place in range(7)]


def page_of(rows: Rows, posters: list[str | None] | None = None) -> str:
    measured = facts.measures(rows, facts.thresholds(rows, {}))
    posters = posters or [None] * len(rows)
    return render(Facts(rows=rows, funnel=facts.funnel(rows), measures=measured, posters=posters))


class Parts(HTMLParser):
    """The tags of a page, what it refers to, its visible text, and what lies in its data element."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.attributes: list[tuple[str, str | None]] = []
        self.text, self.inside, self.contents = "", "", dict[str, str]()
        self.feed(page)
        self.data = json.loads(self.contents["data"])

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes += attrs
        self.inside = dict(attrs).get("id") or tag if tag in ("script", "style") else ""

    def handle_endtag(self, tag: str) -> None:
        self.inside = ""

    def handle_data(self, data: str) -> None:
        if self.inside:
            self.contents[self.inside] = data
        else:
            self.text += data


@pytest.mark.parametrize("seed", range(3))
def test_every_row_is_counted_once(seed: int) -> None:
    rows = some_rows(seed)
    found = facts.funnel(rows)
    assert found.num_clips == 60 == found.kept.count + sum(kind.count for kind in found.rejected)
    assert found.num_bad == 7 == sum(kind.count for kind in found.bad)
    assert found.num_files == len({row["source"] for row in rows}) == 15 + 7
    assert found.seconds == pytest.approx(60 * 1.5)
    assert {kind.name: kind.count for kind in found.rejected} == Counter(
        row["reason"] for row in rows if row["clip_id"] and row["reason"]
    )
    assert sum(len(group) for group in sheets(rows).values()) == 60


def test_the_page_holds_each_clip_once_and_shows_the_counts_of_its_groups() -> None:
    rows = some_rows(4)
    data, found = Parts(page_of(rows)).data, facts.funnel(rows)
    told = [dict(zip(data["columns"], cells, strict=True)) for cells in data["rows"]]
    assert [row["clip_id"] for row in told] == [row["clip_id"] for row in rows]
    groups = Counter(row["group"] for row in told)
    assert groups.pop(None) == found.kept.count
    assert [groups[place] for place in sorted(groups)] == [kind.count for kind in (*found.bad, *found.rejected)]


def test_reasons_stand_in_the_order_in_which_clips_meet_them() -> None:
    late = [SPLIT, FILTER, {"name": "curate.dedup", "version": "c", "settings": "{}"}]
    rows = [clip(0, reason="a_duplicate", stages=late), clip(1, reason="zzz"), clip(2, reason="too_fast")]
    rows += [clip(3, reason="too_dark"), clip(4, reason="too_short", stages=late), clip(5, reason="too_short")]
    assert [kind.name for kind in facts.funnel(rows).rejected] == [
        "too_short",
        "too_dark",
        "too_fast",
        "zzz",
        "a_duplicate",
    ]


def test_the_report_knows_the_order_of_the_filter() -> None:
    assert list(facts.ORDER) == list(RULES)


def test_sentences_about_bad_files_are_told_by_their_kind() -> None:
    rows = [bad("a", "same bytes as b: c.mp4"), bad("b", "same bytes as c\nd"), bad("c", "cannot be decoded: 7 of 9")]
    assert facts.kinds(rows) == ["same bytes as another file"] * 2 + ["cannot be decoded"]
    assert facts.kinds([bad("d", "truncated after 1.25 of 30 s")]) == ["truncated after \u2026 of \u2026 s"]
    many = [bad(str(place), "trouble" + "!" * place) for place in range(30)]
    assert Counter(facts.kinds(many))[facts.OTHER] == 30 - facts.MAX_KINDS


def test_thresholds_are_found_by_their_names_in_every_stage() -> None:
    later = {"name": "curate.filter", "version": "c", "settings": '{"max_blur": 0.4, "max_logo": 0.2, "min_words": 3}'}
    rows = [clip(0), clip(1, stages=[SPLIT, FILTER, later]), clip(2, stages=None)]
    found = facts.thresholds(rows, {"min_exposure": "0.12", "pandas": "x"})
    assert found == {"max_blur": 0.4, "max_logo": 0.2, "min_motion": 0.001, "min_exposure": 0.12}


def test_a_histogram_holds_every_clip_that_was_measured() -> None:
    rows = [clip(place, motion=place / 100, reason="too_fast" if place > 150 else None) for place in range(200)]
    rows += [clip(200, motion=1e6), clip(201, motion=None), clip(202, motion=float("nan"))]
    (motion,) = [m for m in facts.measures(rows, {"max_motion": 1.5, "min_motion": -40}) if m.name == "motion"]
    assert motion.kept.sum() + motion.rejected.sum() == 201
    assert motion.rejected.sum() == 49
    assert -0.1 < motion.edges[0] <= 0.01 and 1.5 < motion.edges[-1] < 3, (
        "neither outlier nor far threshold squeezes it"
    )
    assert np.diff(motion.edges) == pytest.approx(np.diff(motion.edges).mean())
    assert motion.breaks(1.6) and not motion.breaks(1.4) and not motion.breaks(None)
    assert "logo" not in {m.name for m in facts.measures(rows, {})}, "nobody measured it"


@pytest.mark.parametrize("limits", [(0.3, None), (None, 0.8), (0.3, 0.8), (0.001, 1.0), (0.5, 0.5001), (0.0, 1.0)])
def test_no_bar_of_a_histogram_holds_clips_of_both_sides_of_a_threshold(limits: tuple[float | None, ...]) -> None:
    rows = [clip(place, blur=float(blur)) for place, blur in enumerate(np.random.default_rng(0).random(300))]
    given = {f"{side}_blur": limit for side, limit in zip(("min", "max"), limits, strict=True) if limit is not None}
    (blur,) = [m for m in facts.measures(rows, given) if m.name == "blur"]
    assert blur.kept.sum() == 300 and len(blur.kept) < 3 * facts.NUM_BINS
    for limit in list(given.values())[: 1 if limits == (0.5, 0.5001) else 2]:
        assert np.abs(blur.edges - limit).min() < 1e-9, "unless they lie closer together than a bar is wide"
        assert blur.kept[blur.edges[:-1] < limit - 1e-9].sum() == sum(row["blur"] < limit for row in rows)


def test_a_measure_that_goes_below_zero_has_an_axis_that_does_so_too() -> None:
    rows = [clip(place, cut_doubt=doubt) for place, doubt in enumerate([-4.0] * 50 + [-3.0] * 9 + [-1.0])]
    page = page_of(rows)
    scales = {scale["name"]: scale for scale in Parts(page).data["measures"]}
    assert -4.5 < scales["cut_doubt"]["bottom"] <= -4.0 and scales["duration_s"]["bottom"] == 0
    (axis,) = re.findall(r'<b>cut doubt</b>.*?<div class="axis quiet"><span>(.*?)</span>', page)
    assert float(axis) == pytest.approx(scales["cut_doubt"]["bottom"], abs=0.01)


def test_names_captions_and_reasons_cannot_write_into_the_page() -> None:
    rows = [
        clip(place, source=name, caption=name, captions={"dense": name}, reason=name, licence=name)
        for place, name in enumerate(HOSTILE)
    ]
    rows += [bad(name, name) for name in HOSTILE] + [
        clip(99, duplicate_of=HOSTILE[0], stages=[SPLIT | {"name": "<b>"}])
    ]
    honest, parts = Parts(page_of([clip(0)])), Parts(page_of(rows))
    assert set(parts.tags) <= set(honest.tags) | {"button"} and parts.tags["script"] == 2
    assert not [name for name, _ in parts.attributes if name.startswith("on") or name == "style"]
    assert not set("<>&") & set(parts.contents["data"]), "browsers end a script more readily than Python's parser"
    assert [cells[1] for cells in parts.data["rows"]] == [row["source"] for row in rows]
    assert HOSTILE[0] in parts.text


def test_the_page_names_nothing_outside_and_allows_its_own_script_alone() -> None:
    parts = Parts(page_of([clip(0)]))
    references = [value for name, value in parts.attributes if name in ("src", "href", "action", "srcset")]
    assert references == ["data:,"]
    (policy,) = [value for name, value in parts.attributes if name == "content" and "default-src" in (value or "")]
    for element in ("script", "style"):
        digest = base64.b64encode(hashlib.sha256(parts.contents[element].encode()).digest()).decode()
        assert f"{element}-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'; img-src data:;")


@pytest.fixture
def posters(tmp_path: Path) -> list[Path]:
    """Forty strips of four frames as JPEG."""
    rng = np.random.default_rng(0)
    for place in range(40):
        small = Image.fromarray(rng.integers(0, 255, (6, 32, 3), np.uint8))
        small.resize((768, 108), Image.Resampling.BICUBIC).save(tmp_path / f"{place}.jpg", quality=85)
    return [tmp_path / f"{place}.jpg" for place in range(40)]


def test_posters_stay_as_they_are_while_they_fit(posters: list[Path]) -> None:
    uris = data_uris([None, *posters], budget_bytes=2**22)
    assert uris[0] is None
    assert [_bytes_of(uri) for uri in uris[1:]] == [path.read_bytes() for path in posters]


@pytest.mark.parametrize(("budget_bytes", "fewest"), [(300_000, 40), (60_000, 15), (400, 0), (0, 0)])
def test_posters_that_do_not_fit_are_shrunk_and_then_spread(
    posters: list[Path], budget_bytes: int, fewest: int
) -> None:
    uris = data_uris(posters, budget_bytes=budget_bytes)
    there = [place for place, uri in enumerate(uris) if uri is not None]
    assert sum(len(uri) for uri in uris if uri is not None) <= budget_bytes
    assert len(there) >= fewest
    assert np.diff([-1, *there, len(uris)]).max() <= 4 if there else budget_bytes <= 400
    for place in there:
        with Image.open(io.BytesIO(_bytes_of(uris[place]))) as picture:
            assert picture.width / picture.height == pytest.approx(768 / 108, rel=0.05)


def _bytes_of(uri: str | None) -> bytes:
    return base64.b64decode(str(uri).partition(",")[2])


def test_a_sheet_takes_its_clips_evenly() -> None:
    rows = [clip(place) for place in range(10)]
    assert [row["motion"] for row in spread(rows, 4)] == [0.0, 0.02, 0.05, 0.07]
    assert spread(rows, 50) == rows


def test_a_strip_of_one_frame_leaves_its_label_room(tmp_path: Path) -> None:
    Image.new("RGB", (60, 40)).save(tmp_path / "poster.jpg")
    write_sheet(tmp_path / "sheet.png", [(clip(0), tmp_path / "poster.jpg")], [], {})
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.width == STRIP_PX[0]


@pytest.fixture
def manifest(deployment: Any, posters: list[Path], tmp_path: Path) -> Path:
    """A manifest whose clips have posters in the store."""
    folder = deployment.home / "store" / "work" / "posters"
    folder.mkdir(parents=True)
    rows = [*some_rows(5), bad(HOSTILE[0], "empty file"), clip(99, source=HOSTILE[3], reason="../../Zu kurz!")]
    for place, row in enumerate(row for row in rows if row["clip_id"] is not None):
        (folder / f"{place}.jpg").write_bytes(posters[place % 40].read_bytes())
        row["poster"] = f"work/posters/{place}.jpg"
    clips.write(tmp_path / "clips.parquet", rows, metadata={"min_duration_s": "1.0"})
    return tmp_path / "clips.parquet"


def test_page_pictures_and_figures_are_in_the_run(run_component: Run, deployment: Any, manifest: Path) -> None:
    outputs = run_component("curate.report", clips_uri=manifest, sheet_clips=3)
    names = {path.name for path in _local(outputs.pictures_uri).iterdir()}
    assert names == {
        "funnel.png",
        "histograms.png",
        "kept.png",
        *(f"rejected_{name}.png" for name in ("too_short", "too_blurry", "duplicate", "odd_reason", "zu_kurz")),
    }
    client = tracking.connect(deployment)
    (run,) = [
        run
        for run in client.search_runs([e.experiment_id for e in client.search_experiments()])
        if run.data.tags.get("platform.component") == "curate.report"
    ]
    assert {file.path for file in client.list_artifacts(run.info.run_id)} >= {"report.html", "pictures"}
    assert {Path(file.path).name for file in client.list_artifacts(run.info.run_id, "pictures")} == names
    told = run.data.metrics
    rejected = sum(value for name, value in told.items() if name.startswith("funnel/rejected_"))
    assert told["funnel/clips"] == 61 == told["funnel/kept"] + rejected == outputs.num_clips
    assert told["funnel/bad_files"] == 8 and told["funnel/kept_hours"] == pytest.approx(outputs.kept_hours)
    assert told["median/duration_s"] == 1.5
    assert run.inputs.dataset_inputs[0].dataset.name == "clips"


def test_equal_manifests_give_equal_bytes_wherever_they_lie(run_component: Run, manifest: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    other = tmp_path / "elsewhere" / "other.parquet"
    other.write_bytes(manifest.read_bytes())
    once = run_component("curate.report", clips_uri=manifest, sheet_clips=3)
    first = _digests(once)
    again = run_component("curate.report", run="another", force=True, clips_uri=other, sheet_clips=3)
    assert again.report_uri != once.report_uri
    assert _digests(again) == first and len(first) == 9


def _digests(outputs: Any) -> dict[str, str]:
    files = [_local(outputs.report_uri), *_local(outputs.pictures_uri).iterdir()]
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def _local(uri: str) -> Path:
    return Path(uri.removeprefix("file://"))


def test_a_manifest_without_posters_or_clips_still_gives_a_report(run_component: Run, tmp_path: Path) -> None:
    clips.write(tmp_path / "clips.parquet", [bad("a.mp4", "empty file")])
    outputs = run_component("curate.report", clips_uri=tmp_path / "clips.parquet")
    assert [path.name for path in _local(outputs.pictures_uri).iterdir()] == ["funnel.png"]
    assert "empty file" in _local(outputs.report_uri).read_text()
    assert (outputs.num_clips, outputs.kept_ratio, outputs.num_bad_files) == (0, 0.0, 1)


def test_a_manifest_of_another_store_is_told_from_one_without_posters(run_component: Run, tmp_path: Path) -> None:
    clips.write(tmp_path / "clips.parquet", [clip(0, poster="work/curate.split/items/ab/cd/gone.jpg")])
    with pytest.raises(InputError, match=r"clips_uri names work/curate.split/items/ab/cd/gone.jpg, which file://"):
        run_component("curate.report", clips_uri=tmp_path / "clips.parquet")


def test_a_poster_that_is_no_picture_is_refused(run_component: Run, deployment: Any, tmp_path: Path) -> None:
    (deployment.home / "store").mkdir()
    (deployment.home / "store" / "poster.jpg").write_text("no picture")
    clips.write(tmp_path / "clips.parquet", [clip(0, poster="poster.jpg")])
    with pytest.raises(InputError, match=r"curate\.report: a poster must be a JPEG, got poster\.jpg"):
        run_component("curate.report", clips_uri=tmp_path / "clips.parquet")


def test_the_figures_of_a_page_are_readable() -> None:
    text = re.sub(r"\s+", " ", Parts(page_of(some_rows(1))).text)
    assert "files without a clip7" in text and "cannot be read" in text and "too short" in text
