"""`bimamba predict --prompt "a person walks"`: short words for a datamodule of prompts.

Whatever data the configuration names, prompts take its place:

    --prompt TEXT        a caption; may be given several times
    --prompt_file FILE   captions from a file
    --duration SECONDS   how long each motion is
    --samples NUMBER     motions for each prompt
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from blocks.errors import SuiteError

_SHORT = ("prompt", "prompt_file", "duration", "samples")
_KIT = "KITMLDataModule"


def spelled_out(words: Sequence[str]) -> list[str]:
    """Words of a command with the short ones written out.

    Args:
        words: Verb and what follows it.

    Returns:
        The same words where none is short.

    Raises:
        SuiteError: A short word has no value, or the verb is not `predict`.
    """
    given: dict[str, list[str]] = {}
    rest: list[str] = []
    waiting = iter(words)
    for word in waiting:
        name, equals, value = word.removeprefix("--").partition("=")
        if not word.startswith("--") or name not in _SHORT:
            rest.append(word)
            continue
        found = value if equals else next(waiting, None)
        if found is None or (not equals and found.startswith("--")):
            raise SuiteError(
                expected=f"a value after --{name}",
                found="none",
                where="bimamba predict",
                cure='for example --prompt "a person walks forward" --duration 4',
            )
        given.setdefault(name, []).append(found)
    if not given:
        return list(words)
    if words[0] != "predict":
        raise SuiteError(
            expected="bimamba predict",
            found=f"bimamba {words[0]} with --{next(iter(given))}",
            where="the command line",
            cure="prompts have no motion to train or test on",
        )
    rest += ["--data.class_path", "PromptsDataModule"]
    # What a data set calls null here means something else.
    rest += ["--data.init_args.mode", "repaired"]
    if _trained_on_kit(rest):
        rest += ["--data.init_args.skeleton", "kit"]
    for name, values in given.items():
        text = json.dumps(values, ensure_ascii=False) if name == "prompt" else values[-1]
        rest += [f"--data.init_args.{name}", text]
    return rest


def _trained_on_kit(words: Sequence[str]) -> bool:
    """Whether the last configuration that names data names KIT-ML's."""
    kit = False
    for option, value in zip(words, [*words[1:], ""], strict=True):
        name, equals, given = option.partition("=")
        path = Path(given if equals else value)
        if name not in ("--config", "-c") or not path.is_file():
            continue
        try:
            content: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
            kit = str(content["data"]["class_path"]).endswith(_KIT)
        except (yaml.YAMLError, KeyError, TypeError, OSError, UnicodeDecodeError):
            continue  # The parser tells what is wrong with it.
    return kit
