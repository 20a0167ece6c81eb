"""Fixtures that every test may use: a deployment of its own, components run for real in it, one tiny model trained on
a tiny dataset in the layout of curate.encode, and services of that model in processes of their own.
"""

import dataclasses
import hashlib
import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from jaxtyping import install_import_hook
from moto.server import ThreadedMotoServer

# Read while Airflow is imported, which would otherwise make a folder in the home of whoever runs the tests.
os.environ.setdefault("AIRFLOW_HOME", tempfile.mkdtemp(prefix="airflow-"))
# Every signature's shapes and types are checked in tests; before the first import of what is checked.
install_import_hook("telecine_models", "beartype.beartype")

from telecine import buckets, component, settings, tracking  # noqa: E402
from telecine.execution import Call, execute  # noqa: E402
from telecine_components.media.shards import ShardWriter, array_bytes  # noqa: E402

REPOSITORY = Path(__file__).parent.parent
CLIPS = REPOSITORY.parent / "shared" / "data" / "clips"

COLOURS = {"red": (222, 48, 52), "green": (56, 172, 82), "blue": (52, 92, 224)}
SHARD = "items/test/train-0000.tar"

TINY_TRAINING: dict[str, Any] = {
    "num_steps": 24,
    "batch_size": 4,
    "learning_rate": 3e-3,
    "warmup_steps": 4,
    "depth": 2,
    "patch_px": 4,
    "checkpoint_every_steps": 5,
    "eval_every_steps": 8,
    "eval_draws": 2,
    "num_threads": 1,
}

START_TIMEOUT_S = 120.0
WAIT_S = 60.0


@pytest.fixture(scope="session", autouse=True)
def ordinary_priority() -> Iterator[None]:
    """A process of real time starves all others on the machine, and its children inherit that from it."""
    yield
    assert os.sched_getscheduler(0) == os.SCHED_OTHER


@pytest.fixture(scope="session")
def empty_tracker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MLflow's database as its first use leaves it; made once, because that takes seconds."""
    here = settings.from_environment({"TELECINE_HOME": str(tmp_path_factory.mktemp("tracker"))})
    tracking.connect(here)
    return here.home / "mlflow" / "mlflow.db"


@pytest.fixture
def deployment(tmp_path: Path, empty_tracker: Path, monkeypatch: pytest.MonkeyPatch) -> settings.Settings:
    """An empty home, store and tracker; the environment of child processes points at them too."""
    here = settings.from_environment({"TELECINE_HOME": str(tmp_path / "home")})
    (here.home / "mlflow").mkdir(parents=True)
    shutil.copy(empty_tracker, here.home / "mlflow" / "mlflow.db")
    for name, value in here.environment().items():
        monkeypatch.setenv(name, value)
    return here


@pytest.fixture
def run_component(deployment: settings.Settings) -> Callable[..., Any]:
    """Run a component in this process: ``run_component("curate.split", videos_uri=…) -> Outputs``."""

    def run(name: str, run: str = "test", task: str | None = None, force: bool = False, **inputs: Any) -> Any:
        found = component.find(name)
        values = {key: str(value) if isinstance(value, os.PathLike) else value for key, value in inputs.items()}
        call = Call(
            component=found,
            inputs=found.parse(values),
            run=run,
            task=task or name,
            settings=deployment,
            force=force,
        )
        return found.outputs(**execute(call).outputs)

    return run


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """Endpoint of an S3 server in this process (moto), with an empty memory."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def s3_store(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """URI of an empty store in a bucket of its own, its endpoint and credentials in the environment."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_server)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "telecine")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not-a-real-secret")
    monkeypatch.setenv("TELECINE_STORE_RETRY_S", "2")
    uri = f"s3://telecine-{secrets.token_hex(6)}/store"
    buckets.prepare(uri)
    return uri


@pytest.fixture(scope="session")
def real_clips() -> Path:
    """Folder of real footage; skipped where a person has none, an error in CI."""
    if CLIPS.is_dir():
        return CLIPS
    if os.environ.get("CI"):
        pytest.fail(f"CI needs the real footage at {CLIPS}")
    pytest.skip("no real footage beside the checkout")


# One tiny model for everybody who only reads it


