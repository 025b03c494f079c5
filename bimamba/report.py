"""`bimamba report RUN_DIRECTORY ...`: writes the page of each run and says where it is."""

import argparse
from collections.abc import Sequence

from bimamba.page import write_page


def main(words: Sequence[str]) -> int:
    """Runs the verb.

    Args:
        words: What follows `bimamba report`.

    Returns:
        Exit status.
    """
    parser = argparse.ArgumentParser(
        prog="bimamba report",
        description="Writes page.html into run directories, from their files alone. It holds "
        "results, curves, pictures, configuration and cost, and needs no network to be read.",
    )
    parser.add_argument("run_directory", nargs="+", help="runs/EXPERIMENT/RUN")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    for directory in parser.parse_args(words).run_directory:
        print(write_page(directory))
    return 0
