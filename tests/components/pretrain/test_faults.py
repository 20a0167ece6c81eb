"""Faults planted in real trainings: each is named, ends as designed, and the same call goes on afterwards."""

import contextlib
import hashlib
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from mlflow import MlflowClient

from telecine import settings
from telecine.storage import Store
from telecine_components.media.shards import array_bytes
from telecine_components.training.loader import Loader, Sample, read_index

DRILLS = Path(__file__).parents[3] / "infra" / "drills"
SHARD = "items/test/latents.tar"
TIMEOUT_S = 240.0
HANG_FLOOR_S = 8.0
STOPPED_S, RUNNING_S = 0.06, 0.002
"""A rank that runs for less than a forward pass at a time is slow."""

Start = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def moments(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The drills' eyes on a training in progress."""
    monkeypatch.syspath_prepend(str(DRILLS))
    import training_moments

    return training_moments


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """What the calls say."""
    return tmp_path / "log.txt"


@pytest.fixture
def start(deployment: settings.Settings, log: Path, tmp_path: Path) -> Iterator[Start]:
    """Start ``telecine run pretrain.train``, behind other words of a command line where they are given."""
    started: list[subprocess.Popen[bytes]] = []

    def call(inputs: dict[str, Any], *before: str, **environment: str) -> "subprocess.Popen[bytes]":
        arguments = ["run", "pretrain.train", "--run", "faults", "--inputs", json.dumps(inputs)]
        command = [*before, sys.executable, "-m", "telecine.cli", *arguments, "--result", str(tmp_path / "result.json")]
        where = os.environ | deployment.environment() | {"OMP_NUM_THREADS": "1"} | environment
        with log.open("ab") as said:
            started.append(subprocess.Popen(command, env=where, stdout=said, stderr=said))
        return started[-1]

    yield call
    for process in started:
        process.kill()
        process.wait()


def until(there: Callable[[], bool], process: "subprocess.Popen[bytes]", log: Path) -> None:
    """Wait for something while a process runs."""
    deadline = time.monotonic() + TIMEOUT_S
    while not there():
        assert process.poll() is None and time.monotonic() < deadline, log.read_text()
        time.sleep(0.005)


def code_of(process: "subprocess.Popen[bytes]", log: Path) -> int:
    """The exit code of a process, whose end is waited for."""
    try:
        return process.wait(TIMEOUT_S)
    except subprocess.TimeoutExpired:
        pytest.fail(f"it did not end within {TIMEOUT_S:.0f} s and said:\n{log.read_text()}")


def only_training(store: Store) -> str:
    """Key of the only training in a store."""
    (key,) = [name for name in store.folders("work/pretrain.train") if name != "items"]
    return key


def model_digest(store: Store, key: str) -> str:
    """Digest of the model that a training committed."""
    digest: str = store.read_json(f"work/pretrain.train/{key}/commit.json")["outputs"]["model_uri"]["digest"]
    return digest


def undisturbed_digest(trained: Any) -> str:
    """Digest of the model of the undisturbed training, in whose store other tests may have trained too."""
    key = trained.outputs.model_uri.split("/pretrain.train/")[1].split("/")[0]
    return model_digest(Store(trained.deployment.store_uri), key)


def spoil(deployment: settings.Settings, cached: Path, *samples: Sample) -> Path:
    """A copy of a dataset of float32 latents in which those of some samples are no numbers."""
    folder, store = deployment.home / "spoilt", deployment.home / "store"
    shutil.copytree(cached, folder)
    (path,) = {sample.shard for sample in samples}
    shard = bytearray((store / path).read_bytes())
    for bad in samples:
        spoilt = array_bytes(np.full(bad.x0_shape, math.nan, dtype=np.float32))
        assert len(spoilt) == bad.length
        shard[bad.offset : bad.offset + bad.length] = spoilt
    (store / SHARD).write_bytes(shard)
    table = pq.read_table(cached / "index.parquet")
    place = {"shard": SHARD, "shard_digest": hashlib.sha256(shard).hexdigest()}
    rows = [row | place for row in table.to_pylist()]
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), folder / "index.parquet")
    return folder


