"""The embedded ScanNet200-SV: rendered rooms in the true layout, made once into the cache."""

import hashlib
import io
import pickle
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from datamodules.embedded import generate_once
from datamodules.scannet import sv_layout as layout
from datamodules.scannet.classes import CLASSES
from datamodules.scannet.image_superpoints import image_superpoints, relabelled
from datamodules.scannet.rendering import Frame, record, viewpoints
from datamodules.scannet.rooms import Room, furnished_room
from datamodules.scannet.sv_layout import FrameName, Split

Array = npt.NDArray[Any]
Preset = Literal["tiny", "small", "base"]

HASH = "meta_data/content_hash.txt"
_VERSION = 2
_STEP = 200
# A room is seen from so many places.
VIEWS = 4
_QUALITY = 92


class Size(NamedTuple):
    """Size of an embedded set: frames to train and to evaluate, points of each."""

    train: int
    val: int
    points: int


SIZES: dict[Preset, Size] = {
    "tiny": Size(48, 16, 6_000),
    "small": Size(64, 16, 20_000),
    "base": Size(256, 64, 20_000),
}


@dataclass(frozen=True)
class Scene:
    """A room with its cameras in the axes of its scan.

    Args:
        name: Such as scene0000_00.
        room: What is in it.
        poses: Cameras in room axes.
        align: (4, 4) from the scan's axes to the room's.
        random: What its frames are drawn with.
    """

    name: str
    room: Room
    poses: list[Array]
    align: Array
    random: np.random.Generator


def generate_sv(preset: Preset, seed: int = 0) -> Path:
    """Folder of the embedded frames; they are rendered on the first call.

    Args:
        preset: How much: tiny 48 + 16 frames of 6,000 points (half a minute), small 64 + 16 and
            base 256 + 64 frames of 20,000.
        seed: Of the rooms.
    """
    size = SIZES[preset]
    name = f"scannet200_sv_synthetic_{preset}_seed{seed}_v{_VERSION}"
    return generate_once(name, lambda folder: write_sv(folder, size, seed))


