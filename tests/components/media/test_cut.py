import dataclasses
import os
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
import pytest

from telecine_components.media.clip_file import Encode
from telecine_components.media.cut import Cut, Loss, Rule, Span, cut, plan
from telecine_components.media.decode import open_video
from telecine_components.media.packets import PacketIndex, Run, index_of
from telecine_components.stages import alive

Pixels = npt.NDArray[np.uint8]
FPS = 25
NUM_FRAMES = 72
GOP = 24
CLOSE_DB = 38.0
CLOSED_HEVC = {"x265-params": "log-level=0:open-gop=0"}
OPEN_HEVC = {"preset": "ultrafast", "x265-params": "log-level=0:open-gop=1"}
FAST_VP9 = {"deadline": "realtime", "cpu-used": "8", "lag-in-frames": "0"}
Film = Callable[..., Path]


@dataclasses.dataclass
class Shown:
    """A film as it is shown: seconds of every frame and of the end, planes of every frame."""

    times_s: list[float]
    frames: list[Pixels]
    rotation: int

    def span(self, start: int, end: int) -> Span:
        return Span(start, end, round(self.times_s[start], 6), round(self.times_s[end], 6))


@pytest.fixture(scope="session")
def film(tmp_path_factory: pytest.TempPathFactory) -> Film:
    """Write 72 frames of a pattern that moves, with a keyframe every 24 frames; x264 predicts from later frames."""
    folder = tmp_path_factory.mktemp("films")
    y, x = np.mgrid[:66, :98].astype(np.float64)

    def write(name: str, codec: str = "libx264", size: tuple[int, int] = (96, 64), **how: Any) -> Path:
        path = folder / name
        options = how.get("options", {}) | {"g": str(GOP), "threads": "1", "crf": "23"}
        with av.open(str(path), "w") as container:
            stream = container.add_stream(codec, rate=FPS, options=options)
            stream.width, stream.height, stream.pix_fmt = *size, how.get("pix_fmt", "yuv420p")
            if rotation := how.get("rotation"):
                stream.set_display_rotation(rotation)
            stamps = how.get("stamps", range(NUM_FRAMES))
            for number, stamp in enumerate(stamps):
                waves = [np.sin((x + k * number) / (7 + k)) * np.cos((y - number) / (9 - k)) for k in range(3)]
                picture = (127 + 110 * np.stack(waves, axis=-1)[: size[1], : size[0]]).astype(np.uint8)
                frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
                frame.pts, frame.time_base = stamp, Fraction(1, FPS)
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        # For root, SVT-AV1 makes the thread that opens it one of real time, and what that starts later inherits it.
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
        return path

    return write


def shown(path: Path) -> Shown:
    with open_video(path) as video:
        found: list[tuple[float, Any, int]] = [
            (time_s, frame.to_ndarray(format="yuv420p"), frame.rotation) for time_s, frame in video.frames()
        ]
    times_s = [time_s for time_s, _, _ in found]
    step_s = times_s[-1] - times_s[-2] if len(times_s) > 1 else 1 / FPS
    return Shown([*times_s, times_s[-1] + step_s], [planes for _, planes, _ in found], found[0][2])


def made(path: Path, spans: Sequence[tuple[int, int]], folder: Path, **rule: Any) -> list[tuple[Cut | Loss, Path]]:
    """Cut, and check of every clip that its frames are the film's: bit for bit where copied, close where encoded."""
    source = shown(path)
    outputs = [folder / f"{start}-{end}.mp4" for start, end in spans]
    found = cut(path, [source.span(*span) for span in spans], outputs, Rule(**rule))
    for result, output in zip(found, outputs, strict=True):
        assert output.exists() == isinstance(result, Cut)
        if isinstance(result, Cut):
            _check_alike(shown(output), source, result)
    return list(zip(found, outputs, strict=True))


