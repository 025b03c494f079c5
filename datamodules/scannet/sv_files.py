"""Reads ScanNet200-SV: its lists, with or without pickles, and single frames."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from blocks.errors import SuiteError
from blocks.files import load_pickle
from datamodules.scannet import sv_layout as layout
from datamodules.scannet.classes import places_of
from datamodules.scannet.sv_layout import FrameName, Split

Array = npt.NDArray[Any]

_MASK_KEYS = ("pts_instance_mask_path", "pts_semantic_mask_path", "super_pts_path")


@dataclass(frozen=True)
class SVEntry:
    """One frame of a list; paths are relative to the root.

    Args:
        name: Scene and number.
        points: File of the points.
        instances: File of the instance mask.
        semantics: File of the labels.
        superpoints: File of the superpoints.
        image: Colour image.
        pose: Camera to (world less the frame's mean point), (4, 4); null where it is in a file.
    """

    name: FrameName
    points: str
    instances: str
    semantics: str
    superpoints: str
    image: str
    pose: Array | None


def list_frames(root: Path, split: Split) -> list[SVEntry]:
    """The frames of a split: from its pickle, else from its list of names, else from its scenes.

    Args:
        root: Folder of the data set.
        split: train or val.

    Raises:
        SuiteError: There are none of these, or they are not what they should be.
    """
    if not (root / layout.POINTS).is_dir():
        raise _not_the_layout(root)
    for pattern in layout.INFOS:
        for path in sorted(root.glob(pattern.format(split=split))):
            return _from_pickle(path)
    for folder in (root, root / "meta_data"):
        if (listed := folder / layout.LISTS.format(split=split)).is_file():
            names = [FrameName.parse(word, str(listed)) for word in listed.read_text().split()]
            return [_derived(name) for name in names]
        if (listed := folder / layout.SCENE_LISTS.format(split=split)).is_file():
            scenes = set(listed.read_text().split())
            files = sorted(path.name for path in (root / layout.POINTS).glob("*.bin"))
            found = [FrameName.parse(file, str(root / layout.POINTS)) for file in files]
            return [_derived(name) for name in sorted(found) if name.scene in scenes]
    raise SuiteError(
        expected=f"a list of the {split} frames: {layout.INFOS[0].format(split=split)}, or "
        f"{layout.LISTS.format(split=split)} or {layout.SCENE_LISTS.format(split=split)} in "
        "meta_data/ or beside points/",
        found="none of them",
        where=str(root),
        cure="copy the lists of xuxw98/ESAM (data/scannet200-sv/meta_data), or ScanNet's split",
    )


def pose_of(root: Path, entry: SVEntry) -> Array:
    """Centred pose of a frame, float64 (4, 4); NaN everywhere where there is no file."""
    if entry.pose is not None:
        return entry.pose
    path = root / entry.name.pose
    if not path.is_file():
        return np.full((4, 4), np.nan)
    pose: Array = np.load(path, allow_pickle=False).astype(np.float64)
    return pose


class SVReader:
    """Raw frames.

    Args:
        root: Folder of the data set.
        entries: Frames in order.
        image: Whether to read the colour images.
    """

    def __init__(self, root: Path, entries: list[SVEntry], image: bool) -> None:
        self.root, self.entries, self.image = root, entries, image

    def __len__(self) -> int:
        return len(self.entries)

    def __getitem__(self, index: int) -> dict[str, Any]:
        entry = self.entries[index]
        sample: dict[str, Any] = read_arrays(self.root, entry)
        sample["raw_superpoint"] = sample["superpoint"]
        sample |= {
            # 0 is nobody's; objects count from 1 in the files.
            "instance": sample["instance"] - 1,
            "semantic": places_of(sample["semantic_id"]),
            "superpoint": np.unique(sample["superpoint"], return_inverse=True)[1].astype(np.int64),
        }
        if self.image:
            sample["image"] = read_image(self.root / entry.image)
        return sample | {
            "pose": pose_of(self.root, entry),
            "intrinsics": layout.INTRINSICS,
            "image_size": layout.IMAGE_SIZE,
            "frame": str(entry.name),
            "index": index,
        }


def read_arrays(root: Path, entry: SVEntry) -> dict[str, Array]:
    """What the four .bin files of a frame hold, as it stands there.

    Returns:
        xyz float32 (P, 3), rgb uint8 (P, 3), instance, semantic_id and superpoint int64 (P,).

    Raises:
        SuiteError: A file is missing or cut short, or they are of different lengths.
    """
    points = _read(root / layout.POINTS / entry.points, np.float32, 6)
    arrays = {
        "instance": _read(root / layout.INSTANCES / entry.instances, np.int64),
        "semantic_id": _read(root / layout.SEMANTICS / entry.semantics, np.int64),
        "superpoint": _read(root / layout.SUPERPOINTS / entry.superpoints, np.int64),
    }
    lengths = {name: len(array) for name, array in arrays.items()}
    if set(lengths.values()) != {len(points)}:
        raise SuiteError(
            expected=f"one label for each of {len(points):,} points",
            found=", ".join(f"{length:,} of {name}" for name, length in lengths.items()),
            where=f"frame {entry.name} in {root}",
            cure="copy or prepare its four .bin files again; they belong together",
        )
    if not len(points):
        raise SuiteError(
            expected="points",
            found="an empty file",
            where=str(root / layout.POINTS / entry.points),
            cure="copy or prepare the frame again, or take it from the list",
        )
    colors = points[:, 3:].clip(0, 255).round().astype(np.uint8)
    return {"xyz": points[:, :3].copy(), "rgb": colors, **arrays}


def read_image(path: Path) -> Image.Image:
    """A colour image, decoded.

    Raises:
        SuiteError: It is missing or damaged.
    """
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except (OSError, SyntaxError) as error:
        missing = isinstance(error, FileNotFoundError)
        raise SuiteError(
            expected="the frame's colour image",
            found="no such file" if missing else f"a file that cannot be decoded ({error})",
            where=str(path),
            cure="export or copy it again, or train without images: data.init_args.image: false",
        ) from error


def _read(path: Path, dtype: type, columns: int = 1) -> Array:
    size = np.dtype(dtype).itemsize * columns
    if not path.is_file():
        raise SuiteError(
            expected="a file of the frame",
            found="no such file",
            where=str(path),
            cure="copy or prepare the frame again, or take it from the list",
        )
    length = path.stat().st_size
    if length % size:
        raise SuiteError(
            expected=f"whole rows of {columns} x {np.dtype(dtype).name}",
            found=f"{length:,} bytes, which are not a multiple of {size}",
            where=str(path),
            cure="copy or prepare the file again: it is cut short or of another type",
        )
    array: Array = np.fromfile(path, dtype)
    return array.reshape(-1, columns) if columns > 1 else array


def _from_pickle(path: Path) -> list[SVEntry]:
    content = load_pickle(path)
    entries = []
    try:
        for item in content["data_list"]:
            cloud = Path(item["lidar_points"]["lidar_path"]).name
            name = FrameName.parse(cloud, str(path))
            # Some lists have whole paths; the folders are known.
            instances, semantics, superpoints = (
                Path(item.get(key, cloud)).name for key in _MASK_KEYS
            )
            pose = item.get("pose")
            matrix = None if pose is None else np.asarray(pose, np.float64).reshape(4, 4)
            image = item.get("img_path", name.image)
            entries.append(SVEntry(name, cloud, instances, semantics, superpoints, image, matrix))
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        if isinstance(error, SuiteError):
            raise
        raise SuiteError(
            expected="a list as ESAM's update_infos_to_v2.py writes: data_list of lidar_points",
            found=f"{type(error).__name__}: {error}",
            where=str(path),
            cure="make it again, or remove it: the frames are then found by their names",
        ) from error
    return entries


def _derived(name: FrameName) -> SVEntry:
    return SVEntry(name, name.file, name.file, name.file, name.file, name.image, None)


def _not_the_layout(root: Path) -> SuiteError:
    return SuiteError(
        expected="ScanNet200-SV: a folder with points/, instance_mask/, semantic_mask/, "
        "super_points/, 2D/ and scannet200_sv_oneformer3d_infos_{train,val}.pkl",
        found="no points/ in it" if root.is_dir() else "no such folder",
        where=str(root),
        cure="correct data.init_args.root; null uses the embedded rooms",
    )
