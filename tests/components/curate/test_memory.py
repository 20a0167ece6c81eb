"""The memory of one worker does not grow with the length of the film it splits, and stays below the laptop's bound."""

import itertools
import os
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

MOST_GIB = 1.5
SCRIPT = """
import sys
from pathlib import Path
from telecine_components.curate.split.analysis import analyse
from telecine_components.curate.split.rows import clip_rows
from telecine_components.curate.split.sidecars import Sidecar
from telecine_components.curate.split.spec import Inputs

found = analyse(Path(sys.argv[1]), detector="telecine")
rows = clip_rows(found, Sidecar(), "0" * 64, Inputs(videos_uri="unused"))
posters = [found.meter.poster(row["start_frame"], row["end_frame"]) for row in rows]
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM:"))
print(rows[-1]["end_frame"], int(peak.split()[1]) / 2**20)
"""


@pytest.fixture
def film(tmp_path: Path) -> Path:
    """Twelve frames of 1280x720: noise that slides, so that neither pictures nor packets are small."""
    path = tmp_path / "film.mp4"
    noise = np.random.default_rng(0).integers(0, 255, (180, 350, 3), np.uint8).repeat(4, 0).repeat(4, 1)
    with av.open(str(path), "w") as file:
        out = file.add_stream("libx264", rate=Fraction(24), options={"preset": "ultrafast", "bf": "0"})
        out.width, out.height, out.pix_fmt = 1280, 720, "yuv420p"
        for left in range(0, 96, 8):
            file.mux(out.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(noise[:, left : left + 1280]))))
        file.mux(out.encode(None))
    return path


def _looped(film: Path, times: int) -> Path:
    """The film's packets again and again, without encoding them anew."""
    path = film.with_name(f"{times} times.mp4")
    with av.open(str(film)) as source, av.open(str(path), "w") as file:
        out = file.add_stream_from_template(source.streams.video[0])
        packets = [(packet, bytes(packet), packet.is_keyframe) for packet in source.demux(video=0) if packet.size]
        tick = packets[0][0].duration
        for index, (_, data, is_key) in enumerate(itertools.chain.from_iterable([packets] * times)):
            packet = av.Packet(data)
            packet.stream, packet.time_base, packet.is_keyframe = out, packets[0][0].time_base, is_key
            packet.pts = packet.dts = index * tick
            packet.duration = tick
            file.mux(packet)
    return path


def _peak_gib(path: Path) -> tuple[int, float]:
    """Frames split, and the most memory that a process of its own had for it."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    ran = subprocess.run([sys.executable, "-c", SCRIPT, str(path)], env=environment, capture_output=True, check=True)
    frames, gib = ran.stdout.split()
    return int(frames), float(gib)


def test_the_peak_lies_below_the_laptops_bound_and_does_not_grow_with_the_film(film: Path) -> None:
    frames, short_gib = _peak_gib(_looped(film, 8))
    many, long_gib = _peak_gib(_looped(film, 64))
    assert (frames, many) == (96, 768)
    assert long_gib < MOST_GIB / 3
    assert long_gib - short_gib < 0.05