def _check_alike(clip: Shown, source: Shown, result: Cut) -> None:
    wanted = source.frames[result.start : result.end]
    assert len(clip.frames) == len(wanted) == result.end - result.start
    assert clip.times_s[:-1] == pytest.approx(
        [each - source.times_s[result.start] for each in source.times_s[result.start : result.end]], abs=1e-6
    )
    assert clip.rotation == source.rotation
    unequal = [(ours, theirs) for ours, theirs in zip(clip.frames, wanted, strict=True) if (ours != theirs).any()]
    assert len(unequal) <= result.num_encoded
    for ours, theirs in unequal:
        assert _psnr(ours, theirs) > CLOSE_DB


def _psnr(ours: Pixels, theirs: Pixels) -> float:
    return float(10 * np.log10(255**2 / np.mean((ours.astype(float) - theirs) ** 2)))


def _ways(found: Sequence[tuple[Cut | Loss, Path]]) -> list[str]:
    return [result.way if isinstance(result, Cut) else result for result, _ in found]


def test_a_cut_gives_a_sign_of_life_with_each_packet(film: Film, tmp_path: Path) -> None:
    """A film that takes longer to encode than a decoder may be silent is no decoder that hangs."""
    path, told = film("film.mp4"), list[int]()
    span = shown(path).span(0, NUM_FRAMES)
    alive.begin(lambda: told.append(1), every_s=0.0)
    cut(path, [span], [tmp_path / "clip.mp4"], Rule(mode="encode"))
    alive.begin(lambda: None, every_s=1.0)
    assert len(told) >= 2 * NUM_FRAMES, "one to index it, one to walk it"


SPANS = [(0, 24), (24, 48), (20, 60), (26, 40), (70, 72)]


@pytest.mark.parametrize("name", ["film.mp4", "film.mkv", "film.ts"])
def test_a_clip_is_copied_from_a_keyframe_on_and_encoded_before_it(film: Film, tmp_path: Path, name: str) -> None:
    assert _ways(made(film(name), SPANS, tmp_path)) == ["copy", "copy", "smart", "encode", "encode"]


def test_what_follows_the_last_picture_that_needs_no_later_one_is_encoded(film: Film, tmp_path: Path) -> None:
    path = film("film.mp4")
    index = index_of(path)
    assert index is not None
    lengths = range(1, GOP + 1)
    runs = [index.copyable(GOP, GOP + length) for length in lengths]
    assert all(run and run.start == GOP for run in runs)
    ends = [run.end - GOP for run in runs if run]
    assert any(end < length for end, length in zip(ends, lengths, strict=True)), "some ends lie amid reordered pictures"
    found = made(path, [(GOP, GOP + length) for length in lengths], tmp_path)
    encoded = [length - end for end, length in zip(ends, lengths, strict=True)]
    assert [result.num_encoded for result, _ in found if isinstance(result, Cut)] == encoded


def test_a_few_frames_are_rather_dropped_than_encoded_where_that_is_allowed(film: Film, tmp_path: Path) -> None:
    (result, _), *_ = made(film("film.mp4"), [(20, 58)], tmp_path, max_trim_frames=4)
    assert isinstance(result, Cut)
    assert (result.way, result.start) == ("copy", 24)
    assert 54 <= result.end <= 58
    assert _ways(made(film("film.mp4"), [(19, 48)], tmp_path, max_trim_frames=4)) == ["smart"]


@pytest.mark.parametrize(
    ("decoded", "end", "run"),
    [
        ([0, 4, 8, 2, 1, 3, 6, 5, 7], 9, Run(0, 9, 0, 9)),
        ([0, 4, 8, 2, 1, 3, 6, 5, 7], 6, Run(0, 1, 0, 1)),  # frame 4 comes long before what lies between
        ([0, 2, 1, -1, 4, 3], 5, Run(0, 3, 0, 3)),  # what is hidden may be needed by what follows
        ([2, 0, 1, 3, 5, 4], 5, Run(0, 4, 2, 4)),  # frames that lead the first are left out
    ],
)
def test_a_run_ends_where_all_before_it_has_been_decoded(decoded: list[int], end: int, run: Run) -> None:
    shown = np.array(decoded)
    index = PacketIndex(
        time_base=Fraction(1, FPS),
        shown=shown,
        stamps=np.arange(shown.max() + 1),
        places=np.argsort(shown)[np.sort(shown) >= 0],
        entries=np.array([0]),
        set_ids=frozenset(),
    )
    assert index.copyable(decoded[0], end) == run


