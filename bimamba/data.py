"""`bimamba data describe|validate|generate|convert|repair`: the data of a configuration, alone.

Finds the datamodule through the parser of `bimamba fit`, so every flag means the same, and builds
it without network and trainer: data is often prepared on machines that cannot train.
"""

import argparse
import difflib
import inspect
import json
import shutil
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from bimamba.findings import Finding, State, show
from bimamba.folders import why_not_writable
from blocks.errors import SuiteError
from datamodules.inspection import Convertible, Inspectable, Progress, Remark, Repairable

HELP = """\
usage: bimamba data ACTION --config FILE.yaml [--config MORE.yaml] [--key value ...]

Looks at the data of a configuration, without network and trainer.

  describe   facts: where the data lies and how, classes, counts, sizes
  validate   read every sample and tell what is wrong; exit status 1 if there are errors
  generate   write the embedded data set, into the cache or to a folder, and say where
  convert    write the data in a format that reads faster
  repair     write a mended copy

  --to DIR        folder to write to (convert, repair; generate: a copy)
  --form NAME     format to convert to, where the data set knows several (shards, parquet)
  --sample N      validate: read N samples of each split only
  --json          describe, validate: one JSON document instead of lines
  --debug         show the traceback of an error
"""

_STATES: dict[str, State] = {"error": "broken", "warning": "warning", "note": "skipped"}
_MOST_SHOWN = 200  # of one level; a spoilt copy may have a million of them.


def main(words: Sequence[str]) -> int:
    """Runs the verb.

    Args:
        words: What follows `bimamba data`.

    Returns:
        Exit status: 1 if validation finds errors, else 0.
    """
    if not words or set(words) & {"-h", "--help"}:
        print(HELP, end="")
        return 0
    action = words[0]
    if action not in _ACTIONS:
        near = difflib.get_close_matches(action, _ACTIONS, 1)
        raise SuiteError(
            expected=f"one of {', '.join(_ACTIONS)}",
            found=action,
            where="bimamba data ACTION",
            cure=f"did you mean {near[0]}?" if near else "see bimamba data --help",
        )
    given, rest = _parser().parse_known_args(words[1:])
    if action in {"convert", "repair"} and given.to is None:
        raise SuiteError(
            expected="a folder to write to",
            found="none",
            where=f"bimamba data {action}",
            cure="name it with --to DIR",
        )
    if given.to is not None and (why := why_not_writable(given.to)):
        raise SuiteError(
            expected="a folder to write to",
            found=why,
            where=f"--to {given.to}",
            cure="choose another folder",
        )
    if action == "generate":
        rest += ["--data.init_args.root", "null"]
    return _ACTIONS[action](_datamodule(rest), given, Console(highlight=False, file=sys.stdout))


def _describe(datamodule: Any, given: argparse.Namespace, console: Console) -> int:
    facts = _offering(datamodule, Inspectable, "describe").describe()
    if given.json:
        print(json.dumps(dict(facts), indent=2))
        return 0
    width = max(map(len, facts), default=0)
    for name, value in facts.items():
        text = f"{value:,}" if isinstance(value, int) else str(value)
        console.print(f"{name:<{width}}  {text}", soft_wrap=True, markup=False)
    return 0


def _validate(datamodule: Any, given: argparse.Namespace, console: Console) -> int:
    data = _offering(datamodule, Inspectable, "validate")
    counts: Counter[str] = Counter()
    remarks, last = [], Progress(0, 0, "")
    for remark in _watched(data.validate(_count(given.sample)), console):
        if isinstance(remark, Progress):
            last = remark
            continue
        counts[remark.level] += 1
        remarks.append(vars(remark))
        if not given.json and counts[remark.level] <= _MOST_SHOWN:
            show(_finding(remark), console)
    if given.json:
        print(json.dumps({"counts": dict(counts), "remarks": remarks}, indent=2))
        return int(counts["error"] > 0)
    for level, count in counts.items():
        if count > _MOST_SHOWN:
            console.print(f"... and {count - _MOST_SHOWN:,} more of level {level}")
    read = f"{last.done:,} {last.what} read: " if last.done else ""
    found = ", ".join(f"{counts[level]:,} {level}s" for level in _STATES)
    console.print(read + found)
    return int(counts["error"] > 0)


def _generate(datamodule: Any, given: argparse.Namespace, console: Console) -> int:
    datamodule.prepare_data()
    datamodule.setup("fit")
    root = Path(datamodule.info.root)
    if given.to is not None:
        _copy(root, given.to)
        root = given.to
    console.print(f"written: {root}", soft_wrap=True)
    return 0


def _convert(datamodule: Any, given: argparse.Namespace, console: Console) -> int:
    data = _offering(datamodule, Convertible, "convert")
    options = {} if given.form is None else {"form": _known_form(data.convert, given.form)}
    return _write(data.convert(given.to, **options), given.to, console)


