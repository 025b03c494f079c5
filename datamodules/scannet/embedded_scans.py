"""The embedded rooms as plain ScanNet scans and as Pointcept's arrays: whole scenes.

A room's frames are joined to one mesh. As in ScanNet, objects are lists of segments of an
over-segmentation, so no segment belongs to two of them.
"""

import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from datamodules.embedded import generate_once
from datamodules.scannet import sv_layout as layout
from datamodules.scannet.classes import CLASSES
from datamodules.scannet.embedded_sv import (
    VIEWS,
    Preset,
    Scene,
    encoded,
    labels_of,
    scenes,
    world_points,
    write_label_table,
)
from datamodules.scannet.image_superpoints import image_superpoints
from datamodules.scannet.label_table import FILE_NAME
from datamodules.scannet.rendering import Frame, record
from datamodules.scannet.scan_files import AGGREGATIONS, ALIGNMENT, MESH, SEGMENTS
from datamodules.scannet.sens import SensFrame, SensHeader, write_sens

Array = npt.NDArray[Any]

_VERSION = 2
# Rooms to train and to evaluate.
SCENES: dict[Preset, tuple[int, int]] = {"tiny": (6, 2), "small": (16, 4), "base": (64, 16)}
_STEP = 20
# A vertex for each block of so many pixels.
_STRIDE = 5
_LONGEST_EDGE = 0.15


def generate_scans(preset: Preset, seed: int = 0) -> Path:
    """Folder of the embedded scenes as plain ScanNet; they are rendered on the first call.

    Args:
        preset: How many rooms: tiny 6 + 2, small 16 + 4, base 64 + 16.
        seed: Of the rooms.
    """
    name = f"scannet_scans_synthetic_{preset}_seed{seed}_v{_VERSION}"
    return generate_once(name, lambda folder: write_scans(folder, *SCENES[preset], seed))


def write_scans(
    folder: Path, train: int, val: int, seed: int = 0, views: int = VIEWS, sens: bool = False
) -> None:
    """Writes rendered rooms as plain ScanNet scans with exported frames.

    Args:
        folder: Empty folder.
        train: Rooms to train.
        val: Rooms to evaluate.
        seed: Of the rooms.
        views: Frames of each, at most four.
        sens: Write each scan's .sens recording in place of exported frames.
    """
    folder.mkdir(parents=True, exist_ok=True)
    first = 0
    for split, count in (("train", train), ("val", val)):
        names = []
        for scene in scenes(count * VIEWS, first, seed):
            _write_scan(folder / "scans" / scene.name, scene, views, sens)
            names.append(scene.name)
        (folder / layout.SCENE_LISTS.format(split=split)).write_text("\n".join(names) + "\n")
        first += count
    write_label_table(folder / FILE_NAME)


def _write_scan(folder: Path, scene: Scene, views: int, sens: bool) -> None:
    folder.mkdir(parents=True)
    frames = [record(scene.room, pose, scene.random) for pose in scene.poses[:views]]
    to_scan = np.linalg.inv(scene.align)
    parts = list(_meshes(frames, to_scan, scene.random))
    starts = np.cumsum([0] + [len(part["xyz"]) for part in parts])
    faces = np.concatenate([p["faces"] + s for p, s in zip(parts, starts, strict=False)])
    joined = {
        name: np.concatenate([part[name] for part in parts])
        for name in ("xyz", "rgb", "thing", "segment")
    }
    name = scene.name
    _write_mesh(folder / MESH.format(scene=name), joined["xyz"], joined["rgb"], faces)
    segments = {"sceneId": name, "segIndices": joined["segment"].tolist()}
    (folder / SEGMENTS.format(scene=name)).write_text(json.dumps(segments))
    groups = {"sceneId": name, "segGroups": _groups(scene, joined["segment"], joined["thing"])}
    (folder / AGGREGATIONS[0].format(scene=name)).write_text(json.dumps(groups))
    numbers = " ".join(f"{x:.6f}" for x in scene.align.ravel())
    text = f"axisAlignment = {numbers} \ncolorHeight = 480\nnumDepthFrames = {len(frames)}\n"
    (folder / ALIGNMENT.format(scene=name)).write_text(text)
    if sens:
        write_recording(folder / f"{name}.sens", frames, to_scan)
    else:
        _write_frames(folder, frames, to_scan)


