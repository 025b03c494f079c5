"""The argument parser, with errors that name the nearest thing one may have meant."""

import difflib
import inspect
import re
from typing import Any, NoReturn

from lightning.pytorch.cli import LightningArgumentParser

from bimamba.discovery import public_classes
from blocks.errors import SuiteError

# Lines in which jsonargparse recounts which types it tried; the cause stands in the others.
_NOISE = (
    "Problem with given class_path",
    "Does not validate",
    "Subtypes:",
    "Errors:",
    "Expected a <class 'NoneType'>",
    "Given ",
)
_UNKNOWN = re.compile(
    r"Option '([\w.]+)' is not accepted"
    r"|unrecognized arguments: --([\w.]+)"
    r"|dot import path string: ([\w.]+)"
    r"|class_path or class name ['\"]?([\w.]+)"
)


class SuiteParser(LightningArgumentParser):
    """LightningArgumentParser that raises a SuiteError instead of printing usage and leaving."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # An abbreviation accepted today is another option tomorrow.
        super().__init__(*args, **{"allow_abbrev": False, **kwargs})

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Turns a parsing error into expected, found, where and cure.

        Args:
            message: jsonargparse's account of it.
            ex: The exception behind it.
        """
        if not self.exit_on_error:  # A parser inside a parser: the outermost one tells the user.
            super().error(message, ex)
        lines = [line.strip(" -") for line in message.splitlines()]
        keys = [m.group(1) for line in lines if (m := re.match(r'Parser key "([\w.]+)":', line))]
        causes = [re.sub(r'^Parser key "[\w.]+":\s*', "", line) for line in lines]
        causes = [line for line in causes if line and not line.startswith(_NOISE)]
        raise SuiteError(
            expected="keys, classes and values that `bimamba VERB --help` and --print_config show",
            found="; ".join(dict.fromkeys(causes)),
            where=".".join(keys) or "command line or configuration",
            cure=self._cure(message),
        ) from ex

    def _cure(self, message: str) -> str:
        if "arguments are required" in message:
            return "add a configuration: --config configs/demo/vision.yaml"
        if "does not exist" in message:
            return "check the path"
        for match in _UNKNOWN.finditer(message):
            word = next(group for group in match.groups() if group)
            if near := self._nearest(word):
                return f"did you mean {near}?"
        return "compare with --print_config, which shows every key with its value"

    def _nearest(self, word: str) -> str | None:
        """The known key, argument or class most like a mistyped one."""
        classes = public_classes()
        arguments = {name for cls in classes.values() for name in inspect.signature(cls).parameters}
        keys = {action.dest for action in self._actions}
        for candidates, cutoff in ((keys, 0.85), ({*classes, *arguments, *keys}, 0.6)):
            for spelling in (word, word.partition(".")[0], word.rpartition(".")[2]):
                if near := difflib.get_close_matches(spelling, candidates, 1, cutoff):
                    return near[0]
        return None
