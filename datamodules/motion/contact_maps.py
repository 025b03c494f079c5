"""What stands around a body, and where it touches it (afford-motion/afford-motion).

A map gives each point of a scene six numbers, one for the pelvis, the feet, the neck and the
wrists: exp(-d^2 / (2 sigma^2)) of the smallest distance d over time.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from blocks.errors import SuiteError
from blocks.geometry.motion_features import recover_joints, recover_root
from blocks.geometry.motion_rotations import turned
from blocks.geometry.motion_skeleton import MotionSkeleton
from datamodules.motion.motion_folder import MotionFolder

Contacts = Literal["none", "floor", "files"]
_MARGIN = 0.6  # Metres of floor beyond the body's path.


@dataclass(frozen=True)
class Scene:
    """How scenes are made.

    Args:
        kind: `floor`: a patch of floor under the body's path; `files`: `contacts/<id>.npz` with
            `points` (N, 3) and `dist` (N, 22), metres.
        points: Points of a scene, N.
        sigma: Width of a contact, metres.
        predicted: Folder with <id>-<caption>.npy, (K, N, 6) predicted distances, or null.
        predicted_share: How often training takes a prediction; evaluation always does.
    """

    kind: Literal["floor", "files"] = "floor"
    points: int = 1024
    sigma: float = 0.8
    predicted: Path | None = None
    predicted_share: float = 0.5


def scene_of(
    scene: Scene,
    folder: MotionFolder,
    name: str,
    clip: Tensor,
    rows: tuple[int, int],
    caption: int,
    draw: bool,
) -> dict[str, Tensor]:
    """Points (N, 3) and contact (N, 6) around some rows of a clip, seen from the first of them.

    Args:
        scene: How it is made.
        folder: The data set.
        name: Id of the clip.
        clip: Its features (T, D).
        rows: First row and the one after the last.
        caption: Number of the caption, which names a prediction.
        draw: Whether predictions and points are drawn; false takes the same ones always.
    """
    if scene.kind == "floor":
        joints = recover_joints(clip[slice(*rows)], folder.skeleton)
        points = floor_patch(joints, folder.skeleton, scene.points, draw)
        distance = distances(points, joints[:, list(folder.skeleton.contact_joints)])
    else:
        points, distance = _stored(folder, name, scene, caption, draw)
        points = _seen_from(points, clip, rows[0])
    return {"points": points, "contact": contact_map(distance, scene.sigma * folder.skeleton.metre)}


def contact_map(distance: Tensor, sigma: float) -> Tensor:
    """exp(-d^2 / (2 sigma^2)): 1 where they touch, 0 far away.

    Args:
        distance: Any shape.
        sigma: In the same unit.
    """
    return torch.exp(-distance.square() / (2 * sigma**2))


def distances(points: Tensor, joints: Tensor) -> Tensor:
    """Smallest distance (N, K) over time from points (N, 3) to joints (T, K, 3)."""
    apart = torch.cdist(points, joints.flatten(0, 1), compute_mode="donot_use_mm_for_euclid_dist")
    return apart.view(len(points), *joints.shape[:2]).amin(1)


def floor_patch(joints: Tensor, skeleton: MotionSkeleton, points: int, draw: bool) -> Tensor:
    """Points (N, 3) on y = 0 under the path of a body (T, J, 3), spread evenly.

    Args:
        joints: Places.
        skeleton: Gives the unit.
        points: N.
        draw: Shift the pattern at random.
    """
    margin = _MARGIN * skeleton.metre
    ground = joints[:, 0, [0, 2]]
    low, high = ground.amin(0) - margin, ground.amax(0) + margin
    # The R2 sequence (Roberts, 2018): even, of any number of points, without a grid's rows.
    ratio = 1.32471795724474602596
    number = torch.arange(1, points + 1, dtype=torch.float64).unsqueeze(1)
    steps = torch.tensor([1 / ratio, 1 / ratio**2], dtype=torch.float64)
    shift = torch.rand(2, dtype=torch.float64) if draw else torch.full((2,), 0.5).double()
    place = low + ((shift + number * steps) % 1).to(low) * (high - low)
    return torch.stack((place[:, 0], torch.zeros(points), place[:, 1]), -1)


def _stored(
    folder: MotionFolder, clip: str, scene: Scene, caption: int, draw: bool
) -> tuple[Tensor, Tensor]:
    file = folder.root / "contacts" / f"{clip}.npz"
    if not file.is_file():
        raise SuiteError(
            expected="points and distances of every clip",
            found="no such file",
            where=str(file),
            cure="complete the folder contacts, or choose data.init_args.contacts: floor",
        )
    with np.load(file, allow_pickle=False) as stored:
        content: dict[str, Any] = {name: stored[name] for name in stored.files}
    points, dist = content.get("points"), content.get("dist")
    joints = folder.skeleton.num_joints
    if points is None or dist is None or dist.shape != (len(points), joints):
        shapes = {name: array.shape for name, array in content.items()}
        raise SuiteError(
            expected=f"points (N, 3 or more) and dist (N, {joints})",
            found=str(shapes),
            where=str(file),
            cure="write the file again",
        )
    distance = torch.from_numpy(dist[:, list(folder.skeleton.contact_joints)]).float()
    if scene.predicted is not None and not (draw and torch.rand(()) >= scene.predicted_share):
        distance = _predicted(scene.predicted / f"{clip}-{caption}.npy", len(points), draw)
    xyz = torch.from_numpy(points[:, :3]).float()
    if len(xyz) < scene.points:
        raise SuiteError(
            expected=f"at least {scene.points} points",
            found=f"{len(xyz)}",
            where=str(file),
            cure="lower data.init_args.num_points",
        )
    # Every n-th: the files' points are in no order that would favour a part of the scene.
    keep = torch.linspace(0, len(xyz) - 1, scene.points).round().long()
    if draw:
        keep = torch.randperm(len(xyz))[: scene.points]
    return xyz[keep], distance[keep]


def _predicted(file: Path, points: int, draw: bool) -> Tensor:
    if not file.is_file():
        raise SuiteError(
            expected="predicted distances of every caption",
            found="no such file",
            where=str(file),
            cure="predict them first, or leave data.init_args.predicted_contacts out",
        )
    maps = torch.from_numpy(np.load(file, allow_pickle=False)).float()
    if maps.ndim != 3 or maps.shape[1:] != (points, 6):
        raise SuiteError(
            expected=f"distances (K, {points}, 6)",
            found=f"shape {tuple(maps.shape)}",
            where=str(file),
            cure="predict them again for the points of contacts/",
        )
    return maps[int(torch.randint(len(maps), ())) if draw else 0]


def _seen_from(points: Tensor, features: Tensor, row: int) -> Tensor:
    """Points of a clip as they are when its first row is another one."""
    angle, root = recover_root(features[: row + 1])
    ground = root[-1] * root.new_tensor((1.0, 0.0, 1.0))
    return turned(points - ground, -angle[-1])