@pytest.mark.parametrize(("earliest", "start", "way"), [(20, 24, "copy"), (24, 24, "copy"), (25, 25, "encode")])
def test_a_clip_may_begin_sooner_where_a_keyframe_allows_to_copy_it(
    film: Film, tmp_path: Path, earliest: int, start: int, way: str
) -> None:
    path, target = film("film.mp4"), tmp_path / "clip.mp4"
    source = shown(path)
    (result,) = cut(path, [dataclasses.replace(source.span(28, 48), earliest=earliest)], [target], Rule())
    assert isinstance(result, Cut)
    assert (result.start, result.end, result.way) == (min(start, 28) if way == "copy" else 28, 48, way)
    _check_alike(shown(target), source, result)


def test_copy_only_encodes_nothing_and_leaves_out_what_has_no_keyframe(film: Film, tmp_path: Path) -> None:
    found = made(film("film.mp4"), [(2, 60), (30, 40)], tmp_path, mode="copy_only")
    assert _ways(found) == ["copy", "not_copyable"]
    assert isinstance(found[0][0], Cut)
    assert found[0][0].start == GOP


def test_encode_encodes_every_frame(film: Film, tmp_path: Path) -> None:
    assert _ways(made(film("film.mp4"), SPANS, tmp_path, mode="encode")) == ["encode"] * len(SPANS)


def test_an_open_group_of_pictures_is_not_begun_in_the_middle(film: Film, tmp_path: Path) -> None:
    path = film("open.mp4", options={"x264-params": "open-gop=1:scenecut=0"})
    assert _ways(made(path, [(0, 20), (24, 48), (20, 60)], tmp_path)) == ["smart", "encode", "encode"]


def test_pictures_that_lead_a_random_access_point_of_hevc_are_left_out(film: Film, tmp_path: Path) -> None:
    path = film("film.hevc.mp4", "libx265", options=OPEN_HEVC)
    packets = _packets(path)
    second = [place for place, (_, is_key) in enumerate(packets) if is_key][1]
    assert min(packets[second + 1 :]) < packets[second], "pictures lead the second keyframe"
    found = made(path, [(GOP, NUM_FRAMES), (30, 60)], tmp_path)
    assert _ways(found) == ["copy", "encode"]
    with av.open(str(found[0][1])) as container:
        assert container.streams.video[0].codec_context.codec_tag == "hvc1"


@pytest.mark.parametrize(
    ("name", "codec", "options", "keyframe", "behind", "ways"),
    [
        ("film.ts", "libx264", {}, 0, 5, ["copy", "smart", "copy"]),
        ("open.hevc.mkv", "libx265", OPEN_HEVC, 1, 0, ["encode", "encode", "copy"]),
    ],
)
def test_a_recording_that_begins_amid_a_group_is_counted_from_what_it_shows(
    film: Film,
    copied: Callable[..., Path],
    tmp_path: Path,
    name: str,
    codec: str,
    options: dict[str, str],
    keyframe: int,
    behind: int,
    ways: list[str],
) -> None:
    whole = film(name, codec, options=options)
    first = [place for place, (_, is_key) in enumerate(_packets(whole)) if is_key][keyframe] + behind
    path = copied(whole, tmp_path / f"amid.{name}", first=first)
    assert len(shown(path).frames) == 2 * GOP < len(_packets(path)), "some packets cannot be decoded"
    assert _ways(made(path, [(0, GOP), (GOP - 5, GOP + 5), (GOP, 2 * GOP)], tmp_path)) == ways


