"""A pose data set as a folder of memory-mapped arrays: what every reader of this wing arrives at.

The files of Human3.6M and MPI-INF-3DHP are pickles of a gigabyte that cost several in memory, and
once more in each worker. They are turned once into

    database.json                 format, and per split its videos
    <train|test>/<array>.npy      see `PoseSplit`

and from then on cost what is looked at.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from blocks.errors import SuiteError
from blocks.files import write_json
from datamodules.embedded import generate_once
from datamodules.info import digest

Array = npt.NDArray[Any]
Split = Literal["train", "test"]

INDEX = "database.json"
_FORMAT = 2
_OPTIONAL = ("confidence", "target", "factor", "valid")


@dataclass(frozen=True)
class Video:
    """Consecutive frames of one recording by one camera.

    Args:
        name: As in the source, e.g. s_09_act_05_subact_02_ca_01.
        start: First frame in the split.
        stop: One after the last.
        width: Of the image, pixels.
        height: Of the image, pixels.
        group: Action (Human3.6M) or sequence (MPI-INF-3DHP), by which scores are listed.
        camera: Its name.
    """

    name: str
    start: int
    stop: int
    width: int
    height: int
    group: str
    camera: str

    def __len__(self) -> int:
        return self.stop - self.start


@dataclass(frozen=True)
class PoseSplit:
    """Training or test part, N frames of J = 17 joints; arrays may be memory maps.

    Args:
        videos: In the order of their frames, without gaps.
        keypoints: Detected joints, (N, J, 2), pixels.
        confidence: Of the detector, (N, J); null if unknown.
        pose: What is learnt, (N, J, 3): x, y and depth in pixels, or for MPI-INF-3DHP millimetres.
        target: What is evaluated against, (N, J, 3), millimetres; null in training.
        factor: Millimetres per pixel of each frame, (N,); null in training.
        valid: Frames to evaluate, (N,); null for all.
        folder: Where the arrays lie.
        not_finite: Videos with a NaN or an infinite number; known of a database on disk.
    """

    videos: tuple[Video, ...]
    keypoints: Array
    pose: Array
    confidence: Array | None = None
    target: Array | None = None
    factor: Array | None = None
    valid: Array | None = None
    folder: Path | None = None
    not_finite: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.keypoints)

    def __reduce__(self) -> tuple[Any, ...]:
        # A memory map would be pickled as its content, for every worker that is spawned.
        if self.folder is not None:
            return read_split, (self.folder.parent, self.folder.name)
        return PoseSplit, tuple(vars(self).values())

    @property
    def groups(self) -> tuple[str, ...]:
        """Actions or sequences, sorted."""
        return tuple(sorted({video.group for video in self.videos}))


def video_runs(names: Array) -> list[tuple[int, int]]:
    """(start, stop) of each stretch of equal names."""
    if not len(names):
        return []
    edges = np.flatnonzero(names[1:] != names[:-1]) + 1
    stops = [*edges.tolist(), len(names)]
    return list(zip([0, *stops[:-1]], stops, strict=True))


def write_database(folder: Path, splits: Mapping[str, PoseSplit]) -> Iterable[Path]:
    """Writes splits below an existing folder and yields each finished file; the index comes last.

    Args:
        folder: The database.
        splits: By name: train, test.
    """
    for name, split in splits.items():
        (folder / name).mkdir(exist_ok=True)
        for array in ("keypoints", "pose", *_OPTIONAL):
            content = getattr(split, array)
            if content is not None:
                path = folder / name / f"{array}.npy"
                np.save(path, content)
                yield path
    index = {name: [asdict(video) for video in split.videos] for name, split in splits.items()}
    broken = {name: _not_finite(split) for name, split in splits.items()}
    write_json(folder / INDEX, {"format": _FORMAT, "not_finite": broken, "splits": index})
    yield folder / INDEX


def read_split(folder: Path, name: str) -> PoseSplit:
    """Opens a split that `write_database` wrote; reads no frames.

    Raises:
        SuiteError: A file is missing, damaged or of another length than the index says.
    """
    try:
        index = json.loads((folder / INDEX).read_text())
        videos = tuple(Video(**video) for video in index["splits"][name])
        arrays = {
            path.stem: np.load(path, mmap_mode="r")
            for path in sorted((folder / name).glob("*.npy"))
        }
        broken = tuple(index["not_finite"][name])
        split = PoseSplit(videos=videos, folder=folder / name, not_finite=broken, **arrays)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SuiteError(
            expected=f"a pose database with the split {name}",
            found=f"{type(error).__name__}: {error}",
            where=str(folder),
            cure="delete the folder and let the suite write it again from the original file",
        ) from error
    frames = videos[-1].stop if videos else 0
    if any(len(array) != frames for array in arrays.values()):
        raise SuiteError(
            expected=f"{frames} frames in each array",
            found=", ".join(f"{key} {len(array)}" for key, array in arrays.items()),
            where=str(folder / name),
            cure="delete the folder and let the suite write it again from the original file",
        )
    return split


def refuse_nan(split: PoseSplit) -> None:
    """Raises if any number of a split is none: one of them spoils the weights of a network.

    Raises:
        SuiteError: With the names of the videos.
    """
    if split.not_finite:
        raise SuiteError(
            expected="finite joints in all frames",
            found=f"NaN or infinity in {len(split.not_finite)} videos",
            where=", ".join(split.not_finite[:5]),
            cure="interpolate or leave out these frames; `bimamba data validate` counts them",
        )


def cached_database(
    files: Iterable[Path], kind: str, read: Callable[[], Mapping[str, PoseSplit]]
) -> Path:
    """Folder of a database in the cache, written on the first call for the files as they are now.

    Args:
        files: What it is made from; a change of size or time makes another database.
        kind: Data set and reader, for the folder's name.
        read: Reads the files.
    """

    def write(folder: Path) -> None:
        for _ in write_database(folder, read()):
            pass

    files = list(files)
    for file in files:
        if not file.is_file():
            raise SuiteError(
                expected="a file of the data set",
                found="no such file",
                where=str(file),
                cure="check the name",
            )
    stats = ((file.resolve(), file.stat()) for file in files)
    mark = digest(f"{path} {stat.st_size} {stat.st_mtime_ns}" for path, stat in stats)
    return generate_once(f"pose_{kind}_v{_FORMAT}_{mark}", write)


def _not_finite(split: PoseSplit) -> list[str]:
    arrays = [split.keypoints, split.pose, split.confidence, split.target, split.factor]
    return [
        video.name
        for video in split.videos
        if not all(
            np.isfinite(array[video.start : video.stop]).all()
            for array in arrays
            if array is not None
        )
    ]
