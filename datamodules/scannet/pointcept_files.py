"""Scenes as Pointcept prepares them: one folder of arrays each.

    {train,val,test}/sceneXXXX_XX/
        coord.npy float32 (P, 3), metres, not aligned     color.npy uint8 (P, 3)
        normal.npy float32 (P, 3)                         segment20.npy, segment200.npy: -1 = ignore
        instance.npy: -1 = none                           superpoint.npy int64 (P,), ours, optional

Source: Pointcept/Pointcept, pointcept/datasets/preprocessing/scannet. segment200 has the official
order. Pointcept has no superpoints: where ours are missing they are made once, into the cache.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from blocks.errors import SuiteError
from blocks.files import atomic_path, cache_dir
from datamodules.info import digest
from datamodules.scannet.classes import CLASSES, IGNORE
from datamodules.scannet.oversegmentation import oversegment
from datamodules.scannet.sv_layout import Split

Array = npt.NDArray[Any]

# NYU ids of ScanNet's benchmark of 20 classes, in its order.
_BENCHMARK_20 = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 14, 16, 24, 28, 33, 34, 36, 39)


def pointcept_folders(root: Path, split: Split) -> list[Path]:
    """Folders of a split's scenes.

    Raises:
        SuiteError: There are none.
    """
    inside = root / split
    folders = sorted(path.parent for path in inside.glob("*/coord.npy"))
    if not folders:
        raise SuiteError(
            expected=f"{split}/sceneXXXX_XX/coord.npy with color, segment200 and instance",
            found="none" if inside.is_dir() else f"no folder {split}",
            where=str(root),
            cure="correct data.init_args.root, or prepare ScanNet with Pointcept's script",
        )
    return folders


def read_pointcept(folder: Path) -> dict[str, Array]:
    """One scene.

    Returns:
        xyz float32 (P, 3), rgb uint8 (P, 3), instance (P,) or -1, semantic (P,) place or -1,
        superpoint (P,), int64.

    Raises:
        SuiteError: A file is missing, damaged or of another length.
    """
    xyz = _load(folder / "coord.npy").astype(np.float32)
    rgb = _load(folder / "color.npy").clip(0, 255).astype(np.uint8)
    labelled = (folder / "segment200.npy").is_file()
    nothing = np.full(len(xyz), -1)
    semantic = _load(folder / "segment200.npy").astype(np.int64).ravel() if labelled else nothing
    instance = _load(folder / "instance.npy").astype(np.int64).ravel() if labelled else nothing
    lengths = {len(xyz), len(rgb), len(semantic), len(instance)}
    if len(lengths) > 1:
        raise SuiteError(
            expected=f"arrays of {len(xyz):,} points",
            found=f"lengths {sorted(lengths)}",
            where=str(folder),
            cure="prepare the scene again: its files are of different runs",
        )
    superpoint = _superpoints(folder, xyz, rgb)
    return {
        "xyz": xyz, "rgb": rgb, "instance": instance, "semantic": semantic,
        "superpoint": superpoint,
    }  # fmt: skip


def write_pointcept(
    folder: Path, scene: dict[str, Array], normals: Array | None = None
) -> Iterator[Path]:
    """Writes one scene, with its superpoints.

    Args:
        folder: Of the scene.
        scene: xyz, rgb, instance, semantic (places, 200 = ignore) and superpoint.
        normals: (P, 3); null leaves the file out.
    """
    semantic = np.where(scene["semantic"] == IGNORE, -1, scene["semantic"])
    nyu40 = np.array([entry.nyu40 for entry in CLASSES] + [0])[scene["semantic"]]
    among = np.isin(nyu40, _BENCHMARK_20)
    arrays = {
        "coord": scene["xyz"].astype(np.float32),
        "color": scene["rgb"],
        "segment20": np.where(among, np.searchsorted(_BENCHMARK_20, nyu40), -1).astype(np.int16),
        "segment200": semantic.astype(np.int16),
        "instance": scene["instance"].astype(np.int32),
        "superpoint": scene["superpoint"],
    }
    if normals is not None:
        arrays["normal"] = normals.astype(np.float32)
    for name, array in arrays.items():
        with atomic_path(folder / f"{name}.npy") as path:
            np.save(path, array)
        yield folder / f"{name}.npy"


def _superpoints(folder: Path, xyz: Array, rgb: Array) -> Array:
    own = folder / "superpoint.npy"
    if own.is_file():
        found = _load(own).astype(np.int64).ravel()
        if len(found) == len(xyz):
            return np.unique(found, return_inverse=True)[1].astype(np.int64)
        raise SuiteError(
            expected=f"a superpoint for each of {len(xyz):,} points",
            found=f"{len(found):,}",
            where=str(own),
            cure="remove the file: superpoints are then made from the points",
        )
    key = digest([str(folder.resolve()), str(len(xyz)), repr(xyz[:: max(len(xyz) // 64, 1)])])
    kept = cache_dir() / "superpoints" / f"{folder.name}-{key}.npy"
    if not kept.is_file():
        with atomic_path(kept) as path:
            np.save(path, oversegment(xyz, rgb))
    return _load(kept)


def _load(path: Path) -> Array:
    try:
        return np.load(path, allow_pickle=False)  # type: ignore[no-any-return]
    except (OSError, ValueError, EOFError) as error:
        missing = isinstance(error, FileNotFoundError)
        raise SuiteError(
            expected="an array of the scene",
            found="no such file" if missing else f"{type(error).__name__}: {error}",
            where=str(path),
            cure="prepare the scene again with Pointcept's script",
        ) from error