@pytest.fixture(scope="session")
def make_dataset() -> Callable[..., Path]:
    """Write ``num_clips`` clips of two samples each, a square that crosses the picture, into a deployment's store.

    ``make_dataset(deployment, num_clips=8, val_clips=2, **shape) -> folder with index.parquet``
    """
    return _make_dataset


@pytest.fixture(scope="session")
def tiny_training() -> dict[str, Any]:
    """Inputs of a training that takes a second or two."""
    return dict(TINY_TRAINING)


@dataclasses.dataclass(frozen=True)
class Trained:
    """A deployment in which one tiny training was run undisturbed, to its end."""

    deployment: settings.Settings
    dataset: Path
    outputs: Any

    def run(self, name: str, run: str = "test", force: bool = False, **inputs: Any) -> Any:
        """Run a component in this deployment."""
        found = component.find(name)
        call = Call(
            component=found,
            inputs=found.parse(inputs),
            run=run,
            task=name,
            settings=self.deployment,
            force=force,
        )
        return found.outputs(**execute(call).outputs)


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, empty_tracker: Path) -> Trained:
    """The undisturbed training."""
    here = settings.from_environment({"TELECINE_HOME": str(tmp_path_factory.mktemp("trained"))})
    (here.home / "mlflow").mkdir()
    shutil.copy(empty_tracker, here.home / "mlflow" / "mlflow.db")
    dataset = _make_dataset(here)
    laboratory = Trained(here, dataset, None)
    outputs = laboratory.run("pretrain.train", dataset_uri=str(dataset), **TINY_TRAINING)
    return dataclasses.replace(laboratory, outputs=outputs)


@pytest.fixture(scope="session")
def with_lora(trained: Trained) -> Any:
    """What a training gave that put a LoRA beside the tiny model."""
    tuning = TINY_TRAINING | {"num_steps": 24, "lora_rank": 2, "learning_rate": 5e-3}
    base = {"dataset_uri": str(trained.dataset), "model_uri": trained.outputs.model_uri}
    return trained.run("pretrain.train", run="lora", **base, **tuning)


def _make_dataset(
    deployment: settings.Settings,
    *,
    num_clips: int = 8,
    val_clips: int = 2,
    num_frames: int = 2,
    height_px: int = 8,
    width_px: int = 8,
    **columns: Any,
) -> Path:
    shard = deployment.home / "store" / SHARD
    shard.parent.mkdir(parents=True, exist_ok=True)
    rows = []
    with ShardWriter(shard) as writer:
        for index in range(2 * num_clips):
            colour = list(COLOURS)[index % len(COLOURS)]
            frames = _square(num_frames, height_px, width_px, COLOURS[colour], start=index % 5)
            members = writer.add(f"sample{index:04d}", {"frames.npy": array_bytes(frames)})
            clip = index // 2
            row = {
                "sample_id": f"sample{index:04d}",
                "clip_id": f"clip{clip:04d}",
                "source": f"film_{clip // 2:04d}.mp4",
                "source_digest": f"{clip // 2:064x}",
                "licence": "CC0-1.0",
                "consent": "synthetic",
                "caption": f"a {colour} square moves right",
                "split": "val" if clip < val_clips else "train",
                "shard": SHARD,
                "offset": members["frames.npy"].offset,
                "length": members["frames.npy"].length,
                "num_frames": num_frames,
                "height_px": height_px,
                "width_px": width_px,
                "fps": 8.0,
                "motion": 0.1,
                "clarity": 0.5,
                "aesthetic": 0.5,
                "suitability": 3.0,
            }
            rows.append(row | columns)
    digest = hashlib.sha256(shard.read_bytes()).hexdigest()
    dataset = deployment.home / "dataset"
    dataset.mkdir(exist_ok=True)
    table = pa.Table.from_pylist([{"shard_digest": digest} | row for row in rows])
    pq.write_table(table, dataset / "index.parquet")
    return dataset


def _square(
    num_frames: int, height_px: int, width_px: int, colour: tuple[int, int, int], *, start: int
) -> np.ndarray[Any, np.dtype[np.uint8]]:
    frames = np.full((num_frames, height_px, width_px, 3), 40, dtype=np.uint8)
    for index, frame in enumerate(frames):
        left = (start + index) % max(1, width_px - 3)
        frame[2:5, left : left + 3] = colour
    return frames


