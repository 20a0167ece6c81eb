"""Checkpoints in the background: the bytes, the waiting, the failures, and what stays."""

import errno
import hashlib
import json
import os
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from telecine.errors import InputError, RetryLater
from telecine.storage import Store, disk_full
from telecine.work.checkpoints import Checkpoints
from telecine.work.digests import Digests
from telecine.work.retention import Keep
from telecine_components.training.saver import Durable, Saver
from telecine_components.training.snapshot import BLOCK_BYTES, CHUNK_BYTES, Snapshot

WEIGHTS = "weights.safetensors"


@pytest.fixture
def digests(tmp_path: Path) -> Digests:
    return Digests(tmp_path / "home")


@pytest.fixture
def checkpoints(tmp_path: Path, digests: Digests) -> Checkpoints:
    return _checkpoints(Store(f"file://{tmp_path}/store"), digests, tmp_path / "scratch")


def _checkpoints(store: Store, digests: Digests, scratch: Path) -> Checkpoints:
    return Checkpoints(
        store, digests, work_prefix="work/test/key", attempt="one", scratch=scratch, before_commit=lambda: ()
    )


def taken(snapshot: Snapshot, tensors: dict[str, Tensor]) -> None:
    snapshot.lay_out(tensors)
    snapshot.take(tensors)


def _state(value: float) -> dict[str, dict[str, Tensor]]:
    return {WEIGHTS: {"a": torch.full((3, 2), value), "step": torch.tensor(value)}}


# The bytes


def _mixed() -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(0)
    return {
        "z.f32": torch.randn(5, 3, generator=draw),
        "a.f32": torch.randn(7, generator=draw),
        "bf16": torch.randn(3, generator=draw).bfloat16(),
        "f16": torch.randn(3, generator=draw).half(),
        "f64": torch.randn(2, generator=draw).double(),
        "i64": torch.arange(3),
        "i32": torch.arange(3, dtype=torch.int32),
        "i16": torch.arange(3, dtype=torch.int16),
        "i8": torch.arange(3, dtype=torch.int8),
        "u8": torch.arange(3, dtype=torch.uint8),
        "bool": torch.tensor([True, False, True]),
        "scalar": torch.tensor(1.5),
        "empty": torch.empty(0, 4),
        "ä": torch.ones(1),
    }


