"""What figures were measured on: without it they mean nothing."""

import importlib.metadata
import os
import platform
import subprocess
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.settings import Settings
from blocks import active_backend

_PACKAGES = ("bimamba-suite", "torch", "numba", "numpy", "timm", "pillow", "mambapy")


def environment(settings: Settings) -> dict[str, Any]:
    """Machine, versions, threads, date, revision of the code, and the backend that served."""
    backend, why = active_backend(settings.device)
    return {
        "machine": {
            "processor": _processor(),
            "cores": _usable_cores(),
            "system": platform.system(),
            # Processes that wanted the cores in the minute before: above 0, others were at work.
            "load_before": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
            **_gpu(settings.device),
        },
        "versions": {"python": platform.python_version()} | {p: _version(p) for p in _PACKAGES},
        "threads": torch.get_num_threads(),
        "date": time.strftime("%Y-%m-%d %H:%M:%S %z"),
        "git": _revision(),
        "backend": {"name": backend, "why": why},
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor()


def _usable_cores() -> int:
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def _gpu(device: str) -> dict[str, str]:
    if torch.device(device).type != "cuda":
        return {}
    return {"gpu": torch.cuda.get_device_name(device), "cuda": str(torch.version.cuda)}


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _revision() -> str | None:
    """Commit of the checkout, marked when files in it differ; None outside one."""
    here = Path(__file__).parent
    commands = (["rev-parse", "--short=10", "HEAD"], ["status", "--porcelain", "-uno"])
    try:
        commit, changes = (
            subprocess.run(
                ["git", *words], cwd=here, capture_output=True, text=True, check=True, timeout=20
            ).stdout.strip()
            for words in commands
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return f"{commit} with changes" if changes else commit
