"""``telecine exporter``: GPUs and living attempts as Prometheus metrics, in base units, with bounded labels.

GPUs are read once a second by a thread, so that a scrape never waits for a driver; the store is read when scraped,
at most every few seconds. Names are ``telecine_<what>_<unit>``; a value that does not exist has no series.
"""

import contextlib
import functools
import logging
import re
import threading
import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from telecine.errors import InputError, TelecineError
from telecine.monitor.living import FRESH_S, Living, View, Watch
from telecine.monitor.nvml import STATES, Gpu, Reader, Sample
from telecine.storage import Store

if TYPE_CHECKING:
    from prometheus_client.core import Metric

log = logging.getLogger(__name__)

SAMPLE_S = 1.0
"""NVML averages utilisation and power over up to a second: looking more often repeats values."""
MAX_VALUES = 64
"""Different progress values shown at once; each makes a metric of its own."""
UNITS = {"_s": "_seconds", "_per_s": "_per_second"}
ATTEMPT_LABELS = ("run", "task", "component")

GPU_HELP = {
    "utilization_ratio": "Share of time in which any kernel ran; a single busy SM reads 1.",
    "memory_used_bytes": "Memory in use.",
    "memory_total_bytes": "Memory of the GPU.",
    "power_watts": "Power drawn, mean over about a second.",
    "power_limit_watts": "Power that the GPU may draw.",
    "energy_joules_total": "Energy drawn since the driver was loaded.",
    "temperature_celsius": "Temperature of the core.",
    "sm_clock_hertz": "Clock of the streaming multiprocessors.",
    "memory_clock_hertz": "Clock of the memory.",
    "ecc_corrected_errors_total": "Memory errors that were corrected, since the driver was loaded.",
    "ecc_uncorrected_errors_total": "Memory errors that were not, since the driver was loaded.",
    "remapped_rows_total": "Memory rows replaced by spare ones, ever.",
    "remapped_rows_pending": "1 where a row waits for a reset to be replaced.",
    "remapped_rows_failed": "1 where a row could not be replaced: the GPU has to go.",
    "pcie_replays_total": "PCIe packets sent again.",
    "pcie_link_lanes": "Lanes of the PCIe link now.",
    "pcie_generation": "Generation of the PCIe link now.",
}


class Sampler:
    """Reads the GPUs in a thread and keeps the newest sample."""

    def __init__(self, reader: Reader, *, interval_s: float = SAMPLE_S) -> None:
        self._reader, self._interval_s = reader, interval_s
        self._closing = threading.Event()
        self._newest = (time.monotonic(), reader.sample())
        self._thread = threading.Thread(target=self._keep_sampling, name="gpu-sampler", daemon=True)
        self._thread.start()

    def newest(self) -> tuple[float, Sample]:
        """Seconds since the newest sample, and the sample."""
        at, sample = self._newest
        return time.monotonic() - at, sample

    def close(self) -> None:
        """Stop sampling and let go of the driver."""
        self._closing.set()
        self._thread.join(timeout=2 * self._interval_s)
        self._reader.close()

    def _keep_sampling(self) -> None:
        while not self._closing.wait(self._interval_s):
            sample = self._reader.sample()
            self._newest = (time.monotonic(), sample)


class Collector:
    """What one scrape shows; registered with ``prometheus_client``."""

    def __init__(self, sampler: Sampler, watch: Watch) -> None:
        self._sampler, self._watch = sampler, watch

    def collect(self) -> Iterator["Metric"]:
        """Every metric, GPUs first. A store that is away is a metric and takes no GPU along."""
        yield from gpu_metrics(*self._sampler.newest())
        started = time.monotonic()
        view = None
        try:
            view = self._watch.view()
        except (OSError, TelecineError) as error:
            log.warning("event=store_unreadable error=%r", str(error))
        yield _gauge("telecine_store_up", "1 where the store answered this scrape.", [({}, float(view is not None))])
        seconds = time.monotonic() - started
        yield _gauge("telecine_store_scrape_duration_seconds", "Time spent reading the store.", [({}, seconds)])
        if view is not None:
            yield from run_metrics(view)


