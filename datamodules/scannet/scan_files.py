"""Reads plain ScanNet: a mesh with its over-segmentation and the annotation of its segments.

    scans/sceneXXXX_XX/
        sceneXXXX_XX_vh_clean_2.ply                       vertices with colours, faces
        sceneXXXX_XX_vh_clean_2.0.010000.segs.json        segIndices: segment of each vertex
        sceneXXXX_XX[_vh_clean].aggregation.json          segGroups: objects as lists of segments
        sceneXXXX_XX.txt                                  axisAlignment = 16 numbers
        color/N.jpg  depth/N.png  pose/N.txt  intrinsic/  exported frames (optional)

Source: ScanNet/ScanNet and its BenchmarkScripts.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from blocks.errors import SuiteError
from datamodules.scannet.label_table import LabelTable

Array = npt.NDArray[Any]

MESH = "{scene}_vh_clean_2.ply"
SEGMENTS = "{scene}_vh_clean_2.0.010000.segs.json"
# Newer downloads have the second one.
AGGREGATIONS = ("{scene}.aggregation.json", "{scene}_vh_clean.aggregation.json")
ALIGNMENT = "{scene}.txt"
_CHANNELS = ("red", "green", "blue")


def read_scan(folder: Path, table: LabelTable) -> dict[str, Array]:
    """One scene in aligned axes.

    Args:
        folder: Of the scene, named like it.
        table: Ids of raw categories.

    Returns:
        xyz float32 (P, 3) metres, rgb uint8 (P, 3), instance (P,) objectId or -1, semantic_id (P,)
        of the label table or 0, superpoint (P,) 0.. without gaps, int64; align (4, 4) float64.

    Raises:
        SuiteError: A file is missing or damaged, or they do not belong together.
    """
    scene = folder.name
    align = read_alignment(folder)
    xyz, rgb = read_ply(folder / MESH.format(scene=scene))
    segments = _segments(folder / SEGMENTS.format(scene=scene))
    if len(segments) != len(xyz):
        raise SuiteError(
            expected=f"a segment for each of {len(xyz):,} vertices",
            found=f"{len(segments):,}",
            where=str(folder),
            cure="download the mesh and its segs.json again; they belong together",
        )
    instance, semantic = np.full(len(xyz), -1), np.zeros(len(xyz), dtype=np.int64)
    ids, superpoint = np.unique(segments, return_inverse=True)
    for number, label, members in _groups(folder):
        rows = np.isin(ids, members)[superpoint]
        instance[rows] = number
        semantic[rows] = table.ids.get(label, 0)
    aligned = xyz @ align[:3, :3].T + align[:3, 3]
    return {
        "xyz": aligned.astype(np.float32),
        "rgb": rgb,
        "instance": instance,
        "semantic_id": semantic,
        "superpoint": superpoint.astype(np.int64),
        "align": align,
    }


def read_ply(path: Path) -> tuple[Array, Array]:
    """Vertices of a mesh or cloud: xyz float32 (P, 3), and rgb uint8 (P, 3), grey if it has none.

    Raises:
        SuiteError: No such file, or no .ply with vertices.
    """
    from plyfile import PlyData  # type: ignore[import-untyped]

    try:
        vertex = PlyData.read(str(path))["vertex"].data
        xyz = np.stack([vertex[axis] for axis in "xyz"], 1).astype(np.float32)
    except Exception as error:  # plyfile raises what its parser meets.
        raise SuiteError(
            expected="a .ply file with vertices x, y, z",
            found="no such file" if not path.exists() else f"{type(error).__name__}: {error}",
            where=str(path),
            cure="download or export it again",
        ) from error
    if not set(_CHANNELS) <= set(vertex.dtype.names):
        return xyz, np.full((len(xyz), 3), 128, dtype=np.uint8)
    rgb = np.stack([vertex[channel] for channel in _CHANNELS], 1)
    if rgb.dtype.kind == "f" and rgb.max(initial=0) <= 1:
        rgb = rgb * 255
    return xyz, rgb.clip(0, 255).astype(np.uint8)


def read_alignment(folder: Path) -> Array:
    """Axis alignment of a scene, float64 (4, 4); the identity where it has none, as test scenes."""
    path = folder / ALIGNMENT.format(scene=folder.name)
    if not path.is_file():
        return np.eye(4)
    for line in path.read_text().splitlines():
        key, _, value = line.partition("=")
        if key.strip() == "axisAlignment":
            numbers = np.array(value.split(), dtype=np.float64)
            if numbers.size == 16 and np.isfinite(numbers).all():
                return numbers.reshape(4, 4)
            raise SuiteError(
                expected="axisAlignment with 16 numbers",
                found=f"{numbers.size}, {np.isfinite(numbers).sum()} of them finite",
                where=str(path),
                cure="download the file again",
            )
    return np.eye(4)


def is_labelled(folder: Path) -> bool:
    """Whether a scene has an annotation; those of the test split have none."""
    return any((folder / name.format(scene=folder.name)).is_file() for name in AGGREGATIONS)


def _segments(path: Path) -> Array:
    content = _json(path, "segIndices")
    return np.asarray(content, dtype=np.int64)


def _groups(folder: Path) -> list[tuple[int, str, list[int]]]:
    """Number, raw category and segments of each object."""
    for name in AGGREGATIONS:
        path = folder / name.format(scene=folder.name)
        if path.is_file():
            groups = _json(path, "segGroups")
            try:
                # Which of the two keys numbers the objects differs between releases.
                return [
                    (int(g["objectId"] if "objectId" in g else g["id"]), g["label"], g["segments"])
                    for g in groups
                ]
            except (KeyError, TypeError, ValueError) as error:
                raise SuiteError(
                    expected="objects with objectId or id, label and segments",
                    found=f"{type(error).__name__}: {error}",
                    where=str(path),
                    cure="download the file again",
                ) from error
    return []


def _json(path: Path, key: str) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))[key]
    except (OSError, ValueError, KeyError, TypeError) as error:
        missing = isinstance(error, FileNotFoundError)
        raise SuiteError(
            expected=f"a JSON file with {key}",
            found="no such file" if missing else f"{type(error).__name__}: {error}",
            where=str(path),
            cure="download it again; scenes of the test split have only the mesh and its segments",
        ) from error
