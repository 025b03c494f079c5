"""One training run as a process of its own: its threads, its GPUs, its log, and how it is stopped.

Each runs `bimamba fit` on a file that holds its whole configuration, in a process group of its own:
a Ctrl-C at the terminal reaches only the ablation, which then asks its runs to stop, once.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import FrameType
from typing import IO, Any, Self

import yaml

from bimamba.ablation.plan import PlannedRun
from bimamba.ablation.state import ATTEMPT, Standing, look
from bimamba.doctor import available_cpus
from bimamba.interrupts import LIFELINE
from blocks.files import write_text

# Settings of this process that a run must find for itself.
_PRIVATE = ("PL_GLOBAL_SEED", "BIMAMBA_RUN_DIRECTORY", "LOCAL_RANK", "RANK", "WORLD_SIZE")
_FIT = (sys.executable, "-m", "bimamba", "fit")
# A first request can come while a library is being imported and get lost; so it is repeated.
_PATIENCE = (10.0, 10.0)


@dataclass
class Worker:
    """A run at work.

    Args:
        run: What runs.
        slot: Its place among those that run at once.
        process: The process.
        log: Its log, open.
        began: When it started, in seconds of the monotonic clock.
    """

    run: PlannedRun
    slot: int
    process: subprocess.Popen[bytes]
    log: IO[bytes]
    began: float

    @classmethod
    def start(cls, run: PlannedRun, slot: int, parallel: int) -> "Worker":
        """Starts or continues a run.

        Args:
            run: What to run.
            slot: Its place, from 0.
            parallel: Processes at once, which share the cores and GPUs.
        """
        text = yaml.safe_dump(dict(run.config), sort_keys=False, allow_unicode=True)
        write_text(run.config_file, f"# {run.name}: one run of several, complete.\n{text}")
        run.log.parent.mkdir(parents=True, exist_ok=True)
        log = run.log.open("ab")
        log.write(f"{ATTEMPT}{time.strftime('%Y-%m-%d %H:%M:%S')} {run.name}\n".encode())
        log.flush()
        process = subprocess.Popen(
            [*_FIT, "--config", str(run.config_file)],
            stdin=subprocess.PIPE,  # Nothing is written: it ends when this process does.
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment(slot, parallel) | {LIFELINE: "1"},
            start_new_session=True,
        )
        return cls(run, slot, process, log, time.monotonic())

    def ended(self) -> int | None:
        """Exit status, None while it works."""
        status = self.process.poll()
        if status is not None:
            self.log.close()
            if self.process.stdin is not None:
                self.process.stdin.close()
        return status

    def outcome(self, status: int, *, stopped: bool) -> Standing:
        """What became of the run; the log of one that died without a word gets one.

        Args:
            status: From `ended`.
            stopped: Whether it was asked to end.
        """
        standing = look(self.run, ended=True)
        if stopped or status == 0 or standing.state in ("failed", "diverged"):
            return standing
        how = f"signal {-status}" if status < 0 else f"exit status {status}"
        more = ", for want of memory perhaps" if status == -9 else ""
        with self.run.log.open("a", encoding="utf-8") as log:
            log.write(f"\nbimamba: error\nfound: it ended with {how}{more}\n")
        return look(self.run, ended=True)

    def interrupt(self) -> None:
        """Asks the run to end as Ctrl-C would: it keeps a checkpoint."""
        self.signal(signal.SIGINT)

    def signal(self, number: int) -> None:
        """Sends a signal to the run and the processes that it started itself."""
        try:
            if hasattr(os, "killpg"):
                os.killpg(self.process.pid, number)
            else:
                self.process.terminate()
        except ProcessLookupError:
            return


class Presses:
    """Counts Ctrl-C, a closed terminal and a scheduler's notice, for the length of a block."""

    def __init__(self) -> None:
        self.count = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        names = ("SIGINT", "SIGTERM", "SIGHUP")
        numbers = [getattr(signal, name) for name in names if hasattr(signal, name)]
        self._before = {number: signal.signal(number, self._press) for number in numbers}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _press(self, number: int, frame: FrameType | None) -> None:
        self.count += 1


def stop(workers: Sequence[Worker], hurry: Callable[[], bool]) -> None:
    """Asks runs to stop as Ctrl-C would, again if need be, and ends those that do not.

    Args:
        workers: Those at work.
        hurry: Whether to wait no longer.
    """

    def wait() -> bool:
        return any(worker.ended() is None for worker in workers) and not hurry()

    for patience in _PATIENCE:
        for worker in workers:
            if worker.ended() is None:
                worker.interrupt()
        deadline = time.monotonic() + patience
        while wait() and time.monotonic() < deadline:
            time.sleep(0.05)
    for worker in workers:
        if worker.ended() is None:
            worker.signal(getattr(signal, "SIGKILL", signal.SIGTERM))
            worker.process.wait()
            worker.ended()


def environment(slot: int, parallel: int) -> dict[str, str]:
    """Environment of a run: a fair share of cores, and of GPUs where several run at once.

    Args:
        slot: Place among those at once, from 0.
        parallel: How many run at once.
    """
    own = {name: value for name, value in os.environ.items() if name not in _PRIVATE}
    # Words in the log come as they are said, not when a buffer is full.
    own["PYTHONUNBUFFERED"] = "1"
    own.setdefault("OMP_NUM_THREADS", str(max(available_cpus() // parallel, 1)))
    if parallel > 1 and (gpus := _visible_gpus()):
        own["CUDA_VISIBLE_DEVICES"] = ",".join(gpu_share(gpus, slot, parallel))
    return own


def gpu_share(gpus: Sequence[str], slot: int, parallel: int) -> list[str]:
    """GPUs of one of several processes: equal shares, or one in turn where there are too few.

    Args:
        gpus: Names of all, as CUDA_VISIBLE_DEVICES spells them.
        slot: Place of the process, from 0.
        parallel: Number of processes.
    """
    share = len(gpus) // parallel
    return list(gpus[slot * share : (slot + 1) * share]) if share else [gpus[slot % len(gpus)]]


def _visible_gpus() -> list[str]:
    import torch

    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [name for name in named.split(",") if name.strip()]
    return [str(i) for i in range(torch.cuda.device_count())]