def test_samples_that_are_no_numbers_are_left_out_and_named(
    run_component: Callable[..., Any],
    deployment: settings.Settings,
    make_dataset: Callable[..., Path],
    tiny_training: dict[str, Any],
    caplog: pytest.LogCaptureFixture,
) -> None:
    cached = run_component("pretrain.cache", dataset_uri=make_dataset(deployment, num_clips=16), dtype="float32")
    folder = Path(cached.dataset_uri.removeprefix("file://"))
    samples = read_index(folder / "index.parquet")
    train, val = ([sample for sample in samples if sample.split == name] for name in ("train", "val"))
    order = Loader(train, deployment.home.joinpath, seed=0)
    dataset = spoil(deployment, folder, train[order.index_at(3 * tiny_training["batch_size"] + 1)], val[1])
    steps = {"num_steps": 6, "checkpoint_every_steps": 2, "depth": 1}
    outputs = run_component("pretrain.train", dataset_uri=dataset, **tiny_training | steps)
    training = json.loads(Path(outputs.training_uri.removeprefix("file://")).read_text())
    (rollback,) = training["rollbacks"]
    assert (rollback["step"], rollback["to_step"], rollback["data_step"]) == (3, 2, 4)
    assert "loss nan" in rollback["reason"]
    assert "event=rolled_back to_step=2 step=3 kind=not_finite" in caplog.text
    assert curve(deployment, "guard/rollbacks")[-1] == (6, 1.0)
    losses = training["history"]["train/loss"]
    assert [step for step, _ in losses] == list(range(1, 7))
    assert all(math.isfinite(value) for _, value in losses)
    assert math.isfinite(outputs.eval_loss) and math.isfinite(outputs.gain_over_mean_predictor_low)
    assert (training["data"]["val_left_out"], training["data"]["num_val"]) == ([val[1].sample_id], len(val) - 1)
    assert all(math.isfinite(value) for _, value in training["history"]["eval/loss"])
    assert f"event=held_out_left_out samples={val[1].sample_id} reason='not finite'" in caplog.text


def curve(deployment: settings.Settings, name: str) -> list[tuple[int, float]]:
    """A series of the only training in MLflow."""
    client = MlflowClient(deployment.tracking_uri)
    runs = client.search_runs([each.experiment_id for each in client.search_experiments()])
    (run,) = [each for each in runs if "train/loss" in each.data.metrics]
    return [(point.step, point.value) for point in client.get_metric_history(run.info.run_id, name)]


def test_a_full_disk_ends_with_75_and_the_next_call_goes_on(
    start: Start,
    log: Path,
    deployment: settings.Settings,
    make_dataset: Callable[..., Path],
    trained: Any,
    tiny_training: dict[str, Any],
    tmp_path: Path,
) -> None:
    if shutil.which("unshare") is None:
        if os.environ.get("CI"):
            pytest.fail("CI needs unshare")
        pytest.skip("there is no unshare")
    dataset = make_dataset(deployment)
    disk, there, kept = (tmp_path / name for name in ("disk", "there", "kept"))
    disk.mkdir()
    # All checkpoints stay, so the small file system is full in mid training; then it grows, and the call is repeated.
    inputs = {"dataset_uri": str(dataset), **tiny_training, "checkpoint_every_steps": 2, "keep_last": 100}
    script = (
        'mount -t tmpfs -o size=6M tmpfs "$0" && cp -r "$1" "$0/store" || exit 3; shift; "$@"; echo "first=$?"; '
        f'ls "$0"/store/work/pretrain.train/*/checkpoints > "{there}"; mount -o remount,size=200M "$0"; "$@"; '
        f'echo "second=$?"; cp -r "$0/store" "{kept}"'
    )
    unshared = ("unshare", "--map-root-user", "--mount", "sh", "-c", script, str(disk))
    store = deployment.home / "store"
    process = start(inputs, *unshared, str(store), TELECINE_STORE=f"file://{disk}/store")
    assert code_of(process, log) == 0, log.read_text()
    said = log.read_text()
    assert "first=75" in said and "second=0" in said, said
    assert "there is no space left" in said and "Traceback" not in said
    assert 0 < len(there.read_text().split()) < tiny_training["num_steps"] / 2, "it was full in mid training"
    after = Store(f"file://{kept}")
    assert model_digest(after, only_training(after)) == undisturbed_digest(trained)