def write_sv(folder: Path, size: Size, seed: int = 0) -> None:
    """Writes rendered rooms as ScanNet200-SV.

    Args:
        folder: Empty folder.
        size: How much.
        seed: Of the rooms.
    """
    digest = hashlib.sha256()
    splits: dict[Split, int] = {"train": size.train, "val": size.val}
    first = 0
    for split, frames in splits.items():
        items = []
        for scene in scenes(frames, first, seed):
            for place, pose in enumerate(scene.poses):
                frame = record(scene.room, pose, scene.random)
                name = FrameName(scene.name, place * _STEP)
                items.append(_write_frame(folder, name, scene, frame, size.points, digest))
        first += -(-frames // VIEWS)
        _write_lists(folder, split, items)
    write_label_table(folder / "meta_data" / layout.LABELS)
    (folder / HASH).write_text(digest.hexdigest()[:16] + "\n")


def scenes(frames: int, first: int, seed: int) -> Iterator[Scene]:
    """Rooms that have enough to see.

    Args:
        frames: Views of all of them together.
        first: Number of the first scene.
        seed: Of the rooms.
    """
    for number in range(first, first + -(-frames // VIEWS)):
        wanted = min(VIEWS, frames - (number - first) * VIEWS)
        attempt, poses = 0, list[Array]()
        while len(poses) < wanted:
            rng = np.random.default_rng([seed, number, attempt])
            room = furnished_room(rng)
            poses = viewpoints(room, wanted, rng)
            attempt += 1
        # Scans stand in the axes of the device that made them, upright but turned.
        turn, align = float(rng.uniform(-np.pi, np.pi)), np.eye(4)
        align[:2, :2] = (np.cos(turn), -np.sin(turn)), (np.sin(turn), np.cos(turn))
        yield Scene(f"scene{number:04d}_00", room, poses, align, rng)


def labels_of(room: Room) -> tuple[Array, Array]:
    """Instance, from 1, and label of each thing of a room; 0 and 0 where nobody labelled it."""
    labels = np.array([thing.label for thing in room.things], dtype=np.int64)
    instances = np.where(labels > 0, np.cumsum(labels > 0), 0)
    return instances, labels


def encoded(color: Array) -> bytes:
    """An image as JPEG."""
    buffer = io.BytesIO()
    Image.fromarray(color).save(buffer, "JPEG", quality=_QUALITY)
    return buffer.getvalue()


def world_points(frame: Frame, pose: Array, v: Array, u: Array) -> Array:
    """Points (P, 3) of pixels with depth, in the axes that a pose leads to."""
    z = frame.depth[v, u] / 1000
    k = layout.INTRINSICS
    camera = np.stack(((u - k[0, 2]) / k[0, 0] * z, (v - k[1, 2]) / k[1, 1] * z, z), -1)
    xyz: Array = camera @ pose[:3, :3].T + pose[:3, 3]
    return xyz


def write_label_table(path: Path) -> None:
    """Writes the label table with the 200 classes, as far as readers need it."""
    rows = ["id\traw_category\tcategory\tcount\tnyu40id"]
    rows += [f"{c.id}\t{c.name}\t{c.name}\t1\t{c.nyu40}" for c in CLASSES]
    # Several raw names share an id in the real table too.
    rows.append("2\tstack of chairs\tchair\t1\t5")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(rows) + "\n")


def _write_frame(
    folder: Path,
    name: FrameName,
    scene: Scene,
    frame: Frame,
    count: int,
    digest: Any,
) -> dict[str, Any]:
    """Writes one frame; returns its entry in the list."""
    rng = scene.random
    pose = np.linalg.inv(scene.align) @ frame.pose
    v, u = np.nonzero(frame.depth > 100)
    centre = world_points(frame, pose, v, u).mean(0)
    chosen = rng.choice(len(v), count, replace=len(v) < count)
    v, u = v[chosen], u[chosen]
    jpeg = encoded(frame.color)
    rgb = np.asarray(Image.open(io.BytesIO(jpeg)))[v, u]
    points = np.concatenate((world_points(frame, pose, v, u) - centre, rgb), 1).astype(np.float32)
    thing = frame.hits.thing[v, u]
    instances, labels = labels_of(scene.room)
    superpoints = relabelled(image_superpoints(frame.hits, rng)[v, u])
    arrays = {
        layout.POINTS: points,
        layout.INSTANCES: instances[thing],
        layout.SEMANTICS: labels[thing],
        layout.SUPERPOINTS: superpoints,
    }
    for kind, array in arrays.items():
        digest.update(array.tobytes())
        _folder(folder / kind)
        array.tofile(folder / kind / name.file)
    centred = pose.copy()
    centred[:3, 3] -= centre
    _folder((folder / name.pose).parent)
    np.save(folder / name.pose, centred)
    images = folder / layout.IMAGES / scene.name
    for kind in ("color", "depth", "pose"):
        _folder(images / kind)
    (folder / name.image).write_bytes(jpeg)
    Image.fromarray(frame.depth).save(folder / name.depth, compress_level=1)
    np.savetxt(images / "pose" / f"{name.number}.txt", pose, fmt="%.8f")
    return {
        "lidar_points": {"num_pts_feats": 6, "lidar_path": name.file},
        "pts_semantic_mask_path": name.file,
        "pts_instance_mask_path": name.file,
        "super_pts_path": name.file,
        "img_path": name.image,
        "pose": centred,
        "axis_align_matrix": scene.align.tolist(),
        "instances": [],
    }


def _write_lists(folder: Path, split: Split, items: list[dict[str, Any]]) -> None:
    infos = {
        "metainfo": {
            "categories": {entry.name: place for place, entry in enumerate(CLASSES)},
            "dataset": "scannet200_sv",
            "info_version": "1.1",
        },
        "data_list": items,
    }
    with (folder / layout.INFOS[0].format(split=split)).open("wb") as file:
        pickle.dump(infos, file, protocol=4)
    names = [Path(item["super_pts_path"]).stem for item in items]
    _folder(folder / "meta_data")
    (folder / "meta_data" / layout.LISTS.format(split=split)).write_text("\n".join(names) + "\n")


def _folder(path: Path) -> None:
    path.mkdir(parents=True, exist_ok=True)
