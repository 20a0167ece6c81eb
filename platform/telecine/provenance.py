"""Which code on which machine made something: recorded with every commit and every MLflow run, part of no key."""

import functools
import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from telecine.monitor import nvml

_PACKAGES = ("telecine", "torch", "deepspeed", "diffusers", "av", "numpy", "pyarrow", "mlflow", "apache-airflow")


@functools.cache
def git_commit() -> str:
    """Commit of the checkout that this package runs from, with ``-dirty`` for local changes; empty outside one."""
    if baked := os.environ.get("TELECINE_GIT_COMMIT"):
        return baked
    folder = Path(__file__).parent
    try:
        head = _git("rev-parse", "HEAD", cwd=folder)
        dirty = _git("status", "--porcelain", "--untracked-files=no", cwd=folder)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return f"{head}-dirty" if dirty else head


def packages() -> dict[str, str]:
    """Versions of the installed packages that decide results."""
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


@functools.cache
def hardware() -> dict[str, str]:
    """Processor, cores, memory and GPUs of this machine."""
    pages = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cpu": _cpu_model(),
        "cpu_count": str(os.cpu_count() or 1),
        "memory_gib": f"{pages / 2**30:.1f}",
        "gpu": ", ".join(gpu_names()) or "none",
        "world_size": "1",
    }


def gpu_names() -> list[str]:
    """Names of the NVIDIA devices that NVML sees; none without the library or a driver."""
    reader = nvml.Reader()
    names = [gpu.name for gpu in reader.sample().gpus]
    reader.close()
    return names


def record() -> dict[str, object]:
    """All of the above as one JSON value."""
    return {
        "git_commit": git_commit(),
        "python": platform.python_version(),
        "packages": packages(),
        "hardware": hardware(),
        "host": platform.node(),
    }


def _git(*arguments: str, cwd: Path) -> str:
    done = subprocess.run(["git", *arguments], cwd=cwd, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def _cpu_model() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