@pytest.mark.parametrize(
    ("codec", "options", "ways"),
    [
        ("libx264", ({"profile": "main"}, {"profile": "high"}), ["copy", "copy", "smart"]),
        ("libx265", (CLOSED_HEVC, CLOSED_HEVC), ["copy", "copy", "encode"]),
        ("libx265", (CLOSED_HEVC, {"x265-params": "log-level=0:open-gop=0:ctu=16"}), ["encode"] * 3),
    ],
)
def test_other_parameter_sets_amid_a_recording_are_not_lost(
    film: Film, copied: Callable[..., Path], tmp_path: Path, codec: str, options: Any, ways: list[str]
) -> None:
    parts = [
        copied(
            film(f"{codec}.{number}.mp4", codec, options={"preset": "ultrafast", **each}),
            tmp_path / f"{number}.ts",
            later_s=3 * number,
        )
        for number, each in enumerate(options)
    ]
    path = tmp_path / "joined.ts"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    begin = NUM_FRAMES
    assert _ways(made(path, [(0, GOP), (begin, begin + GOP), (begin - 4, begin + GOP)], tmp_path)) == ways


def test_joined_recordings_are_cut_across_the_place_where_the_stamps_begin_anew(
    film: Film, copied: Callable[..., Path], tmp_path: Path
) -> None:
    parts = [copied(film("film.mp4"), tmp_path / f"{later_s}.ts", later_s=later_s) for later_s in (20, 0)]
    path = tmp_path / "joined.ts"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    assert _ways(made(path, [(0, 24), (20, 60)], tmp_path)) == ["copy", "smart"]
    assert _ways(made(path, [(60, 90), (80, 100)], tmp_path)) == ["encode", "encode"]


def test_frames_of_one_time_come_one_after_the_other(film: Film, copied: Callable[..., Path], tmp_path: Path) -> None:
    parts = [copied(film("film.mp4"), tmp_path / f"{later_s}.ts", later_s=later_s) for later_s in (0, 2.4)]
    path, target = tmp_path / "overlapping.ts", tmp_path / "clip.mp4"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    source = shown(path)
    assert source.times_s[NUM_FRAMES - 1] == source.times_s[NUM_FRAMES], "held back"
    assert cut(path, [source.span(60, 90)], [target], Rule()) == [Cut(60, 90, 30)]
    clip = shown(target)
    assert sorted(set(clip.times_s)) == clip.times_s
    for ours, theirs in zip(clip.frames, source.frames[60:90], strict=True):
        assert _psnr(ours, theirs) > CLOSE_DB


def _packets(path: Path) -> list[tuple[int, bool]]:
    with av.open(str(path)) as container:
        return [(packet.pts or 0, packet.is_keyframe) for packet in container.demux(video=0) if packet.size]


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("film.webm", "libvpx-vp9", FAST_VP9),
        ("film.av1.mkv", "libsvtav1", {"preset": "12", "svtav1-params": "lp=1"}),
    ],
)
def test_vp9_and_av1_are_copied_into_mp4(
    film: Film, tmp_path: Path, name: str, codec: str, options: dict[str, str]
) -> None:
    assert _ways(made(film(name, codec, options=options), [(24, 40), (30, 60)], tmp_path)) == ["copy", "encode"]


def test_a_variable_frame_rate_keeps_its_times(film: Film, tmp_path: Path) -> None:
    stamps = np.cumsum(np.random.default_rng(0).integers(1, 6, NUM_FRAMES)).tolist()
    path = film("vfr.mp4", stamps=stamps)
    assert _ways(made(path, [(24, 48), (20, 60), (25, 40)], tmp_path)) == ["copy", "smart", "encode"]


@pytest.mark.parametrize("how", ["qp=0", "crop-rect=2,2,2,2"])
def test_nothing_is_joined_with_lossless_pictures_or_with_cropped_ones(film: Film, tmp_path: Path, how: str) -> None:
    """Players would show the film's part wrong behind what was encoded."""
    path = film(f"{how}.mp4", options={"x264-params": how})
    assert _ways(made(path, [(24, 48), (20, 40)], tmp_path)) == ["copy", "encode"]


