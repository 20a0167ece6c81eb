"""GPUs: base units, nothing invented, and each way of having none told apart."""

import ctypes.util
import inspect
from pathlib import Path
from typing import Any

import pynvml
import pytest

from telecine.monitor import gpus
from telecine.monitor.nvml import Process, Reader


def test_the_fake_has_the_protocol_of_the_library(fake: Any) -> None:
    calls = {name: call for name, call in vars(fake.Nvml).items() if name.startswith("nvml")}
    assert len(calls) > 20
    for name, call in calls.items():
        assert (
            list(inspect.signature(call).parameters)[1:]
            == list(inspect.signature(getattr(pynvml, name)).parameters)[: len(inspect.signature(call).parameters) - 1]
        ), name


def test_readings_are_in_base_units(fake: Any) -> None:
    sample = Reader(fake.Nvml(fake.Gpu())).sample()
    assert (sample.state, sample.driver) == ("ready", "575.57.08")
    (gpu,) = sample.gpus
    assert gpu.readings == {
        "utilization_ratio": 0.37,
        "memory_used_bytes": 20 * 2**30,
        "memory_total_bytes": 80 * 2**30,
        "power_watts": 412.5,
        "power_limit_watts": 700.0,
        "energy_joules_total": 9000.5,
        "temperature_celsius": 61.0,
        "sm_clock_hertz": 1.98e9,
        "memory_clock_hertz": 3.201e9,
        "ecc_corrected_errors_total": 5.0,
        "ecc_uncorrected_errors_total": 1.0,
        "remapped_rows_total": 3.0,
        "remapped_rows_pending": 1.0,
        "remapped_rows_failed": 0.0,
        "pcie_replays_total": 3.0,
        "pcie_link_lanes": 16.0,
        "pcie_generation": 5.0,
    }
    assert [reason for reason, active in gpu.throttle.items() if active] == ["sw_power_cap"]


def test_what_a_gpu_does_not_have_is_absent_and_what_fails_is_counted(fake: Any) -> None:
    broken = {"ecc": pynvml.NVML_ERROR_NOT_SUPPORTED, "power": pynvml.NVML_ERROR_UNKNOWN}
    reader = Reader(fake.Nvml(fake.Gpu(broken=broken)))
    reader.sample()
    (gpu,) = reader.sample().gpus
    assert not {"ecc_corrected_errors_total", "ecc_uncorrected_errors_total", "power_watts"} & set(gpu.readings)
    assert gpu.readings["temperature_celsius"] == 61.0
    assert gpu.errors == {"power": 2}


def test_a_lost_gpu_hides_no_other_and_answers_again_when_it_is_back(fake: Any) -> None:
    lost = fake.Gpu(broken={"handle": pynvml.NVML_ERROR_GPU_IS_LOST})
    reader = Reader(fake.Nvml(lost, fake.Gpu(uuid="GPU-1")))
    first, second = reader.sample().gpus
    assert first.readings == {} and first.errors == {"handle": 1} and first.name == "does not answer: GPU is lost"
    assert second.readings["power_watts"] == 412.5
    lost.broken.clear()
    assert reader.sample().gpus[0].readings["power_watts"] == 412.5


def test_xids_are_counted_by_code(fake: Any) -> None:
    gpu = fake.Gpu()
    reader = Reader(fake.Nvml(gpu))
    assert reader.sample().gpus[0].xids == {}
    gpu.xids += [79, 31, 79]
    assert reader.sample().gpus[0].xids == {79: 2, 31: 1}
    assert reader.sample().gpus[0].xids == {79: 2, 31: 1}


@pytest.mark.parametrize("code", [pynvml.NVML_ERROR_NOT_SUPPORTED, pynvml.NVML_ERROR_UNKNOWN])
def test_a_gpu_that_has_no_events_is_asked_once_and_keeps_no_event_set(fake: Any, code: int) -> None:
    library = fake.Nvml(fake.Gpu(broken={"events": code}), fake.Gpu(uuid="GPU-1"))
    reader = Reader(library)
    gpus = [reader.sample().gpus[0] for _ in range(3)]
    assert library.num_event_sets == 1, "that of the other GPU"
    assert gpus[-1].errors == ({} if code == pynvml.NVML_ERROR_NOT_SUPPORTED else {"xids": 1})
    reader.close()
    assert library.num_event_sets == 0


def test_a_process_belongs_to_the_run_of_its_arguments_or_its_environment(fake: Any, proc: Path) -> None:
    gpu = fake.Gpu(processes=[(11, 2**30), (12, None), (13, 5), (99, 7), (14, 1), (15, 2), (16, 3)])
    (seen,) = Reader(fake.Nvml(gpu), proc=proc).sample().gpus
    assert seen.processes == [
        Process(pid=11, run="flywheel-1", memory_bytes=2**30),
        Process(pid=12, run="sweep-2", memory_bytes=None),
        Process(pid=13, run="", memory_bytes=5),
        Process(pid=99, run="", memory_bytes=7),
        Process(pid=14, run="align-3", memory_bytes=1),
        Process(pid=15, run="", memory_bytes=2),  # another program's --run
        Process(pid=16, run="", memory_bytes=3),  # nothing that could be a run
    ]


@pytest.mark.parametrize(
    ("code", "state"),
    [
        (pynvml.NVML_ERROR_LIBRARY_NOT_FOUND, "no driver"),
        (pynvml.NVML_ERROR_DRIVER_NOT_LOADED, "no driver"),
        (pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH, "broken"),
    ],
)
def test_each_way_of_having_no_gpu_is_told_apart(fake: Any, code: int, state: str) -> None:
    library = fake.Nvml(fake.Gpu(), init_error=code)
    reader = Reader(library)
    assert reader.sample().state == state
    assert gpus.render(reader.sample()).startswith(f"{state}: ")
    library.init_error = None
    assert reader.sample().state == "ready", "a driver may come back"


def test_a_driver_without_a_gpu_is_no_gpu(fake: Any) -> None:
    assert Reader(fake.Nvml()).sample().state == "no gpu"


def test_the_real_library_gives_a_true_state_of_this_machine() -> None:
    reader = Reader()
    sample = reader.sample()
    reader.close()
    if ctypes.util.find_library("nvidia-ml") or any(Path("/usr/lib").rglob("libnvidia-ml.so.1")):
        assert sample.state in ("ready", "no gpu", "no driver", "broken")
    else:
        assert (sample.state, sample.detail) == ("no driver", "NVML Shared Library Not Found")
    assert all(0 <= gpu.readings.get("utilization_ratio", 0) <= 1 for gpu in sample.gpus)


def test_the_table_shows_a_dash_for_what_is_not_there(fake: Any, proc: Path) -> None:
    full = fake.Gpu(processes=[(11, 2**30)])
    poor = fake.Gpu(uuid="GPU-1", broken={"power": 3, "ecc": 3, "throttle": 3, "utilization": 3})
    shown = gpus.render(Reader(fake.Nvml(full, poor), proc=proc).sample()).splitlines()
    assert shown[0] == "driver 575.57.08"
    assert " ".join(shown[2].split()) == "0 NVIDIA Fake 80GB 37 % 20/80 412/700 61 1980 1 sw_power_cap"
    assert " ".join(shown[3].split()) == "1 NVIDIA Fake 80GB - 20/80 -/700 61 1980 - -"
    assert shown[4] == "  gpu 0  pid 11  1.0 GiB  flywheel-1"