def _meshes(
    frames: list[Frame], to_scan: Array, rng: np.random.Generator
) -> Iterator[dict[str, Array]]:
    """Vertices of each frame, every few pixels, and the faces between them."""
    for number, frame in enumerate(frames):
        labels = image_superpoints(frame.hits, rng)[::_STRIDE, ::_STRIDE]
        depth = frame.depth[::_STRIDE, ::_STRIDE]
        v, u = np.nonzero(depth > 100)
        place = np.full(depth.shape, -1)
        place[v, u] = np.arange(len(v))
        xyz = world_points(frame, to_scan @ frame.pose, v * _STRIDE, u * _STRIDE)
        yield {
            "xyz": xyz,
            "rgb": frame.color[v * _STRIDE, u * _STRIDE],
            "thing": frame.hits.thing[v * _STRIDE, u * _STRIDE],
            # Numbers with gaps, as those of the real files.
            "segment": (labels[v, u] + 1) * 8 + number,
            "faces": _faces(place, xyz),
        }


def _faces(place: Array, xyz: Array) -> Array:
    """Two triangles for each square of vertices whose edges are short, (F, 3)."""
    a, b, c, d = (
        p.ravel() for p in (place[:-1, :-1], place[:-1, 1:], place[1:, :-1], place[1:, 1:])
    )
    faces = np.concatenate((np.stack((a, c, b), 1), np.stack((b, c, d), 1)))
    faces = faces[(faces >= 0).all(1)]
    corners = xyz[faces]
    longest = np.linalg.norm(corners - np.roll(corners, 1, 1), axis=-1).max(1)
    kept: Array = faces[longest < _LONGEST_EDGE]
    return kept


def _groups(scene: Scene, segment: Array, thing: Array) -> list[dict[str, Any]]:
    """Objects as lists of segments; a segment belongs to what it shows most of."""
    ids, place = np.unique(segment, return_inverse=True)
    things = len(scene.room.things)
    counts = np.bincount(place * things + thing, minlength=len(ids) * things)
    owner = counts.reshape(len(ids), things).argmax(1)
    _, labels = labels_of(scene.room)
    names = {entry.id: entry.name for entry in CLASSES}
    owners = [k for k in np.unique(owner).tolist() if labels[k] > 0]
    return [
        {
            "id": number,
            "objectId": number,
            "label": names[int(labels[k])],
            "segments": ids[owner == k].tolist(),
        }
        for number, k in enumerate(owners)
    ]


def _write_mesh(path: Path, xyz: Array, rgb: Array, faces: Array) -> None:
    from plyfile import PlyData, PlyElement  # type: ignore[import-untyped]

    colors = [(name, "u1") for name in ("red", "green", "blue", "alpha")]
    vertex = np.empty(len(xyz), [(axis, "f4") for axis in "xyz"] + colors)
    for k, axis in enumerate("xyz"):
        vertex[axis] = xyz[:, k]
    for k, (name, _) in enumerate(colors):
        vertex[name] = rgb[:, k] if k < 3 else 255
    face = np.empty(len(faces), [("vertex_indices", "i4", (3,))])
    face["vertex_indices"] = faces
    elements = [PlyElement.describe(vertex, "vertex"), PlyElement.describe(face, "face")]
    PlyData(elements, byte_order="<").write(str(path))


def _write_frames(folder: Path, frames: list[Frame], to_scan: Array) -> None:
    for kind in ("color", "depth", "pose", "intrinsic"):
        (folder / kind).mkdir()
    matrix = np.eye(4)
    matrix[:3, :3] = layout.INTRINSICS
    for kind in ("color", "depth"):
        np.savetxt(folder / "intrinsic" / f"intrinsic_{kind}.txt", matrix, fmt="%.6f")
        np.savetxt(folder / "intrinsic" / f"extrinsic_{kind}.txt", np.eye(4), fmt="%.6f")
    for k, frame in enumerate(frames):
        (folder / "color" / f"{k * _STEP}.jpg").write_bytes(encoded(frame.color))
        depth = Image.fromarray(frame.depth)
        depth.save(folder / "depth" / f"{k * _STEP}.png", compress_level=1)
        np.savetxt(folder / "pose" / f"{k * _STEP}.txt", to_scan @ frame.pose, fmt="%.8f")


def write_recording(path: Path, frames: list[Frame], to_scan: Array) -> None:
    """Writes frames as a .sens recording.

    Args:
        path: File to write.
        frames: What the sensor saw.
        to_scan: (4, 4) from room axes to those of the scan.
    """
    matrix = np.eye(4, dtype=np.float32)
    matrix[:3, :3] = layout.INTRINSICS
    eye = np.eye(4, dtype=np.float32)
    size = layout.IMAGE_SIZE
    header = SensHeader(
        "rendered", matrix, eye, matrix, eye, "jpg", "zlib", size, size, 1000.0, len(frames)
    )
    shots = [
        SensFrame(k, to_scan @ f.pose, encoded(f.color), zlib.compress(f.depth.tobytes(), 1))
        for k, f in enumerate(frames)
    ]
    write_sens(path, header, shots)
