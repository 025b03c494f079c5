"""`bimamba doctor`: is this machine ready, and what would the suite use on it?

Must not import lightning, timm, torchmetrics or torchvision: a bad torch pair crashes them, and
that is the first thing to find out.
"""

import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from bimamba.findings import Finding, count, show, size
from bimamba.folders import free_space, short, used_space, why_not_writable
from bimamba.packages import look_at_packages
from blocks.errors import SuiteError

if TYPE_CHECKING:
    import torch

HELP = """\
usage: bimamba doctor

Looks at versions, the torch and torchvision pair, devices, the scan backends of each and why they
are (not) used, optional CUDA packages, threads, cache and disk. Exit status 1 if something keeps
the suite from working; warnings leave it at 0.
"""
_LITTLE_SPACE = 5e9
# Docker gives 64 MB, on which DataLoader workers die with "bus error".
_LITTLE_SHARED_MEMORY = 1e9


def main(words: Sequence[str] = ()) -> int:
    """Inspects and prints.

    Args:
        words: None but --help.

    Returns:
        Exit status: 1 if something is broken, else 0.
    """
    if set(words) & {"-h", "--help"}:
        print(HELP, end="")
        return 0
    if others := [word for word in words if word != "--debug"]:
        raise SuiteError(
            expected="no further words",
            found=" ".join(others),
            where="bimamba doctor",
            cure="use bimamba check --config FILE.yaml to look at a configuration",
        )
    console = Console(highlight=False)
    findings = inspect_environment()
    for finding in findings:
        show(finding, console)
    broken, warnings = count(findings, "broken"), count(findings, "warning")
    console.print(f"\n{broken} broken, {warnings} to look at" if broken + warnings else "\nhealthy")
    return int(broken > 0)


def inspect_environment() -> list[Finding]:
    """All findings, those that others depend on first."""
    findings = look_at_packages()
    if not any(f.topic == "torch" and f.state == "broken" for f in findings):
        findings += [*devices(), *scan(), threads(), cache()]
    return [*findings, shared_memory(), disk(Path.cwd()), wandb_mode()]


def devices() -> list[Finding]:
    """Accelerators, each tried with one small operation."""
    import torch

    found = []
    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        device = torch.device("cuda", index)
        properties = torch.cuda.get_device_properties(device)
        text = f"{properties.name}, {size(properties.total_memory)}, CUDA {torch.version.cuda}"
        found.append(_try_device(device, text))
    if torch.backends.mps.is_available():
        found.append(_try_device(torch.device("mps"), "Apple GPU"))
    if not found and shutil.which("nvidia-smi"):
        text = f"an NVIDIA driver, but torch {torch.__version__} sees no CUDA device"
        cure = "run nvidia-smi; if it lists a device, install a CUDA build of torch for its driver"
        found.append(Finding("devices", text, "warning", cure))
    return found or [Finding("devices", "cpu only")]


def scan() -> list[Finding]:
    """Backends of the selective scan on each device, the one that serves it first."""
    import torch

    try:
        from blocks import scan_backends
    except Exception as error:
        text = f"does not import: {type(error).__name__}: {error}"
        cure = "pip install --upgrade -e . -c constraints.txt"
        return [Finding("selective scan", text, "broken", cure)]
    kinds = ["cpu"]
    kinds += ["cuda"] if torch.cuda.is_available() else []
    kinds += ["mps"] if torch.backends.mps.is_available() else []
    findings = []
    for kind in kinds:
        backends = scan_backends(kind)
        chosen = next(name for name, usable, _ in backends if usable)
        lines = [f"{name}: {'' if usable else 'no, '}{why}" for name, usable, why in backends]
        text = "\n".join([f"{chosen} serves {kind}", *lines])
        slow = kind == "cuda" and chosen == "reference"
        cure = "mend what keeps the others away; most often: pip install triton" if slow else ""
        findings.append(Finding(f"scan on {kind}", text, "warning" if slow else "good", cure))
    return findings


def threads() -> Finding:
    """Threads of torch against the CPUs that this process may use."""
    import torch

    threads, cpus = torch.get_num_threads(), available_cpus()
    text = f"{threads} for {cpus} CPUs"
    if threads > cpus:
        cure = f"export OMP_NUM_THREADS={cpus}"
        return Finding("threads", f"{text}: they get in each other's way", "warning", cure)
    return Finding("threads", text)


def available_cpus(quota_file: Path = Path("/sys/fs/cgroup/cpu.max")) -> int:
    """CPUs this process may use: its affinity, or a container's quota where that is smaller.

    Args:
        quota_file: Linux's "<microseconds | max> <per microseconds>".
    """
    affinity = getattr(os, "sched_getaffinity", None)
    cpus = len(affinity(0)) if affinity else os.cpu_count() or 1
    try:
        quota, period = quota_file.read_text().split()
        return min(cpus, max(int(quota) // int(period), 1))
    except (OSError, ValueError):  # No such file, or no limit.
        return cpus


def shared_memory(folder: Path = Path("/dev/shm")) -> Finding:
    """Room in which DataLoader workers hand over batches."""
    if not folder.is_dir():
        return Finding("shared memory", "managed by the system")
    free = shutil.disk_usage(folder).free
    if free < _LITTLE_SHARED_MEMORY:
        cure = "start the container with --shm-size 8g, or use data.init_args.num_workers 0"
        return Finding("shared memory", f"{size(free)} free in {folder}", "warning", cure)
    return Finding("shared memory", f"{size(free)} free")


def cache() -> Finding:
    """The folder of embedded data: writable, and how large."""
    from blocks.files import cache_dir

    folder = cache_dir()
    if why := why_not_writable(folder):
        cure = "set BIMAMBA_CACHE to a folder you may write to"
        return Finding("cache", f"cannot write: {why}", "broken", cure)
    return Finding("cache", f"{short(folder)}, {size(used_space(folder))}, writable")


def disk(folder: Path) -> Finding:
    """Free space for runs and temporary files."""
    places = {"here": folder, "for temporary files": Path(tempfile.gettempdir())}
    free = {name: free_space(path) for name, path in places.items()}
    text = ", ".join(f"{size(amount)} free {name}" for name, amount in free.items())
    if min(free.values()) < _LITTLE_SPACE:
        cure = "free some space, or send runs elsewhere with --output DIR (temporary files: TMPDIR)"
        return Finding("disk", text, "warning", cure)
    return Finding("disk", text)


def wandb_mode() -> Finding:
    """Where Weights & Biases would send a run that logs to it."""
    mode, known = os.environ.get("WANDB_MODE"), ("online", "offline", "disabled", "shared")
    if mode is None:
        return Finding("wandb", "WANDB_MODE not set: a WandbLogger goes online unless told not to")
    if mode not in known:
        cure = f"export WANDB_MODE={known[1]}, or one of {', '.join(known)}"
        return Finding("wandb", f"WANDB_MODE={mode} means nothing", "warning", cure)
    return Finding("wandb", f"WANDB_MODE={mode}")


def _try_device(device: "torch.device", text: str) -> Finding:
    import torch

    try:
        torch.zeros(2, device=device).add(1).sum().item()
    except Exception as error:
        cure = "install a torch build for this device and driver; restart after a driver update"
        return Finding(str(device), f"{text}: {str(error).splitlines()[0]}", "broken", cure)
    return Finding(str(device), text)
