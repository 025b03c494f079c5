"""How far a planned run is, from the files of its directory and nothing else."""

import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from bimamba.ablation.plan import PlannedRun, config_settings
from bimamba.run_files import RunFiles, read_run
from blocks.errors import SuiteError

fcntl: Any = None
with suppress(ImportError):
    import fcntl

State = Literal["waiting", "running", "cut", "failed", "diverged", "finished"]
# A line that begins so stands in the log before what each attempt says.
ATTEMPT = "--- "
# Not to be had from another attempt: the same configuration and seed would do the same again.
DONE = ("finished", "diverged")


@dataclass(frozen=True)
class Standing:
    """Where a run stands.

    Args:
        state: `waiting` has not begun, `running` has a process at work in its directory, `cut`
            ended early and can go on, `failed` ended with an error, `diverged` has a monitored
            metric or loss that is not finite, `finished` has results.
        reason: Why it failed or diverged.
        files: What it has written; None before its first files.
    """

    state: State
    reason: str = ""
    files: RunFiles | None = None

    @property
    def value(self) -> float | None:
        """The monitored metric, the best so far."""
        return self.files.metrics("best").get(self.files.monitor) if self.files else None

    @property
    def epochs(self) -> int:
        """Epochs behind it."""
        return int(self.files.number("epochs") or 0) if self.files else 0


def look(run: PlannedRun, *, whole: bool = False, ended: bool = False) -> Standing:
    """Reads where a run stands.

    Args:
        run: The run.
        whole: Read its configuration and curves too, not only its summary.
        ended: Its process has ended, even if one that it left behind holds the directory yet.
    """
    files = _read(run.directory, whole)
    if not ended and in_use(run.directory):
        return Standing("running", files=files)
    if files is None:
        # A run that dies before its first files, of a missing data set say, leaves its words.
        reason = last_words(run.log)
        return Standing("failed" if reason else "waiting", reason)
    if files.status == "finished":
        bad = _not_finite(files)
        return Standing("diverged" if bad else "finished", bad, files)
    if files.status == "failed":
        reason = last_words(run.log) or "see its log"
        return Standing("diverged" if "non-finite" in reason else "failed", reason, files)
    # A run that the system ended writes nothing, but the ablation that saw it noted it in the log.
    reason = "" if files.status == "interrupted" else last_words(run.log)
    return Standing("failed" if reason else "cut", reason, files)


def foreign_settings(
    run: PlannedRun, read: Callable[[Mapping[str, Any]], Mapping[str, Any]]
) -> list[str]:
    """How the configuration of a run that exists differs from the planned one, a line per key.

    An option that came into the suite after the run was made is no difference at its default.

    Args:
        run: The run.
        read: The plan's, which knows the defaults.
    """
    files = _read(run.directory, whole=True)
    if files is None or not files.config:
        return []
    if differences := _differences(files.config, run):
        with suppress(Exception):  # Whatever an old configuration breaks, it stays different.
            differences = _differences(read(files.config), run)
    return differences


def _differences(config: Mapping[str, Any], run: PlannedRun) -> list[str]:
    made, planned = config_settings(config), run.settings()
    return [
        f"{key}: {made.get(key, 'absent')} in the run, {planned.get(key, 'absent')} in the plan"
        for key in sorted(made.keys() | planned.keys())
        if made.get(key) != planned.get(key)
    ]


def in_use(directory: Path) -> bool:
    """Whether a process is at work in a run directory. Where there are no locks nobody seems to be.

    Args:
        directory: The run directory; it need not exist.
    """
    if fcntl is None or not directory.is_dir():
        return False
    handle = os.open(directory, os.O_RDONLY)
    try:
        # Shared, so that two that only ask do not take each other for somebody at work.
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(handle)
    return False


def last_words(log: Path) -> str:
    """Why the last attempt at a run ended, in a line; empty if it does not tell.

    Args:
        log: What the run printed.
    """
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-200:]
    except OSError:
        return ""
    begun = [i for i, line in enumerate(lines) if line.startswith(ATTEMPT)]
    lines = lines[begun[-1] :] if begun else lines
    if "bimamba: error" not in lines:
        return ""
    after = lines[len(lines) - lines[::-1].index("bimamba: error") :]
    found = [line for line in after if line.startswith("found: ")]
    text = found[0].removeprefix("found: ") if found else next(iter(after), "")
    return "" if text.startswith(("interrupted", "terminated")) else text


def _read(directory: Path, whole: bool) -> RunFiles | None:
    try:
        return read_run(directory, summary_only=not whole)
    except SuiteError:
        return None


def _not_finite(files: RunFiles) -> str:
    """Which number of a finished run is none. A null in summary.json is what was not finite."""
    best, last = files.metrics("best"), files.metrics("last")
    watched = [n for n in last if n == files.monitor or n.endswith("/loss")]
    bad = [name for name in watched if last[name] is None]
    if not bad and files.monitor in last and best.get(files.monitor) is None:
        bad = [files.monitor]
    return f"{', '.join(bad)} is not finite" if bad else ""