@pytest.mark.parametrize("extra", [{}, {"big": torch.arange(CHUNK_BYTES // 4 + 17, dtype=torch.float32)}])
def test_the_bytes_are_those_of_safetensors_and_the_digest_is_theirs(tmp_path: Path, extra: dict[str, Tensor]) -> None:
    tensors = _mixed() | extra
    snapshot = Snapshot()
    taken(snapshot, tensors)
    digest = snapshot.write(tmp_path / "ours")
    save_file(tensors, tmp_path / "theirs")
    data = (tmp_path / "theirs").read_bytes()
    assert (tmp_path / "ours").read_bytes() == data and snapshot.num_bytes == len(data)
    assert digest == hashlib.sha256(data).hexdigest()


def test_a_view_is_saved_as_it_looks_and_nothing_at_all_is_a_file_too(tmp_path: Path) -> None:
    whole = torch.arange(12.0).view(3, 4)
    snapshot = Snapshot()
    taken(snapshot, {"turned": whole.T, "column": whole[:, 1]})
    snapshot.write(tmp_path / "views")
    found = load_file(tmp_path / "views")
    assert torch.equal(found["turned"], whole.T) and torch.equal(found["column"], whole[:, 1])
    empty = Snapshot()
    taken(empty, {})
    empty.write(tmp_path / "nothing")
    assert load_file(tmp_path / "nothing") == {}


def test_memory_is_used_again_until_a_shape_or_a_type_changes(tmp_path: Path) -> None:
    snapshot = Snapshot()
    for tensors in ({"a": torch.ones(2)}, {"a": torch.zeros(2)}, {"a": torch.ones(3)}, {"a": torch.ones(3).double()}):
        taken(snapshot, tensors)
        snapshot.write(tmp_path / "file")
        found = load_file(tmp_path / "file")
        assert torch.equal(found["a"], tensors["a"]) and found["a"].dtype == tensors["a"].dtype


def test_a_file_leaves_no_copy_in_the_page_cache(tmp_path: Path) -> None:
    (tmp_path / "probe").write_bytes(bytes(8 * BLOCK_BYTES))
    with (tmp_path / "probe").open("rb") as stream:
        os.fsync(stream.fileno())
        os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    if _is_cached(tmp_path / "probe"):
        pytest.skip("files of this file system lie in memory")
    snapshot = Snapshot()
    taken(snapshot, {"a": torch.ones(2**20)})
    snapshot.write(tmp_path / "file")
    assert not _is_cached(tmp_path / "file")


def _is_cached(path: Path) -> bool:
    with path.open("rb", buffering=0) as stream:
        try:
            return os.preadv(stream.fileno(), [bytearray(BLOCK_BYTES)], 0, os.RWF_NOWAIT) == BLOCK_BYTES
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno != errno.EOPNOTSUPP:
                raise
            pytest.skip("this file system does not say what it keeps")


def test_a_file_system_that_refuses_to_pass_its_cache_gets_the_same_bytes_through_it(tmp_path: Path) -> None:
    """Memory that begins beside a block is refused by a disk, as every write is by some file systems."""
    tensors, snapshot = _mixed(), Snapshot()
    taken(snapshot, tensors)
    snapshot._blocks = torch.cat((torch.zeros(1, dtype=torch.uint8), snapshot._blocks))[1:]
    digest = snapshot.write(tmp_path / "ours")
    save_file(tensors, tmp_path / "theirs")
    data = (tmp_path / "theirs").read_bytes()
    assert (tmp_path / "ours").read_bytes() == data and digest == hashlib.sha256(data).hexdigest()


def test_a_type_without_a_name_is_refused_by_the_call(checkpoints: Checkpoints) -> None:
    saver = Saver(checkpoints, keep=Keep())
    with pytest.raises(InputError, match=r"tensor odd is of torch\.complex64, a checkpoint holds bool,"):
        saver.save(1, {WEIGHTS: {"odd": torch.ones(1, dtype=torch.complex64)}}, {})
    saver.wait()
    assert checkpoints.steps() == []


# The waiting


class OutOfReach(Tensor):
    """Cannot be copied any more."""

    @classmethod
    def __torch_function__(cls, function: Any, types: Any, arguments: Any = (), options: Any = None) -> Any:
        if function is Tensor.copy_:
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        return super().__torch_function__(function, types, arguments, options)


class Gated:
    """Checkpoints whose commits wait for a person."""

    def __init__(self, real: Checkpoints) -> None:
        self.real = real
        self.go, self.began = threading.Semaphore(0), threading.Semaphore(0)
        self.error: Exception | None = None

    def save(self, step: int, write: Callable[[Path], Mapping[str, str] | None], *, score: float | None = None) -> None:
        self.began.release()
        assert self.go.acquire(timeout=30)
        if self.error is not None:
            raise self.error
        self.real.save(step, write, score=score)

    def prune(self, keep: Keep) -> None:
        self.real.prune(keep)


def test_a_call_does_not_wait_for_its_copy_but_who_settles_does(
    checkpoints: Checkpoints, slow_to_copy: Callable[[Tensor], Tensor]
) -> None:
    state = {WEIGHTS: {"a": slow_to_copy(torch.ones(3))}}
    with Saver(checkpoints, keep=Keep()) as saver:
        began = time.monotonic()
        saver.save(1, state, {})
        assert time.monotonic() - began < 0.15
        saver.settle()
        assert time.monotonic() - began > 0.25
        state[WEIGHTS]["a"].fill_(2.0)
    (folder,) = _folders(checkpoints, 1)
    assert load_file(folder / WEIGHTS)["a"].tolist() == [1.0, 1.0, 1.0]


def test_what_a_copy_meets_is_raised_by_who_settles_and_nothing_is_committed(checkpoints: Checkpoints) -> None:
    saver = Saver(checkpoints, keep=Keep())
    saver.save(1, {WEIGHTS: {"a": torch.ones(3).as_subclass(OutOfReach)}}, {})
    with pytest.raises(RuntimeError, match="an illegal memory access"):
        saver.settle()
    with pytest.raises(RuntimeError, match="an illegal memory access"):
        saver.wait()
    assert checkpoints.steps() == []


def test_what_changes_after_the_copy_is_not_saved_and_a_second_save_waits(checkpoints: Checkpoints) -> None:
    gated, durable = Gated(checkpoints), list[Durable]()
    saver = Saver(gated, keep=Keep(), on_durable=durable.append)
    state = _state(1.0)
    assert saver.save(1, state, {"step": 1}) < 0.1
    saver.settle()
    for tensor in state[WEIGHTS].values():
        tensor.fill_(2.0)
    assert gated.began.acquire(timeout=30) and durable == []
    opener = threading.Timer(0.3, gated.go.release, args=(2,))
    opener.start()
    waited_s = saver.save(2, state, {"step": 2})
    assert waited_s > 0.2
    saver.wait()
    assert [done.step for done in durable] == [1, 2] and durable[1].waited_s == waited_s
    for step in (1, 2):
        (folder,) = _folders(checkpoints, step)
        assert load_file(folder / WEIGHTS)["a"].unique().tolist() == [float(step)]
        assert json.loads((folder / "state.json").read_text()) == {"step": step}
        assert durable[step - 1].num_bytes == sum(path.stat().st_size for path in folder.iterdir())


def _folders(checkpoints: Checkpoints, step: int) -> list[Path]:
    root = checkpoints._store.local(f"work/test/key/checkpoints/{step:08d}")
    assert root is not None
    return [path for path in root.iterdir() if path.is_dir()]


def test_a_fresh_reader_finds_the_checkpoint_intact(tmp_path: Path, checkpoints: Checkpoints) -> None:
    with Saver(checkpoints, keep=Keep()) as saver:
        saver.save(3, _state(3.0), {})
    reader = _checkpoints(Store(f"file://{tmp_path}/store"), Digests(tmp_path / "other"), tmp_path / "scratch")
    latest = reader.latest()
    assert latest is not None and latest.step == 3
    (latest.dir / WEIGHTS).write_bytes(b"torn")
    assert reader.latest() is None


def test_nothing_is_read_again_to_be_hashed(tmp_path: Path) -> None:
    class Watching(Digests):
        """Digests that say which files they had to read."""

        def __init__(self, home: Path) -> None:
            super().__init__(home)
            self.read: list[str] = []

        def _ask(self, statement: str, *values: object) -> object:
            found = super()._ask(statement, *values)
            if statement.startswith("select") and not found:
                self.read.append(Path(str(values[0])).name)
            return found

    digests = Watching(tmp_path / "home")
    checkpoints = _checkpoints(Store(f"file://{tmp_path}/store"), digests, tmp_path / "scratch")
    with Saver(checkpoints, keep=Keep()) as saver:
        saver.save(1, _state(1.0), {})
    assert digests.read == ["state.json"]


# The failures


@pytest.mark.parametrize(
    ("error", "match"),
    [
        (RetryLater("store s3://b: not reachable"), "not reachable"),
        (OSError(errno.ENOSPC, "No space left on device", "/x"), "there is no space left"),
    ],
)
def test_what_the_background_met_is_raised_once_by_the_next_call(
    checkpoints: Checkpoints, error: Exception, match: str
) -> None:
    gated = Gated(checkpoints)
    gated.error = error
    gated.go.release(2)
    saver = Saver(gated, keep=Keep())
    saver.save(1, _state(1.0), {})
    with pytest.raises(RetryLater, match=match), disk_full():
        saver.save(2, _state(2.0), {})
    saver.wait()
    gated.error = None
    saver.save(3, _state(3.0), {})
    saver.wait()
    assert checkpoints.steps() == [3]


def test_a_block_does_not_end_before_its_checkpoint_and_tells_of_the_first_failure(checkpoints: Checkpoints) -> None:
    gated = Gated(checkpoints)

    def run(step: int, error: Exception | None) -> None:
        with Saver(gated, keep=Keep()) as saver:
            saver.save(step, _state(1.0), {})
            if error is not None:
                raise error

    threading.Timer(0.2, gated.go.release).start()
    with pytest.raises(FloatingPointError):
        run(1, FloatingPointError("step 1"))
    assert checkpoints.steps() == [1]
    gated.error = RetryLater("away")
    gated.go.release(2)
    with pytest.raises(FloatingPointError):
        run(2, FloatingPointError("step 2"))
    with pytest.raises(RetryLater, match="away"):
        run(3, None)


# What stays


@pytest.mark.parametrize(
    ("keep", "stay"),
    [
        (Keep(last=1), {60}),
        (Keep(last=2), {50, 60}),
        (Keep(last=9), {10, 20, 30, 40, 50, 60}),
        (Keep(last=1, best=1), {20, 60}),
        (Keep(last=1, best=2), {20, 50, 60}),
        (Keep(last=1, every_steps=30), {30, 60}),
        (Keep(last=2, best=1, every_steps=40), {20, 40, 50, 60}),
    ],
)
def test_the_last_the_best_and_every_so_many_stay(keep: Keep, stay: set[int]) -> None:
    scores = {10: 0.9, 20: 0.1, 30: 0.5, 40: 0.4, 50: 0.4}
    assert keep.of([60, 10, 20, 30, 40, 50], scores) == stay


@pytest.mark.parametrize(
    ("there", "last", "stay"),
    [
        ([10, 20, 30], 2, {20, 30}),
        ([10, 20, 23], 2, {20, 23}),
        ([10, 20, 23, 27], 2, {20, 27}),
        ([20, 23, 30], 2, {20, 30}),
        ([20, 23], 1, {20, 23}),
        ([3, 7], 2, {7}),
    ],
)
def test_where_a_run_was_stopped_does_not_push_out_what_it_goes_back_to(
    there: list[int], last: int, stay: set[int]
) -> None:
    assert Keep(last=last, interval=10).of(there, {}) == stay


def test_a_later_step_is_the_better_of_two_equal_ones_and_no_score_is_no_good_one() -> None:
    assert Keep(last=1, best=1).of([1, 2, 3, 4], {1: 0.5, 2: 0.5}) == {2, 4}
    assert Keep(last=1, best=3).of([1, 2, 3], {1: 0.5}) == {1, 3}
    assert Keep(last=1).of([], {}) == set()


@pytest.mark.parametrize(("values", "match"), [({"last": 0}, "last must be at least 1, got 0"), ({"best": -1}, "best")])
def test_a_policy_that_keeps_nothing_is_refused(values: dict[str, int], match: str) -> None:
    with pytest.raises(InputError, match=match):
        Keep(**values)


def test_scores_outlive_the_process_and_the_best_stays(tmp_path: Path, checkpoints: Checkpoints) -> None:
    keep = Keep(last=1, best=1, every_steps=4)
    scores = {1: 0.3, 2: 0.1, 3: float("nan"), 4: 0.4, 5: None, 6: 0.2}
    for step, score in scores.items():  # one saver each, as after a restart
        with Saver(checkpoints, keep=keep) as saver:
            saver.save(step, _state(step), {}, score=score)
    assert checkpoints.steps() == [2, 4, 6]