def gpu_metrics(age_s: float, sample: Sample) -> Iterator["Metric"]:
    """The state of NVML, and every reading of every GPU that gives it."""
    states = [({"state": state.replace(" ", "_")}, float(state == sample.state)) for state in STATES]
    yield _gauge("telecine_nvml_state", "1 for the state that NVML is in.", states)
    yield _gauge("telecine_gpu_sample_age_seconds", "Time since the GPUs were read.", [({}, age_s)])
    yield _gauge("telecine_gpus", "GPUs that the driver shows.", [({}, float(len(sample.gpus)))])
    for reading, help in GPU_HELP.items():
        rows = [(_of_gpu(gpu), gpu.readings[reading]) for gpu in sample.gpus if reading in gpu.readings]
        kind = _counter if reading.endswith("_total") else _gauge
        yield from [kind(f"telecine_gpu_{reading}", help, rows)] if rows else []
    throttle = [
        (_of_gpu(gpu) | {"reason": reason}, float(active))
        for gpu in sample.gpus
        for reason, active in gpu.throttle.items()
    ]
    yield _gauge("telecine_gpu_throttle_active", "1 where this reason slows the GPU down.", throttle)
    held = [(_of_gpu(gpu) | {"run": run}, value) for gpu in sample.gpus for run, value in _by_run(gpu).items()]
    yield _gauge("telecine_gpu_run_memory_bytes", "Memory that the processes of a run hold.", held)
    xids = [(_of_gpu(gpu) | {"xid": str(code)}, count) for gpu in sample.gpus for code, count in gpu.xids.items()]
    yield _counter("telecine_gpu_xid_errors_total", "XIDs reported since this exporter began.", xids)
    errors = [(_of_gpu(gpu) | {"reading": name}, count) for gpu in sample.gpus for name, count in gpu.errors.items()]
    yield _counter("telecine_gpu_read_errors_total", "Readings that failed; they have no value meanwhile.", errors)


def run_metrics(view: View) -> Iterator["Metric"]:
    """Living attempts as gauges, ended tasks as counters."""
    each = [(dict(zip(ATTEMPT_LABELS, (one.run, one.task, one.component), strict=True)), one) for one in view.living]
    told = [(who, one) for who, one in each if one.progress.total]  # an attempt that has said nothing is not at zero
    yield _gauge("telecine_attempt_progress_ratio", "Share done.", [(who, one.progress.ratio) for who, one in told])
    done = [(who, float(one.progress.done)) for who, one in told]
    yield _gauge("telecine_attempt_steps_done", "Steps or items done.", done)
    total = [(who, float(one.progress.total)) for who, one in told]
    yield _gauge("telecine_attempt_steps_planned", "Steps or items there are.", total)
    eta = [(who, one.progress.eta_s) for who, one in each if one.progress.eta_s is not None]
    yield _gauge("telecine_attempt_eta_seconds", "Time left at the mean speed of this attempt.", eta)
    age = [(who, one.age_s) for who, one in each]
    yield _gauge("telecine_attempt_heartbeat_age_seconds", "Time since the attempt last said that it lives.", age)
    yield from _goodput(each)
    yield from _values(each)
    yield _gauge("telecine_attempts_living", "Attempts at work.", [({}, float(len(each) + view.num_hidden))])
    lost = "Tasks that say they are running and whose attempt is dead."
    yield _gauge("telecine_attempts_lost", lost, [({}, float(view.num_lost))])
    ended = [({"component": name, "decision": how}, count) for (name, how), count in sorted(view.ended.items())]
    yield _counter("telecine_tasks_ended_total", "Tasks that ended since this exporter began, by what they met.", ended)


def metric_name(value: str) -> str:
    """Metric of a progress value: ``data_wait_s`` is ``telecine_attempt_data_wait_seconds``."""
    plain = re.sub(r"[^a-z0-9]+", "_", value.lower()).strip("_")
    suffix = next((unit for unit in sorted(UNITS, key=len, reverse=True) if plain.endswith(unit)), "")
    return f"telecine_attempt_{plain.removesuffix(suffix)}{UNITS.get(suffix, '')}"


