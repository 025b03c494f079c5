"""How Human3.6M lies on disk: four layouts, recognised from the files below `root`.

    pickle        h36m_sh_conf_cam_source_final.pkl, in the folder or the file itself
    clips         H36M-{T}/{train,test}/%08d.pkl, or MB3D_f243s81/H36M-SH/..., beside the pickle
    videopose3d   data_3d_h36m.npz and data_2d_h36m_<detector>.npz
    database      a folder that `bimamba data convert` wrote

Every layout becomes a database (`datamodules.pose.database`); pickles and archives are turned into
one in the cache when they are first read.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from blocks.errors import SuiteError
from datamodules.pose.database import INDEX, PoseSplit, cached_database, read_split
from datamodules.pose.h36m_pickle import FILE_NAME, read_h36m_pickle
from datamodules.pose.videopose3d import (
    KEYPOINTS_FILES,
    POSITIONS_FILE,
    choose_keypoints,
    read_videopose3d,
)

Layout = Literal["pickle", "clips", "videopose3d", "database"]


@dataclass(frozen=True)
class Source:
    """Where the data is.

    Args:
        layout: How it lies.
        file: The pickle, the folder of clips, the archive of positions, or the database.
        keypoints: The archive of 2-D joints, in VideoPose3D's layout.
    """

    layout: Layout
    file: Path
    keypoints: Path | None = None


def find_h36m(
    root: Path, num_frames: int, layout: Layout | Literal["auto"], keypoints_file: str | None
) -> Source:
    """Looks for the data set.

    Args:
        root: Folder or file.
        num_frames: Frames of a clip, which is part of the name of a folder of clips.
        layout: What to look for.
        keypoints_file: Name of VideoPose3D's archive of 2-D joints; null chooses.

    Raises:
        SuiteError: It is not there; the message shows the files that would be.
    """
    for name in _ORDER if layout == "auto" else (layout,):
        source = _find(root, num_frames, name, keypoints_file)
        if source is not None:
            return source
    there = sorted(path.name for path in root.iterdir())[:8] if root.is_dir() else []
    raise SuiteError(
        expected="\n  ".join(
            (
                "one of" if layout == "auto" else "",
                *(_TREES[name] for name in (_ORDER if layout == "auto" else (layout,))),
            )
        ),
        found=", ".join(there) or ("an empty folder" if root.is_dir() else "no such folder"),
        where=str(root),
        cure="correct data.init_args.root, or set it to null for the embedded data",
    )


def open_h36m(source: Source) -> Path:
    """Folder of the database; the cache's where the source is none."""
    if source.layout == "database":
        return source.file
    if source.layout == "videopose3d":
        assert source.keypoints is not None
        positions, keypoints = source.file, source.keypoints
        return cached_database(
            (positions, keypoints), "h36m", lambda: read_videopose3d(positions, keypoints)
        )
    file = source.file if source.layout == "pickle" else pickle_beside(source.file)
    return cached_database((file,), "h36m", lambda: read_h36m_pickle(file))


def pickle_beside(clips: Path) -> Path:
    """The database from which clips were cut: it alone has the millimetres per pixel.

    Raises:
        SuiteError: It is in none of the folders above.
    """
    for folder in (clips, *list(clips.resolve().parents)[:3]):
        if (folder / FILE_NAME).is_file():
            return folder / FILE_NAME
    raise SuiteError(
        expected=f"{FILE_NAME} beside the clips",
        found="none in the folder or the three above it",
        where=str(clips),
        cure="put it there: the clips are in pixels, and only it tells the millimetres to evaluate",
    )


def clip_folder(root: Path, num_frames: int) -> Path | None:
    """The folder with train and test clips at or below `root`, if there is one."""
    names = (f"H36M-{num_frames}", f"MB3D_f{num_frames}s{num_frames // 3}/H36M-SH", "H36M-SH", ".")
    for name in names:
        folder = root / name
        if (folder / "train").is_dir() and _has_pickle(folder / "train"):
            return folder
    return None


def splits_of(folder: Path) -> tuple[PoseSplit, PoseSplit]:
    """Training and test split of a database, without reading frames."""
    return read_split(folder, "train"), read_split(folder, "test")


_ORDER: tuple[Layout, ...] = ("database", "pickle", "videopose3d", "clips")
_TREES: dict[Layout, str] = {
    "database": INDEX,
    "pickle": FILE_NAME,
    "videopose3d": f"{POSITIONS_FILE} and {KEYPOINTS_FILES}",
    "clips": f"H36M-<frames>/{{train,test}}/%08d.pkl beside {FILE_NAME}",
}


def _find(root: Path, num_frames: int, layout: Layout, keypoints: str | None) -> Source | None:
    if layout == "database":
        return Source(layout, root) if (root / INDEX).is_file() else None
    if layout == "pickle":
        if root.is_file():
            return Source(layout, root)
        return Source(layout, root / FILE_NAME) if (root / FILE_NAME).is_file() else None
    if layout == "videopose3d":
        if not (root / POSITIONS_FILE).is_file():
            return None
        return Source(layout, root / POSITIONS_FILE, choose_keypoints(root, keypoints))
    folder = clip_folder(root, num_frames)
    return None if folder is None else Source(layout, folder)


def _has_pickle(folder: Path) -> bool:
    """A glance: listing twenty thousand files takes a while on a network disk."""
    with os.scandir(folder) as entries:
        return any(entry.name.endswith(".pkl") for entry in entries)
