"""Whole scenes: plain ScanNet scans, or the arrays that Pointcept makes of them."""

from abc import abstractmethod
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from blocks.errors import SuiteError
from datamodules.scannet.classes import IGNORE, places_of
from datamodules.scannet.label_table import FILE_NAME, find_label_table, read_label_table
from datamodules.scannet.pointcept_files import read_pointcept
from datamodules.scannet.scan_files import MESH, read_scan
from datamodules.scannet.sv_layout import Split
from datamodules.scannet.views import best_view

Array = npt.NDArray[Any]

_LISTS = ("scannetv2_{split}.txt", "meta_data/scannetv2_{split}.txt")


class SceneReader:
    """Raw scenes, read when they are asked for.

    Args:
        folders: Of the scenes, in order.
        image: Whether to read the frame that sees most of each.
    """

    def __init__(self, folders: list[Path], image: bool) -> None:
        self.folders, self.image = folders, image

    def __len__(self) -> int:
        return len(self.folders)

    def __getitem__(self, index: int) -> dict[str, Any]:
        folder = self.folders[index]
        sample = self.read(folder)
        align = sample.pop("align")
        view = best_view(folder, sample["xyz"], align) if self.image else None
        if self.image and view is None:
            raise SuiteError(
                expected="a frame with a finite pose in color/, depth/, pose/ and intrinsic/",
                found="none",
                where=str(folder),
                cure="export frames from the .sens recording, or set data.init_args.image: false",
            )
        return (
            sample | (view or _unseen(len(sample["xyz"]))) | {"frame": folder.name, "index": index}
        )

    @abstractmethod
    def read(self, folder: Path) -> dict[str, Array]:
        """xyz, rgb, instance, semantic (places), superpoint and align of a scene."""


class ScanReader(SceneReader):
    """Scenes of plain ScanNet.

    Args:
        folders: Of the scenes, in order.
        image: Whether to read the frame that sees most of each.
        table: Label table.
    """

    def __init__(self, folders: list[Path], image: bool, table: Path) -> None:
        super().__init__(folders, image)
        self.table = read_label_table(table)

    def read(self, folder: Path) -> dict[str, Array]:
        """The scene, in aligned axes."""
        scan = read_scan(folder, self.table)
        return scan | {"semantic": places_of(scan["semantic_id"])}


class PointceptReader(SceneReader):
    """Scenes that Pointcept prepared; they have no images.

    Args:
        folders: Of the scenes, in order.
    """

    def __init__(self, folders: list[Path]) -> None:
        super().__init__(folders, image=False)

    def read(self, folder: Path) -> dict[str, Array]:
        """The scene, in the axes of its scan."""
        scene = read_pointcept(folder)
        semantic = np.where(scene["semantic"] < 0, IGNORE, scene["semantic"])
        return scene | {"semantic": semantic, "align": np.eye(4)}


def scan_folders(root: Path, split: Split) -> list[Path]:
    """Folders of a split's scenes in plain ScanNet.

    Args:
        root: With scans/, the lists of splits and the label table.
        split: train or val.

    Raises:
        SuiteError: No scans, no list, or scenes of the list are not there.
    """
    scans = root / "scans" if (root / "scans").is_dir() else root
    listed = next((p for name in _LISTS if (p := root / name.format(split=split)).is_file()), None)
    if listed is None:
        raise SuiteError(
            expected=f"a folder with scans/sceneXXXX_XX/, scannetv2_{split}.txt and {FILE_NAME}",
            found=f"no scannetv2_{split}.txt" if root.is_dir() else "no such folder",
            where=str(root),
            cure="copy the lists from Tasks/Benchmark of the ScanNet repository",
        )
    folders = [scans / name for name in listed.read_text().split()]
    missing = [f.name for f in folders if not (f / MESH.format(scene=f.name)).is_file()]
    if missing or not folders:
        raise SuiteError(
            expected=f"the meshes of {len(folders)} scenes of {listed.name}",
            found=f"{len(missing)} missing, first {missing[0]}" if missing else "an empty list",
            where=str(scans),
            cure="complete the download, or take these scenes from the list",
        )
    return folders


def open_scans(root: Path, split: Split, image: bool) -> ScanReader:
    """The scenes of a split in plain ScanNet."""
    return ScanReader(scan_folders(root, split), image, find_label_table(root))


def _unseen(count: int) -> dict[str, Any]:
    """What stands for the camera where there is none: no point lies in any image."""
    return {
        "uv": np.zeros((count, 2), dtype=np.float32),
        "uv_valid": np.zeros(count, dtype=bool),
        "pose": np.eye(4),
        "intrinsics": np.eye(3),
        "image_size": (1, 1),
    }