@pytest.mark.parametrize("mode", ["smart", "encode"])
def test_rotation_in_the_metadata_is_kept(film: Film, tmp_path: Path, mode: str) -> None:
    path = film("turned.mp4", rotation=90.0)
    assert abs(shown(path).rotation) == 90
    made(path, [(24, 48), (20, 60), (26, 40)], tmp_path, mode=mode)


@pytest.mark.parametrize(("name", "codec"), [("plain.mov", "libx264"), ("prores.mov", "prores_ks")])
def test_the_shape_of_pixels_is_kept_though_only_the_container_tells_it(
    film: Film, tmp_path: Path, name: str, codec: str
) -> None:
    whole = film(name, codec, pix_fmt="yuv422p10le" if codec == "prores_ks" else "yuv420p")
    path, outputs = tmp_path / name, [tmp_path / "a.mp4", tmp_path / "b.mp4"]
    with av.open(str(whole)) as source, av.open(str(path), "w") as out:
        stream = out.add_stream_from_template(source.streams.video[0], opaque=True)
        stream.codec_context.sample_aspect_ratio = Fraction(8, 9)
        for packet in source.demux(video=0):
            packet.stream = stream
            if packet.size:
                out.mux(packet)
    seen = shown(path)
    cut(path, [seen.span(0, 24), seen.span(28, 40)], outputs, Rule())
    for each in (path, *outputs):
        with av.open(str(each)) as container:
            assert container.streams.video[0].sample_aspect_ratio == Fraction(8, 9), each.name


def test_an_odd_side_grows_by_a_row_or_column_where_it_is_encoded(film: Film, tmp_path: Path) -> None:
    path = film("odd.mp4", size=(95, 63), pix_fmt="yuv444p")
    target = tmp_path / "clip.mp4"
    (result,) = cut(path, [Span(5, 20, 5 / FPS, 20 / FPS)], [target], Rule())
    assert result == Cut(5, 20, 15)
    with open_video(target) as video:
        assert (video.width_px, video.height_px) == (96, 64)
        first = next(video.frames())[1].to_ndarray(format="gray")
    with open_video(path) as video:
        wanted = [frame.to_ndarray(format="gray") for _, frame in video.frames()][5]
    assert np.abs(first[:63, :95].astype(int) - wanted).mean() < 2


@pytest.mark.parametrize(
    ("name", "codec", "pix_fmt", "size"),
    [("odd.avi", "mjpeg", "yuvj420p", (95, 63)), ("rgb.mkv", "libx264rgb", "rgb24", (95, 63))],
)
def test_levels_are_kept_where_they_have_to_be_converted(
    film: Film, tmp_path: Path, name: str, codec: str, pix_fmt: str, size: tuple[int, int]
) -> None:
    path, target = film(name, codec, size=size, pix_fmt=pix_fmt), tmp_path / "clip.mp4"
    cut(path, [Span(0, 5, 0.0, 5 / FPS)], [target], Rule(crf=1))
    first = []
    for each in (path, target):
        with open_video(each) as video:
            found = next(video.frames())[1].to_ndarray(format="rgb24").astype(np.float64)
        first.append(found[: size[1], : size[0]].mean(axis=-1))
    assert np.abs(first[0] - first[1]).mean() < 3


def test_ten_bits_are_copied_as_they_are_and_encoded_as_eight(film: Film, tmp_path: Path) -> None:
    path = film("ten.mp4", pix_fmt="yuv420p10le")
    source = shown(path)
    outputs = [tmp_path / "copied.mp4", tmp_path / "encoded.mp4"]
    found = cut(path, [source.span(0, 24), source.span(5, 30)], outputs, Rule())
    assert [result.way for result in found if isinstance(result, Cut)] == ["copy", "encode"]
    formats = []
    for output in outputs:
        with av.open(str(output)) as container:
            formats.append(container.streams.video[0].codec_context.pix_fmt)
    assert formats == ["yuv420p10le", "yuv420p"]


