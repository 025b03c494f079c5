"""The embedded rooms: rays that hit what they should, furniture that stands where it can."""

import hashlib
from pathlib import Path

import numpy as np
import pytest

from datamodules.scannet.embedded_sv import HASH, Size, write_sv
from datamodules.scannet.furniture import KINDS, Part
from datamodules.scannet.image_superpoints import image_superpoints, relabelled
from datamodules.scannet.ray_casting import SHELL, Hits, cast
from datamodules.scannet.rendering import INTRINSICS, viewpoints
from datamodules.scannet.rooms import Room, Thing, furnished_room

SMALL = INTRINSICS / np.array([[8], [8], [1]])
WIDTH, HEIGHT = 80, 60


def seen(seed: int) -> tuple[Room, np.ndarray, Hits]:
    for attempt in range(20):
        rng = np.random.default_rng([seed, attempt])
        room = furnished_room(rng)
        if poses := viewpoints(room, 1, rng):
            return room, poses[0], cast(room, poses[0], SMALL, WIDTH, HEIGHT)
    raise AssertionError("no room with a view")


def inside(part: Part, points: np.ndarray, slack: float) -> np.ndarray:
    """Which points in the part's axes lie within it, by its definition."""
    unit = np.abs(points - part.centre) / (np.array(part.half) + slack)
    if part.shape == "box":
        return unit.max(-1) <= 1
    if part.shape == "cylinder":
        return (np.hypot(unit[..., 0], unit[..., 1]) <= 1) & (unit[..., 2] <= 1)
    return np.linalg.norm(unit, axis=-1) <= 1


@pytest.mark.parametrize("seed", range(3))
def test_rays_end_at_the_first_surface(seed: int) -> None:
    """Marching along each ray meets no solid before the depth, and the named solid at it."""
    room, pose, hits = seen(seed)
    u, v = np.meshgrid(np.arange(WIDTH), np.arange(HEIGHT))
    flat = np.stack(((u - SMALL[0, 2]) / SMALL[0, 0], (v - SMALL[1, 2]) / SMALL[1, 1]), -1)
    rays = np.concatenate((flat, np.ones((HEIGHT, WIDTH, 1))), -1) @ pose[:3, :3].T
    solids = [(thing, part) for thing in room.things for part in thing.parts]
    hit = pose[:3, 3] + hits.depth[..., None] * rays
    assert ((hit > -1e-6) & (hit < np.array(room.size) + 1e-6)).all()
    for number, (thing, part) in enumerate(solids, SHELL):
        cos, sin = np.cos(thing.yaw), np.sin(thing.yaw)
        turn = np.array([(cos, -sin, 0), (sin, cos, 0), (0, 0, 1)])
        own = (hit - thing.position) @ turn
        here = hits.part == number
        assert inside(part, own[here], 1e-6).all(), "its own hits lie on it"
        for share in (0.35, 0.7, 0.9, 0.99):
            before = pose[:3, 3] + share * hits.depth[..., None] * rays
            early = inside(part, (before - thing.position) @ turn, -1e-6)
            assert not early.any(), f"{part} is in front of what was hit"


def test_normals_face_the_camera_and_have_length_one() -> None:
    _, pose, hits = seen(5)
    np.testing.assert_allclose(np.linalg.norm(hits.normal, axis=-1), 1, atol=1e-9)
    u, v = np.meshgrid(np.arange(WIDTH), np.arange(HEIGHT))
    flat = np.stack(((u - SMALL[0, 2]) / SMALL[0, 0], (v - SMALL[1, 2]) / SMALL[1, 1]), -1)
    rays = np.concatenate((flat, np.ones((HEIGHT, WIDTH, 1))), -1) @ pose[:3, :3].T
    assert ((rays * hits.normal).sum(-1) < 1e-6).all()


@pytest.mark.parametrize("label", KINDS)
def test_furniture_stands_on_the_floor_within_its_size(label: int) -> None:
    w, d, h = KINDS[label].size
    parts = KINDS[label].make(w, d, h, np.random.default_rng(0))
    low = np.min([np.array(part.centre) - part.half for part in parts], 0)
    high = np.max([np.array(part.centre) + part.half for part in parts], 0)
    assert low[2] >= -0.08, "nothing sinks into the floor"
    assert high[2] <= h * 1.15 + 0.2 and (high - low)[:2].max() <= 1.3 * max(w, d) + 0.15
    assert all(min(part.half) > 0 and part.tone > 0 for part in parts)


def test_furniture_does_not_overlap() -> None:
    room = furnished_room(np.random.default_rng(4))
    boxes = room.footprints
    assert len(boxes) >= 5
    for i, a in enumerate(boxes):
        for b in boxes[:i]:
            assert a[0] >= b[2] or a[2] <= b[0] or a[1] >= b[3] or a[3] <= b[1]


def test_superpoints_keep_to_things_but_not_without_error() -> None:
    room, pose, _ = seen(2)
    hits = cast(room, pose, INTRINSICS, 640, 480)
    labels = relabelled(image_superpoints(hits, np.random.default_rng(0)))
    count = labels.max() + 1
    things = len(room.things)
    table = np.bincount(labels.ravel() * things + hits.thing.ravel(), minlength=count * things)
    purity = table.reshape(count, things).max(1).sum() / labels.size
    assert 40 <= count <= 200 and 0.9 < purity < 1


def test_a_seed_gives_the_same_data_every_time(tmp_path: Path, rendered_frames: Path) -> None:
    write_sv(tmp_path, Size(3, 2, 1500), seed=1)
    kinds = {".bin", ".npy", ".png", ".jpg", ".pkl"}
    files = [p for p in sorted(rendered_frames.rglob("*")) if p.suffix in kinds]
    assert len(files) == 5 * 4 + 5 * 3 + 2
    for path in files:
        twin = tmp_path / path.relative_to(rendered_frames)
        assert (
            hashlib.sha256(path.read_bytes()).digest() == hashlib.sha256(twin.read_bytes()).digest()
        )
    assert (tmp_path / HASH).read_text() == (rendered_frames / HASH).read_text()


def test_an_empty_room_is_its_box() -> None:
    shell = [Thing(1, (), (0, 0, 0), 0, (1, 1, 1), "plain") for _ in range(SHELL)]
    pose = np.eye(4)
    pose[:3] = np.array([(1, 0, 0, 2), (0, 0, 1, 1), (0, -1, 0, 1.5)])
    hits = cast(Room((4, 5, 3), shell), pose, SMALL, WIDTH, HEIGHT)
    middle = hits.depth[HEIGHT // 2, WIDTH // 2]
    assert middle == pytest.approx(4, abs=1e-9), "it looks along y, from y = 1 to the wall at 5"
    assert set(np.unique(hits.part)) <= {0, 1, 3, 4, 5}
