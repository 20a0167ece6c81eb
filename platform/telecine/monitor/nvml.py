"""GPUs as NVML sees them, in base units; what a GPU does not tell is absent, never a zero.

NVML is the library of the NVIDIA driver, and nvidia-ml-py, the module ``pynvml``, calls it. Nothing here needs
root, and nothing starts a process. See https://docs.nvidia.com/deploy/nvml-api/.
"""

import contextlib
import dataclasses
import functools
import importlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from telecine.slugs import is_slug

READY: Final = "ready"
STATES: Final = {
    READY: "",
    "no gpu": "the driver answers and has no GPU to show; everything runs on the CPU",
    "no driver": "this machine has no NVIDIA driver loaded; everything runs on the CPU",
    "not installed": "nvidia-ml-py is not installed: pip install 'telecine[monitor]'",
    "broken": "the driver is there and does not answer; see nvidia-smi, a reboot often mends it",
}
"""Every state that NVML can be in, and what it means for a person."""

THROTTLE_REASONS: Final = {
    "sw_power_cap": 0x4,
    "hw_slowdown": 0x8,
    "sync_boost": 0x10,
    "sw_thermal": 0x20,
    "hw_thermal": 0x40,
    "hw_power_brake": 0x80,
}
"""Bits of ``nvmlDeviceGetCurrentClocksEventReasons`` that slow a busy GPU down; an idle one is not throttled."""


