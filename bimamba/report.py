"""`bimamba report RUN ...`: the page of a run, or one page of many with what sets them apart."""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

from bimamba.page import write_page
from blocks.files import write_text

_DESCRIPTION = """\
One run: writes page.html into its directory. Several runs, an ablation, a sweep, or a folder with
such: writes report.html and report.md. All are made from the files of run directories alone; a page
holds its pictures, loads nothing, and needs no network to be read. Runs of different workloads,
data or protocols have sections of their own, and what failed is named.
"""
_EXAMPLES = """\
examples:
  bimamba report runs/demo_vision/20261121-101500
  bimamba report runs/directions
  bimamba report 'runs/demo_*' --output reports/demos --title "Every demo"
"""


def main(words: Sequence[str]) -> int:
    """Runs the verb.

    Args:
        words: What follows `bimamba report`.

    Returns:
        Exit status.

    Raises:
        SuiteError: No such runs, or none with results.
    """
    parser = argparse.ArgumentParser(
        prog="bimamba report",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "runs", nargs="+", metavar="RUN", help="a run, a folder with runs below it, or a pattern"
    )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="DIR",
        help="folder for report.html and report.md; by default that of the one experiment, "
        "else runs/reports/TIME",
    )
    parser.add_argument("--title", metavar="TEXT", help="title; by default what was named")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    given = parser.parse_args(words)
    from bimamba.comparison.selection import find_directories

    directories = find_directories(given.runs)
    if len(directories) == 1 and given.output is None:
        print(write_page(directories[0]))
        return 0
    for path in write_report(given.runs, directories, given.output, given.title):
        print(path)
    return 0


def write_report(
    words: Sequence[str], directories: Sequence[Path], output: Path | None, title: str | None
) -> list[Path]:
    """Writes `report.html` and `report.md`.

    Args:
        words: What was named.
        directories: The runs that it means.
        output: Folder to write to; None for that of the one experiment, else a new one.
        title: Of the report; None for what was named.

    Raises:
        SuiteError: No run has a result.
    """
    from bimamba.reporting.contents import gather
    from bimamba.reporting.markdown import report_markdown
    from bimamba.reporting.page import report_page

    contents = gather(words)
    parents = {directory.resolve().parent for directory in directories}
    if output is None:
        one = len(parents) == 1
        output = next(iter(parents)) if one else Path("runs", "reports", _now())
    title = title or ", ".join(Path(word).name for word in words)
    output.mkdir(parents=True, exist_ok=True)
    files = [output / "report.html", output / "report.md"]
    write_text(files[0], report_page(contents, title, output))
    write_text(files[1], report_markdown(contents, title))
    return files


def _now() -> str:
    return time.strftime("%Y%m%d-%H%M%S")
