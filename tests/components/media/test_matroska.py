from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
import pytest

from telecine_components.media.matroska import is_whole

Pixels = npt.NDArray[np.uint8]


@pytest.mark.parametrize("codec", [("film.mkv", "libx264"), ("film.webm", "libvpx-vp9")])
def test_a_film_is_whole_and_no_beginning_of_it_is(
    write_video: Callable[..., Path], ramp: Pixels, codec: tuple[str, str]
) -> None:
    path = write_video(codec[0], ramp, codec=codec[1])
    whole = path.read_bytes()
    assert is_whole(path)
    path.write_bytes(whole + b"something behind it")
    assert is_whole(path)
    for length in range(1, len(whole), 7):
        path.write_bytes(whole[:length])
        assert not is_whole(path), length


def test_what_was_to_be_filled_is_not_whole(write_video: Callable[..., Path], ramp: Pixels) -> None:
    path = write_video("film.mkv", ramp)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2].ljust(len(whole), b"\0"))
    assert not is_whole(path)


def test_a_live_stream_does_not_say(write_video: Callable[..., Path], ramp: Pixels, tmp_path: Path) -> None:
    path = tmp_path / "live.mkv"
    pipe = _Pipe()
    with av.open(str(write_video("film.mkv", ramp))) as film, av.open(pipe, "w", format="matroska") as out:
        stream = out.add_stream_from_template(film.streams.video[0])
        for packet in film.demux(video=0):
            packet.stream = stream
            if packet.size:
                out.mux(packet)
    path.write_bytes(pipe.data)
    assert path.stat().st_size > 1000
    assert not is_whole(path)


class _Pipe:
    """Takes bytes in order, and nothing can be mended in it."""

    def __init__(self) -> None:
        self.data = b""

    def write(self, data: bytes) -> None:
        self.data += bytes(data)
