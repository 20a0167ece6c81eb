"""An NVML of our own: the functions and errors of ``pynvml`` over GPUs that a test describes."""

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pynvml
import pytest


@dataclasses.dataclass
class FakeGpu:
    """One GPU. What is named in ``broken`` raises that error instead of answering."""

    uuid: str = "GPU-0"
    broken: dict[str, int] = dataclasses.field(default_factory=dict)
    xids: list[int] = dataclasses.field(default_factory=list)
    processes: list[tuple[int, int | None]] = dataclasses.field(default_factory=list)
    events: int = 0


class FakeNvml:
    """Answers as the library does: raw units, error codes, nothing before ``nvmlInit``."""

    def __init__(self, *gpus: FakeGpu, init_error: int | None = None) -> None:
        self.gpus, self.init_error, self.open = list(gpus), init_error, False
        self.num_event_sets = 0

    def __getattr__(self, name: str) -> Any:
        """Constants and errors are those of the real module."""
        if name.startswith(("NVML", "nvmlEventType")):
            return getattr(pynvml, name)
        raise AttributeError(name)

    def nvmlInit(self) -> None:
        if self.init_error is not None:
            raise pynvml.NVMLError(self.init_error)
        self.open = True

    def nvmlShutdown(self) -> None:
        self.open = False

    def nvmlDeviceGetCount(self) -> int:
        self._check_open()
        return len(self.gpus)

    def nvmlSystemGetDriverVersion(self) -> str:
        self._check_open()
        return "575.57.08"

    def nvmlDeviceGetHandleByIndex(self, index: int) -> FakeGpu:
        return self._of(self.gpus[index], "handle", self.gpus[index])

    def nvmlDeviceGetUUID(self, handle: FakeGpu) -> str:
        return self._of(handle, "uuid", handle.uuid)

    def nvmlDeviceGetName(self, handle: FakeGpu) -> str:
        return self._of(handle, "name", "NVIDIA Fake 80GB")

    def nvmlDeviceGetUtilizationRates(self, handle: FakeGpu) -> Any:
        return self._of(handle, "utilization", SimpleNamespace(gpu=37, memory=12))

    def nvmlDeviceGetMemoryInfo(self, handle: FakeGpu) -> Any:
        return self._of(handle, "memory", SimpleNamespace(used=20 * 2**30, total=80 * 2**30))

    def nvmlDeviceGetPowerUsage(self, handle: FakeGpu) -> int:
        return self._of(handle, "power", 412_500)

    def nvmlDeviceGetEnforcedPowerLimit(self, handle: FakeGpu) -> int:
        return self._of(handle, "power_limit", 700_000)

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: FakeGpu) -> int:
        return self._of(handle, "energy", 9_000_500)

    def nvmlDeviceGetTemperature(self, handle: FakeGpu, sensor: int) -> int:
        assert sensor == pynvml.NVML_TEMPERATURE_GPU
        return self._of(handle, "temperature", 61)

    def nvmlDeviceGetClockInfo(self, handle: FakeGpu, type: int) -> int:
        return self._of(handle, "clock", {pynvml.NVML_CLOCK_SM: 1980, pynvml.NVML_CLOCK_MEM: 3201}[type])

    def nvmlDeviceGetTotalEccErrors(self, handle: FakeGpu, errorType: int, counterType: int) -> int:
        assert counterType == pynvml.NVML_VOLATILE_ECC
        return self._of(handle, "ecc", {pynvml.NVML_MEMORY_ERROR_TYPE_CORRECTED: 5}.get(errorType, 1))

    def nvmlDeviceGetRemappedRows(self, device: FakeGpu) -> tuple[int, int, int, int]:
        return self._of(device, "rows", (2, 1, 1, 0))

    def nvmlDeviceGetPcieReplayCounter(self, handle: FakeGpu) -> int:
        return self._of(handle, "pcie", 3)

    def nvmlDeviceGetCurrPcieLinkWidth(self, handle: FakeGpu) -> int:
        return self._of(handle, "pcie", 16)

    def nvmlDeviceGetCurrPcieLinkGeneration(self, handle: FakeGpu) -> int:
        return self._of(handle, "pcie", 5)

    def nvmlDeviceGetCurrentClocksEventReasons(self, handle: FakeGpu) -> int:
        return self._of(handle, "throttle", pynvml.nvmlClocksEventReasonSwPowerCap)

    def nvmlDeviceGetComputeRunningProcesses(self, handle: FakeGpu) -> list[Any]:
        found = [SimpleNamespace(pid=pid, usedGpuMemory=memory) for pid, memory in handle.processes]
        return self._of(handle, "processes", found)

    def nvmlEventSetCreate(self) -> list[FakeGpu]:
        self._check_open()
        self.num_event_sets += 1
        return []

    def nvmlEventSetFree(self, eventSet: list[FakeGpu]) -> None:
        self._check_open()
        self.num_event_sets -= 1

    def nvmlDeviceRegisterEvents(self, handle: FakeGpu, eventTypes: int, eventSet: list[FakeGpu]) -> None:
        assert eventTypes == pynvml.nvmlEventTypeXidCriticalError
        eventSet.append(self._of(handle, "events", handle))

    def nvmlEventSetWait(self, eventSet: list[FakeGpu], timeoutms: int) -> Any:
        (gpu,) = eventSet
        if not gpu.xids:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_TIMEOUT)
        return SimpleNamespace(device=gpu, eventData=gpu.xids.pop(0))

    def _of(self, gpu: FakeGpu, reading: str, value: Any) -> Any:
        self._check_open()
        if reading in gpu.broken:
            raise pynvml.NVMLError(gpu.broken[reading])
        return value

    def _check_open(self) -> None:
        if not self.open:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_UNINITIALIZED)


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    """A /proc with a task of a run, a process that somebody else owns and one without a run."""
    for pid, arguments, variables in (
        (11, "python\0telecine\0run\0pretrain.train\0--run\0flywheel-1\0", "HOME=/x\0"),
        (12, "python\0train.py\0", "HOME=/x\0TELECINE_RUN=sweep-2\0"),
        (13, "python\0notebook\0", "HOME=/x\0"),
        (14, "python\0-P\0-m\0telecine.cli\0run\0align.tune\0--run\0align-3\0", "HOME=/x\0"),
        (15, "python\0train.py\0--run\0somebody-else\0", "HOME=/x\0"),
        (16, "python\0-m\0telecine.cli\0run\0a.b\0--run\0no slug\0", "TELECINE_RUN=Neither\n\0"),
    ):
        (tmp_path / "proc" / str(pid)).mkdir(parents=True)
        (tmp_path / "proc" / str(pid) / "cmdline").write_text(arguments)
        (tmp_path / "proc" / str(pid) / "environ").write_text(variables)
    return tmp_path / "proc"


@pytest.fixture
def fake() -> Any:
    """The two classes above, for a test to build the machine that it needs."""
    return SimpleNamespace(Nvml=FakeNvml, Gpu=FakeGpu)
