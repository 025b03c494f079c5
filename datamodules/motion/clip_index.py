"""How long every clip is and whether its numbers are sound, remembered between runs.

HumanML3D has 29,228 files; reading all of them to find one NaN is done once.
"""

import contextlib
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from blocks.errors import SuiteError
from blocks.files import atomic_path, cache_dir
from datamodules.info import digest
from datamodules.motion.motion_folder import MotionFolder

_VERSION = 1


@dataclass(frozen=True)
class ClipFact:
    """What is known of a clip without its numbers.

    Args:
        frames: Rows of features; 0 where there is no file.
        finite: Whether all of them are numbers.
    """

    frames: int
    finite: bool


def clip_facts(folder: MotionFolder, names: Sequence[str]) -> dict[str, ClipFact]:
    """Facts of clips by name, from the cache where the files are as they were.

    Args:
        folder: The data set.
        names: Ids; a missing file is a fact, too.

    Raises:
        SuiteError: A file has another number of features.
    """
    cached = cache_dir() / "indices" / f"motion_v{_VERSION}_{digest(_stamps(folder, names))}.npz"
    absent_or_damaged = (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile)
    with contextlib.suppress(*absent_or_damaged), np.load(cached, allow_pickle=False) as stored:
        table = stored["facts"]
        return {n: ClipFact(int(t), bool(f)) for n, (t, f) in zip(names, table, strict=True)}
    facts = {name: clip_fact(folder, name) for name in names}
    table = np.array([(fact.frames, fact.finite) for fact in facts.values()], int).reshape(-1, 2)
    if len(facts) == len(names):  # An id twice in a list has no row of its own.
        with contextlib.suppress(OSError), atomic_path(cached) as temporary:
            np.savez(temporary, facts=table)
    return facts


def clip_fact(folder: MotionFolder, name: str) -> ClipFact:
    """Reads one clip.

    Raises:
        SuiteError: Not an array of frames, or one of another number of features.
    """
    file = folder.file(name)
    if not file.is_file():
        return ClipFact(0, True)
    try:
        features = np.load(file, allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise SuiteError(
            expected="an array of features",
            found=f"{file.stat().st_size} bytes ({error})",
            where=str(file),
            cure="copy this clip again; bimamba data validate finds all such files",
        ) from error
    width = folder.skeleton.num_features
    if features.ndim != 2 or features.shape[1] != width:
        raise SuiteError(
            expected=f"frames of {width} features ({folder.skeleton.name})",
            found=f"shape {features.shape}",
            where=str(file),
            cure="use the data module of this data set; HumanML3D has 263 features, KIT-ML 251",
        )
    return ClipFact(len(features), bool(np.isfinite(features).all()))


def _stamps(folder: MotionFolder, names: Sequence[str]) -> Iterator[str]:
    yield f"{folder.root.absolute()} {folder.skeleton.name}"
    for name in names:
        file: Path = folder.file(name)
        try:
            stat = file.stat()
            yield f"{name} {stat.st_size} {stat.st_mtime_ns}"
        except OSError:
            yield f"{name} missing"
