"""Exported frames of a scan, color/ depth/ pose/ intrinsic/, and which points a frame sees."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from blocks.errors import SuiteError
from blocks.geometry.projection import in_view, project_points, rescaled_intrinsics, seen_points
from datamodules.scannet.sv_files import read_image

Array = npt.NDArray[Any]

_COLORS = (".jpg", ".jpeg", ".png")
# Frames of a scan that are looked at, evenly spread, for the one that sees most.
_CANDIDATES = 8


@dataclass(frozen=True)
class View:
    """One frame.

    Args:
        number: Its file's name, usually a number.
        color: Colour image.
        depth: Depth image, (H, W) float32 in metres; 0 where there is none.
        pose: (4, 4) float64, camera to world.
        intrinsics: (3, 3) float64, of the depth image.
    """

    number: str
    color: Path
    depth: Array
    pose: Array
    intrinsics: Array

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the depth image, to which the intrinsics belong."""
        height, width = self.depth.shape
        return width, height


def view_names(folder: Path) -> list[str]:
    """Frames of a scan that have colours, in the order of their numbers."""
    inside = (folder / "color").iterdir() if (folder / "color").is_dir() else ()
    stems = {path.stem for path in inside if path.suffix.lower() in _COLORS}
    return sorted(stems, key=lambda stem: (len(stem), stem))


def read_view(folder: Path, number: str, level: Array | None = None) -> View:
    """Reads a frame's depth, pose and intrinsics.

    Args:
        folder: Of the scan.
        number: Of the frame.
        level: Pose of frames in a folder without any pose; null refuses that.

    Raises:
        SuiteError: A file is missing or is not what it should be.
    """
    depth = _depth(folder / "depth" / f"{number}.png")
    if level is not None and not (folder / "pose").is_dir():
        pose = level
    else:
        pose = _matrix(folder / "pose" / f"{number}.txt")
    colors = [folder / "color" / f"{number}{suffix}" for suffix in _COLORS]
    color = next((path for path in colors if path.is_file()), colors[0])
    return View(number, color, depth, pose, _intrinsics(folder, color, depth.shape))


def best_view(folder: Path, xyz: Array, align: Array) -> dict[str, Any] | None:
    """The frame of a scan that sees most of its points, and where it sees them.

    Args:
        folder: Of the scan.
        xyz: (P, 3) in aligned axes.
        align: (4, 4) from the scan's axes to the aligned ones.

    Returns:
        image, image_size, pose (to aligned axes), intrinsics, uv (P, 2), uv_valid (P,); None if no
        frame has a finite pose.
    """
    names = view_names(folder)
    spread = np.linspace(0, len(names) - 1, min(len(names), _CANDIDATES)).round().astype(int)
    points = torch.from_numpy(xyz).double()
    best: dict[str, Any] | None = None
    most = -1
    for number in dict.fromkeys(names[k] for k in spread):
        view = read_view(folder, number)
        pose = align @ view.pose
        if not np.isfinite(pose).all():
            continue  # Tracking was lost.
        matrix, k = torch.from_numpy(pose), torch.from_numpy(view.intrinsics)
        uv, z = project_points(points, matrix, k)
        depth = torch.from_numpy(view.depth)
        seen = in_view(uv, z, *view.size) & seen_points(uv, z, depth)
        if int(seen.sum()) > most:
            most = int(seen.sum())
            best = {
                "image": view.color,
                "image_size": view.size,
                "pose": pose,
                "intrinsics": view.intrinsics,
                "uv": (uv * seen.unsqueeze(1)).float().numpy(),
                "uv_valid": seen.numpy(),
            }
    if best is not None:
        best["image"] = read_image(best["image"])
    return best


def _intrinsics(folder: Path, color: Path, shape: tuple[int, ...]) -> Array:
    """Those of the depth camera, else those of the colour camera at the size of the depth image."""
    inside = folder / "intrinsic"
    for path in (
        inside / "intrinsic_depth.txt",
        inside / "intrinsic.txt",
        folder / "intrinsic.txt",
    ):
        if path.is_file():
            return _matrix(path)[:3, :3]
    path = inside / "intrinsic_color.txt"
    if not path.is_file():
        raise SuiteError(
            expected="intrinsic/intrinsic_depth.txt, intrinsic_color.txt or intrinsic.txt",
            found="none of them",
            where=str(folder),
            cure="write the 3 x 3 or 4 x 4 matrix of the camera there, as text",
        )
    with Image.open(color) as image:
        size = image.size
    given = torch.from_numpy(_matrix(path))
    height, width = shape
    if size == (width, height):
        return given[:3, :3].numpy()
    return rescaled_intrinsics(given, size, (width, height))[:3, :3].numpy()


def _depth(path: Path) -> Array:
    try:
        with Image.open(path) as image:
            values = np.asarray(image)
    except (OSError, SyntaxError) as error:
        missing = isinstance(error, FileNotFoundError)
        raise SuiteError(
            expected="a depth image, 16-bit PNG in millimetres",
            found="no such file" if missing else f"a file that cannot be decoded ({error})",
            where=str(path),
            cure="export it again: every colour image needs its depth",
        ) from error
    if values.ndim != 2 or values.dtype.kind not in "iu":
        raise SuiteError(
            expected="one channel of whole numbers, millimetres",
            found=f"shape {values.shape}, {values.dtype}",
            where=str(path),
            cure="write depth as 16-bit PNG",
        )
    return values.astype(np.float32) / 1000


def _matrix(path: Path) -> Array:
    try:
        matrix = np.loadtxt(path, dtype=np.float64)
    except (OSError, ValueError) as error:
        missing = isinstance(error, FileNotFoundError)
        raise SuiteError(
            expected="a matrix as text",
            found="no such file" if missing else str(error),
            where=str(path),
            cure="export it again",
        ) from error
    if matrix.shape not in {(3, 3), (4, 4)}:
        raise SuiteError(
            expected="a 4 x 4 or 3 x 3 matrix",
            found=f"{matrix.shape}",
            where=str(path),
            cure="export it again",
        )
    return matrix
