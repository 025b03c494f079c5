"""What to generate, read from a file or from flags.

A text file has one prompt a line, `text` or `text<TAB>seconds`; a JSON file has a list of texts or
of objects with `text` and, as they like, `seconds`, `name` and `motion` (a file to start from).
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from blocks.errors import SuiteError
from blocks.geometry.motion_features import Mode, extract_features
from blocks.geometry.motion_skeleton import MotionSkeleton

_KEYS = {"text", "seconds", "name", "motion"}


@dataclass(frozen=True)
class Prompt:
    """One motion to generate.

    Args:
        text: What it shows.
        seconds: How long it is; null leaves it to the default.
        name: Of its files; empty numbers them.
        motion: File with motion to keep parts of, or null.
        where: File and line, for errors.
    """

    text: str
    seconds: float | None = None
    name: str = ""
    motion: str | None = None
    where: str = "data.init_args.prompt"


def read_prompts(file: Path) -> list[Prompt]:
    """Prompts of a file.

    Raises:
        SuiteError: No such file, no prompts in it, or a line that is none.
    """
    if not file.is_file():
        raise SuiteError(
            expected="a file of prompts",
            found="a folder" if file.is_dir() else "no such file",
            where=str(file),
            cure="correct data.init_args.prompt_file",
        )
    text = file.read_bytes().decode("utf-8", "replace").removeprefix("\ufeff")
    prompts = _json(text, file) if file.suffix == ".json" else _lines(text, file)
    if not prompts:
        raise SuiteError(
            expected="at least one prompt",
            found="an empty file",
            where=str(file),
            cure="write one prompt a line: text, or text, a tab and seconds",
        )
    return prompts


def read_motion(file: Path, skeleton: MotionSkeleton, mode: Mode) -> Tensor:
    """Features (T, D), not normalised, of a file of features or of joints.

    Args:
        file: `.npy`, (T, D) or (T, J, 3).
        skeleton: Whose they are.
        mode: How joints are turned into features.

    Raises:
        SuiteError: No such file, or an array of another shape or with NaN.
    """
    if not file.is_file():
        raise SuiteError(
            expected="motion to keep parts of",
            found="no such file",
            where=str(file),
            cure="give an .npy file of joints or features",
        )
    try:
        array = torch.from_numpy(np.load(file, allow_pickle=False)).float()
    except (ValueError, OSError, TypeError) as error:
        raise SuiteError(
            expected="an .npy file of numbers",
            found=str(error),
            where=str(file),
            cure="save it again",
        ) from error
    is_features = array.ndim == 2 and array.shape[1] == skeleton.num_features
    is_joints = array.ndim == 3 and array.shape[1:] == (skeleton.num_joints, 3) and len(array) > 1
    if not (is_features or is_joints) or not array.isfinite().all():
        shape = f"shape {tuple(array.shape)}"
        raise SuiteError(
            expected=f"finite features (T, {skeleton.num_features}) or joints "
            f"(T, {skeleton.num_joints}, 3) of {skeleton.name}",
            found=shape if not (is_features or is_joints) else f"{shape} with NaN",
            where=str(file),
            cure="give motion of the skeleton that the model was trained on",
        )
    return array if is_features else extract_features(array, skeleton, mode=mode)


def _lines(text: str, file: Path) -> list[Prompt]:
    prompts = []
    for number, line in enumerate(text.splitlines(), 1):
        words, tab, seconds = line.rstrip().rpartition("\t")
        if not line.strip():
            continue
        where = f"{file}:{number}"
        prompts.append(
            Prompt(words.strip(), _seconds(seconds, where), where=where)
            if tab
            else Prompt(line.strip(), where=where)
        )
    return prompts


def _json(text: str, file: Path) -> list[Prompt]:
    try:
        content: Any = json.loads(text)
    except ValueError as error:
        raise SuiteError(
            expected="JSON", found=str(error), where=str(file), cure="mend the file"
        ) from error
    if not isinstance(content, list):
        raise SuiteError(
            expected="a list of texts, or of objects with text and seconds",
            found=type(content).__name__,
            where=str(file),
            cure="put square brackets around the prompts",
        )
    prompts = []
    for number, entry in enumerate(content):
        where = f"{file}[{number}]"
        if isinstance(entry, str):
            entry = {"text": entry}
        odd = sorted(entry.keys() - _KEYS) if isinstance(entry, dict) else [type(entry).__name__]
        if odd or "text" not in entry:
            raise SuiteError(
                expected=f"a text, or an object with {', '.join(sorted(_KEYS))}",
                found=", ".join(odd) or "no text",
                where=where,
                cure="correct this entry",
            )
        seconds = entry.get("seconds")
        motion = entry.get("motion")
        prompts.append(
            Prompt(
                text=str(entry["text"]).strip(),
                seconds=None if seconds is None else _seconds(seconds, where),
                name=str(entry.get("name", "")),
                # Beside the list, as one would write it.
                motion=None if motion is None else str(file.parent / motion),
                where=where,
            )
        )
    return prompts


def _seconds(value: Any, where: str) -> float:
    try:
        seconds = float(value)
    except (TypeError, ValueError):
        seconds = float("nan")
    if not seconds > 0 or seconds == float("inf"):
        raise SuiteError(
            expected="seconds, more than 0",
            found=str(value),
            where=where,
            cure="write the text, a tab and a number",
        )
    return seconds
