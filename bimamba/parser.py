"""The argument parser, with errors that name the nearest thing one may have meant."""

import difflib
import inspect
import re
from collections.abc import Iterable
from typing import NoReturn

from lightning.pytorch.cli import LightningArgumentParser

from bimamba.discovery import public_classes
from blocks.errors import SuiteError

_WORD = re.compile(r"[A-Za-z_][\w.]*")


class SuiteParser(LightningArgumentParser):
    """LightningArgumentParser that raises a SuiteError instead of printing usage and leaving."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Turns a parsing error into expected, found, where and cure.

        Args:
            message: jsonargparse's account of it.
            ex: The exception behind it.
        """
        lines = [line.strip(" -") for line in message.splitlines() if line.strip()]
        keys = {action.dest for action in self._actions}
        raise SuiteError(
            expected="options and values as in `bimamba VERB --help`",
            found="; ".join(dict.fromkeys(lines))[:600],
            where=_mentioned_file(message) or "command line or configuration",
            cure=_hint(message, keys) or "compare with --print_config, which shows every key",
        ) from ex


def _hint(message: str, keys: Iterable[str]) -> str:
    """Names the nearest key or class for the first unknown word of the message."""
    classes = public_classes()
    arguments = {
        name
        for cls in classes.values()
        for name in inspect.signature(cls).parameters
    }
    full = {key for key in keys if "." in key} | {key.rpartition(".")[2] for key in keys}
    known = {*classes, *arguments, *full}
    words = [w.strip(".") for w in _WORD.findall(" ".join(_quoted(message)))]
    for word in words:
        name = word.rpartition(".")[2]
        if word in known or name in known:
            continue
        near = difflib.get_close_matches(word, full, 1, 0.8)
        near += difflib.get_close_matches(name, known, 1, 0.7)
        if near:
            return f"did you mean {near[0]}?"
    return ""


def _quoted(message: str) -> list[str]:
    """Words in quotes or after dashes: the user's own."""
    return re.findall(r"['\"`]([^'\"`\s]+)['\"`]", message) + re.findall(r"--([\w.]+)", message)


def _mentioned_file(message: str) -> str:
    match = re.search(r"[\w./-]+\.ya?ml", message)
    return match.group() if match else ""
