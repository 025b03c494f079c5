"""BVH files, read back by a reader of their grammar."""

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from blocks.errors import SuiteError
from blocks.geometry.motion_skeleton import HUMANML3D, KIT, MotionSkeleton
from lightning_modules.motion.bvh import euler_angles, swing_rotations, write_bvh
from tests.lightning_modules.motion.bodies import standing, walking


def axis_rotation(axis: str, degrees: float) -> Tensor:
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    rows = {
        "X": [[1, 0, 0], [0, c, -s], [0, s, c]],
        "Y": [[c, 0, s], [0, 1, 0], [-s, 0, c]],
        "Z": [[c, -s, 0], [s, c, 0], [0, 0, 1]],
    }[axis]
    return torch.tensor(rows, dtype=torch.float64)


def read_bvh(path: Path) -> tuple[dict[str, Tensor], float]:
    """Places (T, 3) of every joint by name, by forward kinematics; and the time of a frame."""
    words = path.read_text().split()
    stack: list[str] = []
    parents: dict[str, str | None] = {}
    offsets: dict[str, Tensor] = {}
    channels: list[tuple[str, str]] = []
    i = 1
    while words[i] != "MOTION":
        if words[i] in ("ROOT", "JOINT"):
            parents[words[i + 1]] = stack[-1] if stack else None
            stack.append(words[i + 1])
            i += 3
        elif words[i] == "End":
            stack.append("end")
            i += 3
        elif words[i] == "OFFSET":
            if stack[-1] != "end":
                offsets[stack[-1]] = torch.tensor([float(w) for w in words[i + 1 : i + 4]]).double()
            i += 4
        elif words[i] == "CHANNELS":
            count = int(words[i + 1])
            channels += [(stack[-1], name) for name in words[i + 2 : i + 2 + count]]
            i += 2 + count
        else:
            assert words[i] == "}"
            stack.pop()
            i += 1
    frames, seconds = int(words[i + 2]), float(words[i + 5])
    rows = torch.tensor([float(w) for w in words[i + 6 :]]).view(frames, len(channels))
    places: dict[str, list[Tensor]] = {name: [] for name in parents}
    for row in rows:
        rotation = {name: torch.eye(3, dtype=torch.float64) for name in parents}
        moved = {name: offset.clone() for name, offset in offsets.items()}
        for (name, channel), value in zip(channels, row.tolist(), strict=True):
            if channel.endswith("rotation"):
                rotation[name] = rotation[name] @ axis_rotation(channel[0], value)
            else:
                moved[name]["XYZ".index(channel[0])] += value
        world: dict[str, Tensor] = {}
        at: dict[str, Tensor] = {}
        for name, parent in parents.items():
            if parent is None:
                world[name], at[name] = rotation[name], moved[name]
            else:
                at[name] = at[parent] + world[parent] @ moved[name]
                world[name] = world[parent] @ rotation[name]
            places[name].append(at[name])
    return {name: torch.stack(track) for name, track in places.items()}, seconds


@pytest.mark.parametrize("skeleton", [HUMANML3D, KIT], ids=lambda s: s.name)
def test_a_reader_finds_every_joint_where_it_was(tmp_path: Path, skeleton: MotionSkeleton) -> None:
    joints = walking(12, skeleton)
    write_bvh(tmp_path / "walk.bvh", joints, skeleton)
    places, seconds = read_bvh(tmp_path / "walk.bvh")
    assert tuple(sorted(places)) == tuple(sorted(skeleton.joints))
    assert seconds == pytest.approx(1 / skeleton.fps, abs=1e-6)
    for number, name in enumerate(skeleton.joints):
        expected = joints[:, number].double() / skeleton.metre
        torch.testing.assert_close(places[name], expected, rtol=0, atol=2e-4)


@pytest.mark.parametrize("skeleton", [HUMANML3D, KIT], ids=lambda s: s.name)
def test_a_body_at_rest_is_not_rotated(skeleton: MotionSkeleton) -> None:
    _, rotations = swing_rotations(standing(skeleton)[None].repeat(3, 1, 1), skeleton)
    torch.testing.assert_close(
        rotations, torch.eye(3).double().expand_as(rotations), rtol=0, atol=1e-5
    )


def test_bones_keep_their_mean_length_where_a_motion_stretches_them() -> None:
    joints = walking(10)
    joints[5:, 20] += joints[5:, 20] - joints[5:, 18]
    offsets, _ = swing_rotations(joints, HUMANML3D)
    assert float(offsets[20].norm()) == pytest.approx(0.3, abs=1e-4)


def test_angles_at_the_pole_give_the_rotation_back() -> None:
    for angles in ((10.0, 90.0, 20.0), (0.0, -90.0, 50.0), (-170.0, 30.0, 179.0)):
        z, y, x = angles
        rotation = axis_rotation("Z", z) @ axis_rotation("Y", y) @ axis_rotation("X", x)
        found = euler_angles(rotation).tolist()
        again = axis_rotation("Z", found[0]) @ axis_rotation("Y", found[1])
        again = again @ axis_rotation("X", found[2])
        torch.testing.assert_close(again, rotation, rtol=0, atol=1e-6)


def test_features_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SuiteError, match="places of joints"):
        write_bvh(tmp_path / "a.bvh", torch.zeros(5, 263), HUMANML3D)
    assert not list(tmp_path.iterdir())