MAX_EVENTS: Final = 1000
"""Fetched at one look, so that a GPU that fails all the time cannot hold the reader."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Process:
    """A process with a context on a GPU.

    Attributes:
        run: slug of the run that it belongs to; empty where its environment may not be read or names none.
        memory_bytes: what it holds on this GPU; None where the driver does not say.
    """

    pid: int
    run: str
    memory_bytes: int | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Gpu:
    """One GPU at one moment.

    Attributes:
        readings: value by metric name without the prefix ``telecine_gpu_``, such as ``power_watts``.
        throttle: by reason whether it slows the GPU down now; empty where the GPU does not tell.
        errors: how often each reading failed since this reader began, "not supported" excluded.
        xids: how often the driver reported each XID (https://docs.nvidia.com/deploy/xid-errors/) since then.
    """

    index: int
    uuid: str
    name: str
    errors: dict[str, int]
    readings: dict[str, float] = dataclasses.field(default_factory=dict)
    throttle: dict[str, bool] = dataclasses.field(default_factory=dict)
    processes: list[Process] = dataclasses.field(default_factory=list)
    xids: dict[int, int] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sample:
    """What one look found: a state of :data:`STATES`, the driver's version, and the GPUs."""

    state: str
    detail: str = ""
    driver: str = ""
    gpus: list[Gpu] = dataclasses.field(default_factory=list)


class Reader:
    """Looks at every GPU of this machine; keeps NVML open between two looks.

    Args:
        library: an object with the functions and errors of ``pynvml``; None imports the real one.
        proc: where the kernel shows processes.
    """

    def __init__(self, library: Any = None, *, proc: Path = Path("/proc")) -> None:
        self._library: Any = library if library is not None else _installed()
        self._proc = proc
        self._open = False
        self._errors: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self._xids: defaultdict[str, Counter[int]] = defaultdict(Counter)
        self._events: dict[str, Any] = {}

    def sample(self) -> Sample:
        """One look at every GPU. A driver that goes away or comes back is a state, not an error."""
        nvml = self._library
        if nvml is None:
            return Sample(state="not installed")
        try:
            if not self._open:
                nvml.nvmlInit()
                self._open = True
            gpus = [self._gpu(index) for index in range(nvml.nvmlDeviceGetCount())]
            return Sample(state=READY if gpus else "no gpu", driver=str(nvml.nvmlSystemGetDriverVersion()), gpus=gpus)
        except nvml.NVMLError as error:
            self.close()
            return Sample(state=self._state_of(error), detail=str(error))

    def close(self) -> None:
        """Let go of the driver."""
        if self._open:
            for events in filter(None, self._events.values()):
                with contextlib.suppress(self._library.NVMLError):
                    self._library.nvmlEventSetFree(events)
            self._open, self._events = False, {}
            with contextlib.suppress(self._library.NVMLError):
                self._library.nvmlShutdown()

    def _state_of(self, error: Exception) -> str:
        nvml = self._library
        absent = (nvml.NVML_ERROR_LIBRARY_NOT_FOUND, nvml.NVML_ERROR_DRIVER_NOT_LOADED)
        return "no driver" if getattr(error, "value", None) in absent else "broken"

    def _gpu(self, index: int) -> Gpu:
        """One GPU; a lost one is there without a reading, and hides no other."""
        nvml = self._library
        try:
            handle = nvml.nvmlDeviceGetHandleByIndex(index)
            uuid, name = str(nvml.nvmlDeviceGetUUID(handle)), str(nvml.nvmlDeviceGetName(handle))
        except nvml.NVMLError as error:
            errors = self._errors[str(index)]
            errors["handle"] += 1
            return Gpu(index=index, uuid="", name=f"does not answer: {error}", errors=dict(errors))
        errors = self._errors[uuid]
        readings: dict[str, float] = {}
        for reading, measure in _measures(nvml):
            readings |= self._tried(reading, functools.partial(measure, handle), errors) or {}
        bits = self._tried("throttle", lambda: nvml.nvmlDeviceGetCurrentClocksEventReasons(handle), errors)
        throttle = {} if bits is None else {name: bool(bits & bit) for name, bit in THROTTLE_REASONS.items()}
        running = self._tried("processes", lambda: nvml.nvmlDeviceGetComputeRunningProcesses(handle), errors)
        self._tried("xids", lambda: self._take_xids(uuid, handle), errors)
        return Gpu(
            index=index,
            uuid=uuid,
            name=name,
            readings=readings,
            throttle=throttle,
            processes=[self._process(each) for each in running or []],
            errors=dict(errors),
            xids=dict(self._xids[uuid]),
        )

    def _take_xids(self, uuid: str, handle: Any) -> None:
        """Count the XIDs since the last look: NVML has no counter of them, only events that wait to be fetched."""
        nvml = self._library
        if uuid not in self._events:
            self._events[uuid] = None  # a GPU that cannot tell is asked once: each event set takes memory
            self._events[uuid] = self._event_set(handle)
        if self._events[uuid] is None:
            return
        for _ in range(MAX_EVENTS):
            try:
                event = nvml.nvmlEventSetWait(self._events[uuid], 0)
            except nvml.NVMLError as error:
                if error.value == nvml.NVML_ERROR_TIMEOUT:
                    return
                raise
            self._xids[uuid][int(event.eventData)] += 1

    def _event_set(self, handle: Any) -> Any:
        nvml = self._library
        events = nvml.nvmlEventSetCreate()
        try:
            nvml.nvmlDeviceRegisterEvents(handle, nvml.nvmlEventTypeXidCriticalError, events)
        except nvml.NVMLError:
            nvml.nvmlEventSetFree(events)
            raise
        return events

    def _tried(self, reading: str, read: Callable[[], Any], errors: Counter[str]) -> Any:
        """What was read, or None; counted as an error unless the GPU does not have such a reading at all."""
        nvml = self._library
        try:
            return read()
        except nvml.NVMLError as error:
            if error.value not in (nvml.NVML_ERROR_NOT_SUPPORTED, nvml.NVML_ERROR_FUNCTION_NOT_FOUND):
                errors[reading] += 1
            return None

    def _process(self, seen: Any) -> Process:
        return Process(pid=seen.pid, run=run_of(seen.pid, self._proc), memory_bytes=seen.usedGpuMemory)


def run_of(pid: int, proc: Path = Path("/proc")) -> str:
    """Slug of the run that a process works for; empty where unknown.

    It is that of a command line of ``telecine``, else of the environment: to other programs ``--run`` means other
    things, and what is no slug would be a label without bounds.
    """
    try:
        arguments = (proc / str(pid) / "cmdline").read_bytes().decode(errors="replace").split("\0")
        variables = (proc / str(pid) / "environ").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return ""
    named = [text.partition("=")[2] for text in variables if text.startswith("TELECINE_RUN=")]
    if "--run" in arguments[:-1]:
        place = arguments.index("--run")
        if any(Path(word).name in ("telecine", "telecine.cli") for word in arguments[:place]):
            named.insert(0, arguments[place + 1])
    return next(filter(is_slug, named), "")


def _installed() -> ModuleType | None:
    try:
        return importlib.import_module("pynvml")
    except ModuleNotFoundError:
        return None


def _measures(nvml: Any) -> Iterator[tuple[str, Callable[[Any], dict[str, float]]]]:
    """Each reading by itself, so that one that fails takes no other along; NVML's units to base units.

    PCIe throughput is left out: each read of it holds its caller for 20 ms.
    """
    core = nvml.NVML_TEMPERATURE_GPU
    corrected, uncorrected = nvml.NVML_MEMORY_ERROR_TYPE_CORRECTED, nvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED
    yield "utilization", lambda gpu: {"utilization_ratio": nvml.nvmlDeviceGetUtilizationRates(gpu).gpu / 100}
    yield "memory", lambda gpu: _memory(nvml.nvmlDeviceGetMemoryInfo(gpu))
    yield "power", lambda gpu: {"power_watts": nvml.nvmlDeviceGetPowerUsage(gpu) / 1e3}
    yield "power_limit", lambda gpu: {"power_limit_watts": nvml.nvmlDeviceGetEnforcedPowerLimit(gpu) / 1e3}
    yield "energy", lambda gpu: {"energy_joules_total": nvml.nvmlDeviceGetTotalEnergyConsumption(gpu) / 1e3}
    yield "temperature", lambda gpu: {"temperature_celsius": float(nvml.nvmlDeviceGetTemperature(gpu, core))}
    yield "sm_clock", lambda gpu: {"sm_clock_hertz": nvml.nvmlDeviceGetClockInfo(gpu, nvml.NVML_CLOCK_SM) * 1e6}
    yield (
        "memory_clock",
        lambda gpu: {"memory_clock_hertz": nvml.nvmlDeviceGetClockInfo(gpu, nvml.NVML_CLOCK_MEM) * 1e6},
    )
    yield "ecc_corrected", lambda gpu: {"ecc_corrected_errors_total": _ecc(nvml, gpu, corrected)}
    yield "ecc_uncorrected", lambda gpu: {"ecc_uncorrected_errors_total": _ecc(nvml, gpu, uncorrected)}
    yield "remapped_rows", lambda gpu: _rows(nvml.nvmlDeviceGetRemappedRows(gpu))
    yield "pcie_replays", lambda gpu: {"pcie_replays_total": float(nvml.nvmlDeviceGetPcieReplayCounter(gpu))}
    yield "pcie_link", lambda gpu: {"pcie_link_lanes": float(nvml.nvmlDeviceGetCurrPcieLinkWidth(gpu))}
    yield "pcie_generation", lambda gpu: {"pcie_generation": float(nvml.nvmlDeviceGetCurrPcieLinkGeneration(gpu))}


def _memory(info: Any) -> dict[str, float]:
    return {"memory_used_bytes": float(info.used), "memory_total_bytes": float(info.total)}


def _ecc(nvml: Any, gpu: Any, kind: int) -> float:
    return float(nvml.nvmlDeviceGetTotalEccErrors(gpu, kind, nvml.NVML_VOLATILE_ECC))


def _rows(counts: tuple[int, int, int, int]) -> dict[str, float]:
    """Rows that were remapped since the GPU was made; one that failed to be means that the GPU has to go."""
    corrected, uncorrected, pending, failed = counts
    return {
        "remapped_rows_total": float(corrected + uncorrected),
        "remapped_rows_pending": float(pending),
        "remapped_rows_failed": float(failed),
    }