def serve(
    store: Store, *, port: int, host: str = "127.0.0.1", reader: Reader | None = None, fresh_s: float = FRESH_S
) -> "Server":
    """Answer scrapes at ``http://host:port/metrics`` from a thread; the store is read every ``fresh_s`` at most.

    Raises:
        InputError: the port is taken or the host is not of this machine.
    """
    from prometheus_client import CollectorRegistry, ProcessCollector, start_http_server

    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    sampler = Sampler(reader or Reader())
    registry.register(Collector(sampler, Watch(store, fresh_s=fresh_s)))
    try:
        server, thread = start_http_server(port, addr=host, registry=registry)
    except OSError as error:
        sampler.close()
        raise InputError(f"cannot listen on {host}:{port}: {error.strerror}; give another --port or --host") from None
    return Server(server, thread, sampler)


class Server:
    """A running exporter."""

    def __init__(self, server: Any, thread: threading.Thread, sampler: Sampler) -> None:
        self._server, self._thread, self._sampler = server, thread, sampler
        self.port = int(server.server_port)

    def wait(self) -> None:
        """Serve until interrupted."""
        self._thread.join()

    def close(self) -> None:
        """Stop serving and sampling."""
        with contextlib.closing(self._sampler):
            self._server.shutdown()
            self._server.server_close()
            self._thread.join()


def _values(each: list[tuple[dict[str, str], Living]]) -> Iterator["Metric"]:
    rows: dict[str, list[tuple[dict[str, str], float]]] = {}
    for who, one in each:
        # Two values whose names differ in punctuation alone would be one series twice.
        named = {metric_name(name): float(value) for name, value in one.progress.values.items()}
        for name, value in named.items():
            rows.setdefault(name, []).append((who, value))
    for name in sorted(set(rows) - _OWN)[:MAX_VALUES]:
        yield _gauge(name, "Last value that the attempt gave with its progress.", rows[name])


def _goodput(each: list[tuple[dict[str, str], Living]]) -> Iterator["Metric"]:
    """Where the time of living attempts went; gauges, because a rollback moves productive time to lost work."""
    spent = [(who | {"cause": cause}, seconds) for who, one in each for cause, seconds in one.causes_s.items()]
    yield _gauge("telecine_goodput_seconds", "Time by cause since the work was asked for, over all attempts.", spent)
    sums = [(who, one.causes_s.get("productive", 0.0), sum(one.causes_s.values())) for who, one in each]
    ratios = [(who, productive / whole) for who, productive, whole in sums if whole]
    yield _gauge("telecine_goodput_ratio", "Share of that time which went into steps that count.", ratios)
    now = [(who | {"cause": one.cause}, 1.0) for who, one in each if one.cause]
    yield _gauge("telecine_goodput_cause", "1 for what the attempt spends its time on.", now)


_OWN = frozenset(
    f"telecine_attempt_{name}"
    for name in ("progress_ratio", "steps_done", "steps_planned", "eta_seconds", "heartbeat_age_seconds")
)


def _of_gpu(gpu: Gpu) -> dict[str, str]:
    return {"gpu": str(gpu.index), "uuid": gpu.uuid}


def _by_run(gpu: Gpu) -> dict[str, float]:
    held: dict[str, float] = {}
    for process in gpu.processes:
        if process.memory_bytes is not None:
            held[process.run] = held.get(process.run, 0.0) + process.memory_bytes
    return held


def _metric(kind: str, name: str, help: str, rows: Iterable[tuple[dict[str, str], float]]) -> "Metric":
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

    rows = list(rows)
    labels = list(rows[0][0]) if rows else []
    family = (CounterMetricFamily if kind == "counter" else GaugeMetricFamily)(name, help, labels=labels)
    for given, value in rows:
        family.add_metric([given[label] for label in labels], value)
    return family


_gauge = functools.partial(_metric, "gauge")
_counter = functools.partial(_metric, "counter")
