"""Energy of a run, where the machine tells: counters of NVIDIA, and of Intel and AMD processors.

The processor's counter (RAPL) lies in a file that on many systems only root may read, and counts
what everything on the machine uses; so does that of a GPU. Where nothing can be read there is no
number, rather than an estimate.
"""

from pathlib import Path
from typing import Any

import torch

_RAPL = Path("/sys/class/powercap")


class EnergyCounter:
    """Joules since it was made; `update` must be called now and then, for counters wrap.

    Args:
        device: Where the run computes.
        folder: Where the processor's counters lie.
    """

    def __init__(self, device: torch.device, folder: Path = _RAPL) -> None:
        self._zones = _packages(folder)
        self._last = {zone: _number(zone / "energy_uj") for zone in self._zones}
        self._joules = 0.0
        self._gpu = _gpu_handle(device)
        self._gpu_start = _gpu_joules(self._gpu)

    @property
    def source(self) -> str:
        """What is counted; empty where nothing is."""
        parts = [f"{len(self._zones)} processor packages (RAPL)"] if self._zones else []
        parts += ["1 GPU (NVML)"] if self._gpu is not None else []
        return " and ".join(parts)

    def update(self) -> float | None:
        """Joules so far; None where nothing is counted."""
        for zone in self._zones:
            now, before = _number(zone / "energy_uj"), self._last[zone]
            if now is None or before is None:
                continue
            wrap = _number(zone / "max_energy_range_uj") or 0.0
            self._joules += (now - before + (wrap if now < before else 0.0)) / 1e6
            self._last[zone] = now
        if not self.source:
            return None
        return self._joules + _gpu_joules(self._gpu) - self._gpu_start


def _packages(folder: Path) -> list[Path]:
    """Whole processors: their parts, `intel-rapl:0:1`, are counted in them."""
    zones = [zone for zone in sorted(folder.glob("*-rapl:*")) if zone.name.count(":") == 1]
    return [zone for zone in zones if _number(zone / "energy_uj") is not None]


def _number(path: Path) -> float | None:
    try:
        return float(path.read_text())
    except (OSError, ValueError):
        return None


def _gpu_handle(device: torch.device) -> Any:
    """NVML's handle of the GPU; None without a GPU, the package pynvml or a counter."""
    if device.type != "cuda":
        return None
    try:
        import pynvml

        pynvml.nvmlInit()
        uuid = str(torch.cuda.get_device_properties(device).uuid)
        handle = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}".encode())
        pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)
    except Exception:  # NVML's errors are its own, and an absent number harms no run.
        return None
    return handle


def _gpu_joules(handle: Any) -> float:
    if handle is None:
        return 0.0
    import pynvml

    return float(pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)) / 1e3
