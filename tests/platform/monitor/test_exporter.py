"""The exporter, scraped over HTTP as Prometheus does."""

import http.client
import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from telecine.errors import InputError
from telecine.monitor import exporter, living
from telecine.monitor.nvml import Reader
from telecine.storage import Entry, Store

SCRAPES = 20


@pytest.fixture
def served(deployment: Any, fake: Any, proc: Path) -> Iterator[exporter.Server]:
    """An exporter of this deployment's store and of a machine with one busy GPU."""
    gpu = fake.Gpu(processes=[(11, 2**30), (13, 5)], broken={"power": 999}, xids=[79])
    store = Store(deployment.store_uri)
    server = exporter.serve(store, port=0, reader=Reader(fake.Nvml(gpu), proc=proc))
    yield server
    server.close()


def scrape(port: int) -> str:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", "/metrics")
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    assert answer.status == 200
    return text


def series(text: str) -> dict[str, float]:
    """Value by ``name{label=value,…}``."""
    return {
        sample.name + "".join(f" {label}={value}" for label, value in sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_a_scrape_shows_the_gpus_and_no_value_that_was_not_read(served: exporter.Server) -> None:
    seen = series(scrape(served.port))
    assert seen["telecine_nvml_state state=ready"] == 1 and seen["telecine_nvml_state state=no_driver"] == 0
    assert seen["telecine_gpu_utilization_ratio gpu=0 uuid=GPU-0"] == 0.37
    assert seen["telecine_gpu_energy_joules_total gpu=0 uuid=GPU-0"] == 9000.5
    assert seen["telecine_gpu_throttle_active gpu=0 reason=sw_power_cap uuid=GPU-0"] == 1
    assert seen["telecine_gpu_run_memory_bytes gpu=0 run=flywheel-1 uuid=GPU-0"] == 2**30
    assert seen["telecine_gpu_xid_errors_total gpu=0 uuid=GPU-0 xid=79"] == 1
    assert seen["telecine_gpu_read_errors_total gpu=0 reading=power uuid=GPU-0"] >= 1
    assert not any(name.startswith("telecine_gpu_power_watts") for name in seen)


def test_promtool_finds_nothing_to_say(served: exporter.Server, toys: Any) -> None:
    promtool = shutil.which("promtool")
    if promtool is None and os.environ.get("CI"):
        pytest.fail("CI needs promtool, of Debian's package prometheus")
    if promtool is None:
        pytest.skip("promtool is not installed")
    process = _training(toys)
    checked = subprocess.run([promtool, "check", "metrics"], input=scrape(served.port), capture_output=True, text=True)
    process.kill()
    process.communicate()
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")


def _training(toys: Any) -> Any:
    """A component at work that tells what a trainer tells; returns once it has."""
    body = """
total = {"productive": 30.0, "init": 10.0}
ctx.tell_ledger(lambda: {"total": total, "productive_ratio": 0.75, "cause": "productive", "cause_s": 1.0})
ctx.progress(5, 20)
time.sleep(0.2)
ctx.progress(10, 20, loss=0.5, step_time_s=0.25, samples_per_s=64.0)
while True:
    time.sleep(0.1)
"""
    toys.add("toy.train", inputs="", outputs="", body=body)
    process = toys.start("run", "toy.train", "--run", "r")
    deadline = time.monotonic() + 60
    while not any('"done": 10' in path.read_text() for path in toys.here.home.glob("store/work/*/*/beats/*.json")):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.1)
    return process


def test_a_living_attempt_has_its_progress_and_a_dead_one_no_series(toys: Any, served: exporter.Server) -> None:
    process = _training(toys)
    who = "component=toy.train run=r task=toy.train"
    seen = series(scrape(served.port))
    assert seen[f"telecine_attempt_progress_ratio {who}"] == 0.5
    assert seen[f"telecine_attempt_steps_done {who}"] == 10 and seen[f"telecine_attempt_steps_planned {who}"] == 20
    assert seen[f"telecine_attempt_loss {who}"] == 0.5
    assert seen[f"telecine_attempt_step_time_seconds {who}"] == 0.25
    assert seen[f"telecine_attempt_samples_per_second {who}"] == 64
    assert seen[f"telecine_attempt_eta_seconds {who}"] > 0
    assert 0 <= seen[f"telecine_attempt_heartbeat_age_seconds {who}"] < 60
    assert seen[f"telecine_goodput_seconds cause=productive {who}"] == 30
    assert seen[f"telecine_goodput_seconds cause=init {who}"] == 10
    assert seen[f"telecine_goodput_ratio {who}"] == 0.75
    assert seen[f"telecine_goodput_cause cause=productive {who}"] == 1
    process.kill()
    process.communicate()
    time.sleep(living.FRESH_S + 0.5)
    after = series(scrape(served.port))
    assert not any(who in name for name in after)
    assert after["telecine_attempts_living"] == 0 and after["telecine_attempts_lost"] == 1


def test_ended_tasks_are_counted_by_what_they_met(letters: Any, toys: Any, deployment: Any) -> None:
    toys.run("text.repeat", "--run", "a")
    watch = living.Watch(Store(deployment.store_uri), fresh_s=0)
    assert watch.view().ended == {("text.repeat", "ran"): 0}, "history is not counted anew by each start"
    toys.run("text.repeat", "--run", "b")
    assert watch.view().ended == {("text.repeat", "ran"): 0, ("text.repeat", "reused"): 1}
    toys.run("text.repeat", "--set", "times=3", "--run", "a")
    assert watch.view().ended == {("text.repeat", "ran"): 1, ("text.repeat", "reused"): 1}
    Store(deployment.store_uri).delete_folder("runs/a")
    assert watch.view().ended == {("text.repeat", "ran"): 1, ("text.repeat", "reused"): 1}, "a counter never falls"
    assert living.Watch(Store(deployment.store_uri)).view().ended == {("text.repeat", "reused"): 0}


class Counted(Store):
    """A store that counts what is asked of it."""

    asked = 0

    def read(self, path: str) -> bytes:
        self.asked += 1
        return super().read(path)

    def entries(self, prefix: str) -> Iterator[Entry]:
        self.asked += 1
        return super().entries(prefix)

    def head(self, path: str) -> Entry | None:
        self.asked += 1
        return super().head(path)


def test_a_scrape_asks_little_of_the_store(toys: Any, letters: Callable[..., Any], deployment: Any) -> None:
    for run in ("a", "b", "c", "d"):
        toys.run("text.repeat", "--run", run)
    process = _training(toys)
    store = Counted(deployment.store_uri)
    watch = living.Watch(store, fresh_s=0)
    watch.view()
    store.asked = 0
    assert len(watch.view().living) == 1
    assert store.asked == 3, "one listing, and the age and the text of one heartbeat"
    patient = living.Watch(store)
    patient.view()
    store.asked = 0
    patient.view()
    process.kill()
    process.communicate()
    assert store.asked == 0, "answered from memory"


def test_a_store_that_is_away_is_a_metric_and_hides_no_gpu(tmp_path: Path, fake: Any) -> None:
    store = Store(f"file://{tmp_path / 'store'}")
    (tmp_path / "store").rmdir()
    (tmp_path / "store").write_text("no folder any more")
    server = exporter.serve(store, port=0, reader=Reader(fake.Nvml(fake.Gpu())))
    seen = series(scrape(server.port))
    server.close()
    assert seen["telecine_store_up"] == 0 and seen["telecine_gpus"] == 1


def test_a_port_that_is_taken_is_one_sentence(served: exporter.Server, deployment: Any, fake: Any) -> None:
    with pytest.raises(
        InputError, match=f"cannot listen on 127.0.0.1:{served.port}: .*; give another --port or --host"
    ):
        exporter.serve(Store(deployment.store_uri), port=served.port, reader=Reader(fake.Nvml()))


def test_the_exporter_is_small(toys: Any) -> None:
    process = toys.start("exporter", "--port", "0", "--json")
    assert process.stdout is not None
    head = "".join(process.stdout.readline() for _ in range(3))
    port = int(json.loads(head)["url"].rpartition(":")[2].partition("/")[0])
    before, started = series(scrape(port)), time.monotonic()
    for _ in range(SCRAPES):
        scrape(port)
        time.sleep(0.25)
    after, seconds = series(scrape(port)), time.monotonic() - started
    process.kill()
    process.communicate()
    share = (after["process_cpu_seconds_total"] - before["process_cpu_seconds_total"]) / seconds
    memory_mib = after["process_resident_memory_bytes"] / 2**20
    print(f"exporter: {share:.2%} of a core at {SCRAPES / seconds:.1f} scrapes/s, {memory_mib:.0f} MiB")
    assert memory_mib < 64, "the budget of a GPU monitor; see docs/lab-log.md"
    assert share < 0.2, "a twentieth of this many scrapes is what Prometheus asks for"


def test_a_metric_is_named_with_its_unit() -> None:
    assert [exporter.metric_name(name) for name in ("loss", "data_wait_s", "samples_per_s", "Win/Rate ratio")] == [
        "telecine_attempt_loss",
        "telecine_attempt_data_wait_seconds",
        "telecine_attempt_samples_per_second",
        "telecine_attempt_win_rate_ratio",
    ]
