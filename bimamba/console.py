"""What the command prints around a run: Lightning's small talk out, one table of results in."""

import json
import logging
import warnings
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bimamba.formats import short

# Advertisements, and facts that the run's own lines state better.
_SMALL_TALK = ("💡", "Seed set", "TPU available", "GPU available", "Loading `train_dataloader`")
# The files that a reader may want to open; loggers have folders of their own.
_SHOWN = ("*.csv", "checkpoints/*.ckpt", "pictures/*", "*/*.html")
# Of one kind: a prediction may have a page for each of a thousand videos.
_MOST = 8


def silence_small_talk() -> None:
    """Drops Lightning's lines that tell a user of this command nothing."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        for logger in _descendants(name):
            logger.addFilter(_is_worth_reading)
    warnings.formatwarning = _plain_warning
    warnings.filterwarnings("ignore", ".*treespec, LeafSpec.*")
    warnings.filterwarnings("ignore", ".*logs directory .* exists and is not empty.*")
    # True of ordinary loaders; a TrainSampler goes on where the checkpoint left it.
    warnings.filterwarnings("ignore", ".*your dataloader is not resumable.*")
    # An evaluation needs no checkpoints of its own, and a branch has its own folder.
    warnings.filterwarnings("ignore", ".*callbacks used to create the checkpoint need.*")
    warnings.filterwarnings("ignore", ".*The dirpath has changed from.*")
    warnings.filterwarnings("ignore", ".*does not have many workers.*")
    warnings.filterwarnings("ignore", ".*smaller than the logging interval.*")


def print_results(run_directory: Path, page: Path) -> None:
    """Prints the metrics of `summary.json`, the files of the run and, last, its page.

    Args:
        run_directory: Folder of a finished run.
        page: Its page, for a browser.
    """
    console = Console(highlight=False)
    path = run_directory / "summary.json"
    if path.is_file():
        summary = json.loads(path.read_text())
        best, last = summary["metrics"]["best"], summary["metrics"]["last"]
        table = Table(title=f"{summary['experiment']}/{summary['run']}", title_justify="left")
        table.add_column("metric")
        columns = {"best": best, "last": last} if best else {"value": last}
        for name in columns:
            table.add_column(name, justify="right")
        for metric in last:
            if metric.startswith(("val", "test")):
                cells = (short(c[metric]) if metric in c else "" for c in columns.values())
                table.add_row(metric, *cells)
        if table.row_count:
            console.print(table)
        if best:
            cost = f"{summary['seconds']:.0f} s, {summary['samples_per_second']} samples/s"
            console.print(f"best at step {summary['best_step']}; {cost}")
    for pattern in _SHOWN:
        files = sorted(run_directory.glob(pattern))
        for file in files[:_MOST]:
            console.print(f"  {file}", soft_wrap=True)
        if len(files) > _MOST:
            console.print(f"  and {len(files) - _MOST} more in {files[-1].parent}", soft_wrap=True)
    console.print(f"open in a browser: {page}", soft_wrap=True)


def _descendants(name: str) -> list[logging.Logger]:
    known = [n for n in logging.root.manager.loggerDict if n.startswith(name)]
    return [logging.getLogger(n) for n in (name, *known)]


def _plain_warning(message: Warning | str, *_: object, **__: object) -> str:
    return f"warning: {message}\n"


def _is_worth_reading(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith(_SMALL_TALK)