def test_a_container_without_times_of_showing_is_counted_by_decoding(film: Film, tmp_path: Path) -> None:
    path = film("film.avi")
    assert index_of(path) is None
    assert _ways(made(path, [(0, 24), (30, 50)], tmp_path)) == ["encode", "encode"]
    assert _ways(made(path, [(0, 24)], tmp_path / "none", mode="copy_only")) == ["not_copyable"]


def test_packets_that_tell_other_times_are_not_trusted(film: Film, tmp_path: Path) -> None:
    path = film("film.mp4")
    span = Span(24, 48, 25 / FPS, 49 / FPS)
    assert cut(path, [span], [tmp_path / "a.mp4"], Rule()) == [Cut(24, 48, 24)]


def test_a_clip_whose_frames_a_film_does_not_have_costs_no_other_clip(film: Film, tmp_path: Path) -> None:
    spans = [Span(26, 40, 26 / FPS, 40 / FPS), Span(60, 90, 60 / FPS, 90 / FPS)]
    found = cut(film("film.mp4"), spans, [tmp_path / "a.mp4", tmp_path / "b.mp4"], Rule())
    assert found == [Cut(26, 40, 14), "not_decodable"]
    assert not (tmp_path / "b.mp4").exists()


def test_a_frame_that_stands_longer_than_an_mp4_can_say_costs_its_own_clip(film: Film, tmp_path: Path) -> None:
    path = film("years.mkv", stamps=[*range(36), *range(10**10, 10**10 + 36)])
    found = made(path, [(0, 24), (30, 40), (44, 70)], tmp_path)
    assert _ways(found) == ["copy", "not_writable", "smart"]


def test_what_cannot_be_decoded_costs_its_own_clips(film: Film, tmp_path: Path) -> None:
    whole = film("film.webm", "libvpx-vp9", options=FAST_VP9)
    index = index_of(whole)
    assert index is not None
    data = bytearray(whole.read_bytes())
    path, source = tmp_path / "broken.webm", shown(whole)
    with av.open(str(whole)) as container:
        packet = [bytes(packet) for packet in container.demux(video=0) if packet.size][30]
    place = data.find(packet)
    data[place : place + 4] = bytes(4)
    path.write_bytes(data)
    spans = [(0, 20), (3, 20), (24, 30), (28, 40), (50, 60)]
    outputs = [tmp_path / f"{start}.mp4" for start, _ in spans]
    found = cut(path, [source.span(*span) for span in spans], outputs, Rule())
    assert _ways(list(zip(found, outputs, strict=True))) == ["copy", "encode", "copy", "not_decodable", "encode"]


def test_equal_films_give_equal_bytes(film: Film, tmp_path: Path) -> None:
    path = film("film.mp4")
    bytes_of = [[output.read_bytes() for _, output in made(path, SPANS, tmp_path)] for _ in range(2)]
    assert bytes_of[0] == bytes_of[1]


def test_nothing_is_joined_where_the_parts_would_differ(film: Film) -> None:
    index = index_of(film("film.mp4"))
    span = Span(20, 48, 20 / FPS, 48 / FPS)
    assert plan(index, span, Rule(), joinable=False) == [Encode(20, 48)]
    head, run = plan(index, span, Rule(), joinable=True)
    assert isinstance(run, Run)
    assert (head, run.start, run.end) == (Encode(20, 24), 24, 48)


def test_real_footage_is_cut_bit_for_bit_where_it_is_copied(real_clips: Path, tmp_path: Path) -> None:
    found = made(real_clips / "bikes.mp4", [(30, 76), (60, 140), (80, 130), (150, 250)], tmp_path)
    assert _ways(found) == ["copy", "smart", "encode", "smart"]