# Services of that model


@dataclasses.dataclass
class Service:
    """A running ``telecine run deploy.serve``; ``http`` carries the token."""

    process: "subprocess.Popen[bytes]"
    log: Path
    result: Path
    url: str
    token: str
    http: httpx.Client

    def ask(self, prompt: str = "a red square moves right", key: str = "", **values: Any) -> dict[str, Any]:
        """Submit a film; returns the task."""
        headers = {"Idempotency-Key": key} if key else {}
        reply = self.http.post("/v1/videos", json={"prompt": prompt, **values}, headers=headers)
        assert reply.status_code == 202, reply.text
        return reply.json()

    def status(self, task: dict[str, Any]) -> dict[str, Any]:
        """A task as it is now."""
        return self.http.get(f"/v1/videos/{task['id']}").json()

    def wait(self, task: dict[str, Any], *states: str) -> dict[str, Any]:
        """The task once it is in one of the states."""
        deadline = time.monotonic() + WAIT_S
        while (now := self.status(task))["status"] not in states:
            assert time.monotonic() < deadline, now
            time.sleep(0.05)
        return now

    def film(self, task: dict[str, Any]) -> bytes:
        """The bytes of a film that is waited for."""
        done = self.wait(task, "done", "failed")
        assert done["status"] == "done", done
        return self.http.get(done["video_url"]).content

    def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        """End the process; returns its exit code."""
        self.http.close()
        self.process.send_signal(how)
        return self.process.wait(WAIT_S)


class Launcher:
    """Starts services in one deployment, and ends those that a test left."""

    def __init__(self, here: settings.Settings, folder: Path) -> None:
        self.here, self.folder = here, folder
        self.token = secrets.token_urlsafe(24)
        self.started: list[subprocess.Popen[bytes]] = []

    def call(self, token: str | None = None, **inputs: Any) -> tuple["subprocess.Popen[bytes]", Path, Path]:
        """Start the component; returns its process, its log and its result file."""
        number = len(self.started)
        log, result = self.folder / f"serve-{number}.log", self.folder / f"result-{number}.json"
        values = {"port": 0, "num_threads": 1, "num_steps": 4, "max_steps": 10**6, "max_queue": 2} | inputs
        command = [sys.executable, "-P", "-m", "telecine.cli", "run", "deploy.serve", "--result", str(result)]
        environment = (
            os.environ | self.here.environment() | {"TELECINE_SERVE_TOKEN": self.token if token is None else token}
        )
        with log.open("wb") as output:
            process = subprocess.Popen(
                [*command, "--inputs", json.dumps(values)], env=environment, stdout=output, stderr=output
            )
        self.started.append(process)
        return process, log, result

    def start(self, **inputs: Any) -> Service:
        """Start a service and wait until it is ready."""
        process, log, result = self.call(**inputs)
        deadline = time.monotonic() + START_TIMEOUT_S
        while (found := re.search(r"event=serving url=(\S+)", log.read_text())) is None:
            assert process.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
        client = httpx.Client(base_url=found[1], headers={"Authorization": f"Bearer {self.token}"}, timeout=30)
        while not _answers(client):
            assert process.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
        return Service(process, log, result, found[1], self.token, client)

    def end(self) -> None:
        """Kill what a test left."""
        for process in self.started:
            if process.poll() is None:
                process.kill()
                process.wait()


def _answers(client: httpx.Client) -> bool:
    try:
        return client.get("/readyz").status_code == 200
    except httpx.TransportError:
        return False


@pytest.fixture(scope="module")
def launcher(trained: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Launcher]:
    """The session's tiny model as champion of the default name, and how to serve it."""
    outputs = trained.outputs
    trained.run(
        "deploy.register",
        run="served",
        model_uri=outputs.model_uri,
        training_uri=outputs.training_uri,
        dataset_uri=str(trained.dataset),
        model_name="served",
        alias="champion",
    )
    made = Launcher(trained.deployment, tmp_path_factory.mktemp("serve"))
    yield made
    made.end()
