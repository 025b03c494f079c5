"""`bimamba check`: what can go wrong before the first epoch, found in a minute.

Steps run in order and print a line each. One that builds on a failed one is skipped, not passed;
the others still run, so a single call finds as much as it can.
"""

import os
import pkgutil
import sys
import tempfile
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from rich.console import Console

from bimamba.findings import Finding, count, show
from bimamba.preflight.case import Case, listen
from blocks.errors import SuiteError

HELP = """\
usage: bimamba check --config FILE.yaml [--config MORE.yaml] [--key value ...]

Takes the words of `bimamba fit` (see bimamba fit --help) and tries what they describe: environment,
configuration, output folder, data, network, weights to start from, learning rate, and one batch
forward, backward and in validation, on one device. Leaves no files. Exit status 1 if a step fails.
  --debug      show the traceback of each failure
"""


class Step(NamedTuple):
    """One line of the report.

    Args:
        name: What is tried.
        function: `module:function` in `bimamba.preflight`, imported when its turn comes, for a
            damaged environment crashes most of them. Takes the `Case`; returns what to say when
            all is well and raises otherwise.
        needs: Steps without which it makes no sense.
    """

    name: str
    function: str
    needs: tuple[str, ...] = ()


STEPS = (
    Step("environment", "environment:environment"),
    Step("configuration", "configuration:configuration", ("environment",)),
    Step("output", "configuration:output", ("configuration",)),
    Step("data", "data:data", ("configuration",)),
    Step("samples", "data:samples", ("data",)),
    Step("network", "network:network", ("configuration",)),
    Step("data and network", "network:agreement", ("data", "network")),
    Step("initial weights", "network:weights", ("data and network",)),
    Step("learning rate", "network:learning_rate", ("data", "network")),
    Step(
        "training batch",
        "rehearsal:training_batch",
        ("samples", "initial weights", "learning rate"),
    ),
    Step("validation", "rehearsal:validation", ("training batch",)),
)


def main(words: Sequence[str]) -> int:
    """Checks a configuration and prints what it finds.

    Args:
        words: What one would give to `bimamba fit`.

    Returns:
        Exit status: 0 if every step passed, else 1.
    """
    if set(words) & {"-h", "--help"}:
        print(HELP, end="")
        return 0
    console = Console(highlight=False, file=sys.stdout)
    with tempfile.TemporaryDirectory(prefix="bimamba-check-") as scratch:
        case = Case(list(words), Path(scratch))
        findings = list(_walk(case, console))
    passed, total = count(findings, "good"), len(findings)
    noted = f", {case.noted} to look at" if case.noted else ""
    console.print(f"\n{passed}/{total} passed{noted}")
    return int(passed < total)


def _walk(case: Case, console: Console) -> Iterator[Finding]:
    blame: dict[str, str] = {}  # The failure behind each step that did not pass.
    for step in STEPS:
        cause = next((blame[need] for need in step.needs if need in blame), None)
        if cause is None:
            with console.status(f"{step.name} ..."):
                finding = _try(step, case)
        else:
            finding = Finding(step.name, f"skipped: it builds on {cause}", "skipped")
        if finding.state != "good":
            blame[step.name] = cause or step.name
        show(finding, console)
        for text in case.take_warnings():
            show(Finding("", text, "warning"), console)
        yield finding


def _try(step: Step, case: Case) -> Finding:
    try:
        function = pkgutil.resolve_name(f"bimamba.preflight.{step.function}")
        with listen(case):
            return Finding(step.name, function(case))
    except Exception as error:
        failure = error if isinstance(error, SuiteError) else _explain(step, error)
        text = f"failed\n{failure}"
        if "--debug" in case.words:
            text += f"\n{traceback.format_exc()}"
        return Finding(step.name, text, "broken")


def _explain(step: Step, error: Exception) -> SuiteError:
    """Four parts for an exception that nobody foresaw."""
    memory = type(error).__name__ == "OutOfMemoryError"
    return SuiteError(
        expected="a batch that fits the device" if memory else f"{step.name} without an error",
        found=f"{type(error).__name__}: {error}",
        where=_place(error),
        cure="divide data.init_args.batch_size and multiply trainer.accumulate_grad_batches by the "
        "same number"
        if memory
        else "mend what the message names; --debug shows the traceback",
    )


def _place(error: Exception) -> str:
    """The innermost line that is neither a library's nor the check's own, else the innermost."""
    frames = traceback.extract_tb(error.__traceback__)
    command = str(Path(__file__).parent)
    others = [f for f in frames if "site-packages" not in f.filename]
    others = [f for f in others if not f.filename.startswith(command)]
    frame = (others or frames)[-1]
    name = frame.filename.rpartition("site-packages" + os.sep)[2]
    return f"{name}, line {frame.lineno}, in {frame.name}"