def _repair(datamodule: Any, given: argparse.Namespace, console: Console) -> int:
    return _write(_offering(datamodule, Repairable, "repair").repair(given.to), given.to, console)


_ACTIONS: dict[str, Callable[[Any, argparse.Namespace, Console], int]] = {
    "describe": _describe,
    "validate": _validate,
    "generate": _generate,
    "convert": _convert,
    "repair": _repair,
}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="bimamba data", add_help=False, allow_abbrev=False)
    parser.add_argument("--to", type=Path)
    parser.add_argument("--form")
    parser.add_argument("--sample")
    parser.add_argument("--json", action="store_true")
    return parser


def _count(text: str | None) -> int | None:
    if text is None:
        return None
    if not text.isdecimal() or int(text) < 1:
        raise SuiteError(
            expected="a whole number from 1",
            found=text,
            where="--sample",
            cure="leave it out to read every sample",
        )
    return int(text)


def _datamodule(words: Sequence[str]) -> Any:
    """The datamodule that `fit` would build from the same words."""
    from lightning.pytorch import LightningDataModule

    from bimamba.cli import SuiteCLI, run
    from bimamba.parser import SuiteParser

    class DataOnly(SuiteCLI):
        """The command that builds its datamodule and stops there."""

        execute = False

        def before_instantiate_classes(self) -> None:
            """No run directory, no checkpoint."""

        def instantiate_classes(self) -> None:
            """Builds the datamodule and nothing else."""
            config = self.config[self.subcommand]
            parser = SuiteParser()
            parser.add_subclass_arguments(LightningDataModule, "data", required=True)
            only = parser.parse_object({"data": config.data.as_dict()})
            self.datamodule = parser.instantiate(only).data

    # Lightning takes the shell's words for a second set of the ones it is given.
    warnings.filterwarnings("ignore", "LightningCLI's args parameter")
    return run(["fit", *words], DataOnly).datamodule


def _offering(datamodule: Any, protocol: Any, verb: str) -> Any:
    """The datamodule, if it has what a verb needs.

    Raises:
        SuiteError: It has not; the message names the verbs that it has.
    """
    if not isinstance(datamodule, protocol):
        known = [name for name in _ACTIONS if name != "generate" and hasattr(datamodule, name)]
        raise SuiteError(
            expected=f"a data set that offers {verb}",
            found=f"{type(datamodule).__name__}, which offers {', '.join(['generate', *known])}",
            where=f"bimamba data {verb}",
            cure=f"use one of these, or give {type(datamodule).__name__} the methods of "
            f"datamodules.inspection.{protocol.__name__}",
        )
    return datamodule


def _known_form(convert: Callable[..., Any], form: str) -> str:
    parameter = inspect.signature(convert).parameters.get("form")
    forms = getattr(parameter.annotation, "__args__", ()) if parameter else ()
    if form not in forms:
        near = difflib.get_close_matches(form, forms, 1)
        raise SuiteError(
            expected=f"one of {', '.join(forms)}" if forms else "no --form: there is only one",
            found=form,
            where="--form",
            cure=f"did you mean {near[0]}?" if near else "leave it out",
        )
    return form


def _write(files: Iterator[Path | Progress], to: Path, console: Console) -> int:
    count = sum(1 for file in _watched(files, console) if isinstance(file, Path))
    console.print(f"written: {count} files in {to}", soft_wrap=True)
    return 0


def _watched(items: Iterator[Any], console: Console) -> Iterator[Any]:
    """Passes everything on, and shows on a terminal how far the job has come."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    shown = console if console.is_terminal else Console(file=sys.stderr)
    with Bar(*columns, TimeRemainingColumn(), console=shown, transient=True) as bar:
        bar.disable = not console.is_terminal
        task = bar.add_task("reading", total=None)
        for item in items:
            if isinstance(item, Progress):
                bar.update(task, completed=item.done, total=item.total, description=item.what)
            yield item


def _finding(remark: Remark) -> Finding:
    parts = (("expected", remark.expected), ("found", remark.found), ("cure", remark.cure))
    lines = [f"{name}: {text}" for name, text in parts if text]
    return Finding(remark.level, "\n".join([remark.where, *lines]), _STATES[remark.level])


def _copy(source: Path, to: Path) -> None:
    """Copies a folder in one step."""
    if to.exists() and (to.is_file() or any(to.iterdir())):
        raise SuiteError(
            expected="a new or empty folder",
            found="a file" if to.is_file() else "a folder with files",
            where=str(to),
            cure="choose another folder with --to",
        )
    to.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{to.name}-", dir=to.parent) as workshop:
        draft = Path(workshop) / to.name
        shutil.copytree(source, draft)
        if to.is_dir():
            to.rmdir()
        draft.rename(to)