def test_a_store_that_goes_away_ends_with_75_and_the_next_call_goes_on(
    start: Start,
    log: Path,
    deployment: settings.Settings,
    make_dataset: Callable[..., Path],
    trained: Any,
    tiny_training: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(str(DRILLS))
    from places import BUCKET, ObjectServer, s3_environment

    inputs = {"dataset_uri": str(make_dataset(deployment)), **tiny_training, "checkpoint_every_steps": 2}
    server = ObjectServer(tmp_path / "objects")
    try:
        environment = s3_environment(server.port) | {"TELECINE_STORE_RETRY_S": "1"}
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        store = Store(f"s3://{BUCKET}/faults")
        for path in (deployment.home / "store").rglob("*.tar"):
            store.write(str(path.relative_to(deployment.home / "store")), path.read_bytes())
        there = {"TELECINE_STORE": store.uri, **environment}
        process = start(inputs, **there)
        until(lambda: any("checkpoints" in entry.path for entry in store.entries("work")), process, log)
        server.kill()
        assert code_of(process, log) == 75, log.read_text()
        assert "Traceback" not in log.read_text()
        server.restart()
        assert code_of(start(inputs, **there), log) == 0, log.read_text()
        assert model_digest(store, only_training(store)) == undisturbed_digest(trained)
    finally:
        server.kill()


def test_a_slow_rank_is_named_a_hung_one_too_and_the_next_call_finishes(
    start: Start,
    log: Path,
    deployment: settings.Settings,
    make_dataset: Callable[..., Path],
    tiny_training: dict[str, Any],
    tmp_path: Path,
    moments: Any,
) -> None:
    inputs = {"dataset_uri": str(make_dataset(deployment)), **tiny_training} | {
        "num_processes": 2,
        "num_steps": 400,
        "checkpoint_every_steps": 5,
        "eval_every_steps": 100,
        "hang_floor_s": HANG_FLOOR_S,
    }
    process = start(inputs)
    work = deployment.home / "store/work/pretrain.train"
    until(lambda: moments.newest(work) > 0, process, log)
    (rank_1,) = moments.followers(process)
    with hampered(rank_1):
        until(lambda: "event=straggler" in log.read_text(), process, log)
        until(lambda: "slowest_rank" in beaten(work), process, log)
    told = beaten(work)
    assert told["slowest_rank"] == 1 and told["slowest_rank_s"] > 1.3 * told["median_rank_s"]
    os.kill(rank_1, signal.SIGSTOP)
    assert code_of(process, log) == 75, log.read_text()
    said = log.read_text()
    assert re.search(r"event=straggler step=\d+ reason='rank 1 takes ", said)
    # The stop may meet rank 0 amid a checkpoint, where no step can be late.
    assert re.search("event=hang reason='(no step for|rank 1 says nothing for) ", said) and "rank 1 is silent" in said
    assert moments.left_after(deployment.home, 10.0) == []
    assert code_of(start(inputs), log) == 0, log.read_text()
    assert len(list(work.iterdir())) == 1
    assert json.loads((tmp_path / "result.json").read_text())["outputs"]["num_steps"] == 400


def test_a_rank_that_hangs_before_the_first_step_ends_the_attempt_and_after_the_last_one_keeps_no_result(
    start: Start,
    log: Path,
    deployment: settings.Settings,
    make_dataset: Callable[..., Path],
    tiny_training: dict[str, Any],
    tmp_path: Path,
    moments: Any,
) -> None:
    # Where weights are spread, the average is what ranks give each other last.
    shared = {"num_processes": 2, "zero_stage": 3, "num_steps": 2, "eval_draws": 8, "hang_floor_s": HANG_FLOOR_S}
    inputs = {"dataset_uri": str(make_dataset(deployment)), **tiny_training, **shared}
    process = start(inputs, TMPDIR=str(tmp_path))
    until(lambda: any(tmp_path.glob("telecine-ranks-*/board/telecine-rank-1")), process, log)
    (rank_1,) = moments.followers(process)
    os.kill(rank_1, signal.SIGSTOP)
    assert code_of(process, log) == 75, log.read_text()
    assert re.search("event=hang reason='rank 1 says nothing for .* step 0, in ", log.read_text()), log.read_text()

    process = start(inputs)
    until(lambda: "event=train_end" in log.read_text(), process, log)
    (rank_1,) = moments.followers(process)
    os.kill(rank_1, signal.SIGSTOP)
    assert code_of(process, log) == 0, log.read_text()
    assert "event=ranks_not_parted waited_s=20" in log.read_text()
    assert moments.left_after(deployment.home, 10.0) == []


def beaten(work: Path) -> dict[str, float]:
    """What the living attempt tells of its progress, which status and Prometheus show."""
    (beat,) = work.glob("*/beats/*.json")
    values: dict[str, float] = json.loads(beat.read_text())["progress"]["values"]
    return values


@contextlib.contextmanager
def hampered(pid: int) -> Iterator[None]:
    """Stop a process again and again, for most of the time, while the block lasts."""
    over = threading.Event()

    def hamper() -> None:
        while not over.is_set():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)
                time.sleep(STOPPED_S)
                os.kill(pid, signal.SIGCONT)
            time.sleep(RUNNING_S)

    thread = threading.Thread(target=hamper, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
