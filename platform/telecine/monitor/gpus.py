"""``telecine gpu``: one line a GPU, one line a process on it."""

import dataclasses
from typing import Any

from telecine.monitor.nvml import READY, STATES, Gpu, Process, Sample


def document(sample: Sample) -> dict[str, Any]:
    """The sample as one JSON value; readings that a GPU does not give are not in it."""
    return {**dataclasses.asdict(sample), "meaning": STATES[sample.state]}


def render(sample: Sample) -> str:
    """The sample as a person reads it; a dash stands for what a GPU does not tell."""
    if sample.state != READY:
        detail = f" ({sample.detail})" if sample.detail else ""
        return f"{sample.state}: {STATES[sample.state]}{detail}"
    header = ["gpu", "name", "kernels", "memory GiB", "power W", "temp C", "SM MHz", "ECC", "slowed by"]
    table = [header, *(_row(gpu) for gpu in sample.gpus)]
    widths = [max(len(row[column]) for row in table) for column in range(len(header))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table]
    processes = [_process(gpu, process) for gpu in sample.gpus for process in gpu.processes]
    note = "kernels: share of time in which any kernel ran; a single busy SM reads 100 %"
    return "\n".join([f"driver {sample.driver}", *lines, *(processes or ["no process on any GPU"]), note])


def _row(gpu: Gpu) -> list[str]:
    slowed = ", ".join(reason for reason, active in gpu.throttle.items() if active) if gpu.throttle else "-"
    return [
        str(gpu.index),
        gpu.name,
        _shown(gpu, "utilization_ratio", 100, " %"),
        _of(gpu, "memory_used_bytes", "memory_total_bytes", 2**30),
        _of(gpu, "power_watts", "power_limit_watts", 1),
        _shown(gpu, "temperature_celsius", 1),
        _shown(gpu, "sm_clock_hertz", 1e-6),
        _shown(gpu, "ecc_uncorrected_errors_total", 1),
        slowed or "nothing",
    ]


def _shown(gpu: Gpu, reading: str, factor: float, unit: str = "") -> str:
    return f"{gpu.readings[reading] * factor:.0f}{unit}" if reading in gpu.readings else "-"


def _of(gpu: Gpu, reading: str, limit: str, divisor: float) -> str:
    return f"{_shown(gpu, reading, 1 / divisor)}/{_shown(gpu, limit, 1 / divisor)}"


def _process(gpu: Gpu, process: Process) -> str:
    held = "-" if process.memory_bytes is None else f"{process.memory_bytes / 2**30:.1f} GiB"
    return f"  gpu {gpu.index}  pid {process.pid}  {held}  {process.run or 'no run of telecine'}"
