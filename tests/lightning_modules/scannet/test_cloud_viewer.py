"""Clouds for people: colours, PLY files, and the page with every point where it belongs."""

import base64
import json
import re
from pathlib import Path

import numpy as np
from plyfile import PlyData

from lightning_modules.scannet.cloud_files import write_clouds
from lightning_modules.scannet.cloud_viewer import cloud_page
from lightning_modules.scannet.instance_pictures import overlay_figure
from lightning_modules.scannet.shown_cloud import (
    ShownCloud,
    colour_of,
    found_labelling,
    heat,
    true_labelling,
)


def cloud(points: int = 40, share: bool = True) -> ShownCloud:
    rng = np.random.default_rng(0)
    instance = np.repeat([-1, 3, 8, 8], points // 4)
    truth = true_labelling(instance, np.where(instance == 3, 1, 3), ["wall", "chair", "f", "table"])
    masks = np.stack((instance == 8, instance == 3, instance == -1))
    return ShownCloud(
        "scene0000_00/0</script>",
        rng.uniform(-2, 3, (points, 3)).astype(np.float32),
        rng.integers(0, 256, (points, 3)).astype(np.uint8),
        found_labelling(masks, ["table 0.9", "chair 0.8", "chair 0.2"], truth),
        truth,
        rng.uniform(0, 1, points) if share else None,
    )


def test_instances_keep_their_colours_and_right_finds_take_them() -> None:
    shown = cloud()
    assert shown.truth is not None
    assert shown.truth.names == ["chair", "table"] and shown.truth.colours == [3, 8]
    right = shown.truth.number >= 0
    assert np.array_equal(shown.prediction.rgb[right], shown.truth.rgb[right])
    assert (shown.truth.rgb[~right] == 128).all() and (shown.prediction.rgb[~right] != 128).any()
    assert len({colour_of(i) for i in range(60)}) == 60


def test_better_instances_lie_on_top_and_nothing_found_is_fine() -> None:
    masks = np.array([[True, False, True], [True, True, False]])
    assert found_labelling(masks, ["a", "b"]).number.tolist() == [0, 1, 0]
    nothing = found_labelling(np.zeros((0, 3), bool), [])
    assert nothing.number.tolist() == [-1, -1, -1] and (nothing.rgb == 128).all()


def test_heat_runs_from_blue_to_red() -> None:
    colours = heat(np.array([0.0, 0.5, 1.0, 2.0])).astype(int)
    assert colours[0, 2] > colours[0, 0] and colours[2, 0] > colours[2, 2]
    assert (colours[2] == colours[3]).all() and len(set(colours[1])) == 1


def test_ply_files_are_read_by_others(tmp_path: Path) -> None:
    shown = cloud()
    write_clouds(tmp_path, "a", shown)
    found = {path.name for path in tmp_path.iterdir()}
    assert found == {f"a_{mode}.ply" for mode in ("input", "truth", "prediction", "gate")}
    vertex = PlyData.read(str(tmp_path / "a_truth.ply"))["vertex"]
    assert np.array_equal(np.stack([vertex[n] for n in "xyz"], 1), shown.xyz)
    assert shown.truth is not None
    assert np.array_equal(vertex["instance"], shown.truth.number)
    assert np.array_equal(vertex["red"], shown.truth.rgb[:, 0])
    gate = PlyData.read(str(tmp_path / "a_gate.ply"))["vertex"]
    assert shown.share is not None
    assert np.allclose(gate["share"], shown.share)


def test_the_page_holds_every_point_and_lets_no_name_out() -> None:
    shown = cloud()
    page = cloud_page([shown, cloud(share=False)], "<b>")
    data = re.search(r'id="clouds">(.*?)</script>', page, re.DOTALL)
    assert data is not None and page.count("</script>") == 2 and "<b>" not in page
    first, second = json.loads(data[1])
    xyz = np.frombuffer(base64.b64decode(first["xyz"]), "<u2").reshape(-1, 3) * first["step"]
    assert np.abs(xyz + shown.xyz.min(0) - shown.xyz).max() <= first["step"]
    assert [mode["name"] for mode in first["modes"]] == ["input", "truth", "prediction", "gate"]
    assert [mode["name"] for mode in second["modes"]] == ["input", "truth", "prediction"]
    ids = np.frombuffer(base64.b64decode(first["modes"][1]["ids"]), "<u2")
    assert shown.truth is not None and np.array_equal(ids.astype(int) - 1, shown.truth.number)
    assert first["modes"][1]["names"] == ["", "chair", "table"]
    assert "default-src 'none'" in page and "http" not in page.replace("http-equiv", "")


def test_a_large_cloud_is_thinned_for_the_page() -> None:
    page = cloud_page([cloud(100_000)], "large")
    assert len(page) < 2_000_000


def test_scenes_are_drawn_from_above_and_frames_as_their_camera_saw_them() -> None:
    assert len(overlay_figure([cloud(), cloud(share=False)]).axes) == 7
