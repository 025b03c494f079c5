"""ScanNet200-SV: what is written is what is read, whatever lists there are."""

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from blocks.errors import SuiteError
from datamodules.scannet import PointAugment, ScanNet200SVDataModule
from datamodules.scannet.classes import CLASS_IDS, IGNORE

LIST = "scannet200_sv_oneformer3d_infos_{}.pkl"


def module(root: Path, stage: str = "fit", **options: Any) -> ScanNet200SVDataModule:
    data = ScanNet200SVDataModule(
        str(root), **{"num_workers": 0, "batch_size": 2, "pin_memory": False, **options}
    )
    data.prepare_data()
    data.setup(stage)
    return data


def evaluation(root: Path, **options: Any) -> list[dict[str, Any]]:
    return list(module(root, "validate", val_batch_size=1, **options).val_dataloader())


def rewrite(root: Path, split: str, **changes: Any) -> None:
    path = root / LIST.format(split)
    content = pickle.loads(path.read_bytes())
    for item in content["data_list"]:
        item.update(changes)
    path.write_bytes(pickle.dumps(content))


def test_a_batch_is_what_the_files_hold(frames: Path) -> None:
    batch = evaluation(frames)[0]
    scene, number = batch["frame"][0].split("/")
    name = f"{scene}_{number}.bin"
    points = np.fromfile(frames / "points" / name, np.float32).reshape(-1, 6)
    np.testing.assert_array_equal(batch["xyz"].numpy(), points[:, :3])
    np.testing.assert_array_equal(batch["rgb"].numpy(), points[:, 3:])
    instance = np.fromfile(frames / "instance_mask" / name, np.int64)
    np.testing.assert_array_equal(batch["instance"].numpy(), instance - 1)
    ids = np.fromfile(frames / "semantic_mask" / name, np.int64)
    expected = [CLASS_IDS.index(i) if i in CLASS_IDS else IGNORE for i in ids.tolist()]
    assert batch["semantic"].tolist() == expected
    assert batch["image"].shape == (1, 3, 224, 304)
    assert batch["superpoint"].unique().tolist() == list(range(int(batch["superpoint"].max()) + 1))


def test_points_show_the_colour_of_their_pixel(frames: Path) -> None:
    """uv is where the point came from: the image there has its colour."""
    from PIL import Image

    for batch in evaluation(frames):
        assert batch["uv_valid"].all()
        scene, number = batch["frame"][0].split("/")
        image = np.asarray(Image.open(frames / "2D" / scene / "color" / f"{number}.jpg"))
        u, v = batch["uv"].round().long().T.numpy()
        np.testing.assert_array_equal(image[v, u], batch["rgb"].numpy())
        torch.testing.assert_close(batch["uv"], batch["uv"].round(), rtol=0, atol=2e-3)


def test_frames_are_found_without_pickles(frames: Path) -> None:
    before = evaluation(frames)
    for path in frames.glob("*.pkl"):
        path.unlink()
    after = evaluation(frames)
    for a, b in zip(before, after, strict=True):
        assert a["frame"] == b["frame"]
        torch.testing.assert_close(a["uv"], b["uv"])
    for path in (frames / "meta_data").glob("*sv_*.txt"):
        path.unlink()
    with pytest.raises(SuiteError, match="scannetv2_sv_val.txt"):
        module(frames, "validate")
    scenes = {batch["frame"][0].split("/")[0] for batch in before}
    (frames / "meta_data" / "scannetv2_val.txt").write_text("\n".join(scenes))
    assert {b["frame"][0] for b in evaluation(frames)} == {b["frame"][0] for b in before}


def test_lists_of_the_reference_fork_are_read(frames: Path) -> None:
    """They have another name, whole paths and keys of their own."""
    for split in ("train", "val"):
        rewrite(frames, split, clip_feature_path="x.npy", extra={"deep": np.ones(3)})
        (frames / LIST.format(split)).rename(
            frames / f"scannet200_sv_oneformer3d_infos_{split}_clip.pkl"
        )
    assert len(evaluation(frames)) == 2 and module(frames).info.num_train == 3


def test_a_pickle_that_runs_code_is_refused(frames: Path) -> None:
    class Hostile:
        def __reduce__(self) -> Any:
            return os.system, ("echo hello",)

    (frames / LIST.format("val")).write_bytes(pickle.dumps({"data_list": [Hostile()]}))
    with pytest.raises(SuiteError, match="asks to call"):
        module(frames, "validate")


@pytest.mark.parametrize("change", ["pose", "unit"])
def test_a_wrong_pose_or_unit_is_refused(frames: Path, change: str) -> None:
    if change == "pose":
        turned = np.eye(4)
        turned[:3, :3] = np.array([(0, 0, 1), (1, 0, 0), (0, 1, 0)])
        rewrite(frames, "val", pose=turned)
    else:
        for path in (frames / "points").glob("*.bin"):
            (np.fromfile(path, np.float32) * 1000).tofile(path)
    with pytest.raises(SuiteError, match="inside their own image"):
        evaluation(frames)


def test_frames_without_a_pose_are_left_out_and_counted(frames: Path) -> None:
    path = frames / LIST.format("train")
    content = pickle.loads(path.read_bytes())
    content["data_list"][0]["pose"][1, 2] = np.inf
    path.write_bytes(pickle.dumps(content))
    with pytest.warns(UserWarning, match="1 frames"):
        data = module(frames)
    assert (data.info.num_train, data.info.left_out) == (2, 1)


@pytest.mark.parametrize("kind", ["points", "instance_mask", "super_points"])
@pytest.mark.parametrize("damage", ["missing", "cut", "short"])
def test_broken_files_are_named(frames: Path, kind: str, damage: str) -> None:
    path = sorted((frames / kind).glob("*.bin"))[-1]
    rows = 24 if kind == "points" else 8
    if damage == "missing":
        path.unlink()
    else:
        cut = 3 if damage == "cut" else rows
        path.write_bytes(path.read_bytes()[:-cut])
    with pytest.raises(SuiteError) as error:
        evaluation(frames)
    scene, _, number = path.stem.rpartition("_")
    assert path.name in str(error.value) or f"{scene}/{number}" in str(error.value)


def test_images_are_needed_only_where_they_are_asked_for(frames: Path) -> None:
    for path in (frames / "2D").rglob("*.jpg"):
        path.unlink()
    assert "image" not in evaluation(frames, image=False)[0]
    with pytest.raises(SuiteError, match="colour image"):
        evaluation(frames)


def test_augmentation_is_a_function_of_the_seed(frames: Path) -> None:
    def first() -> dict[str, Any]:
        return next(iter(module(frames, image=False).train_dataloader()))

    one, two = first(), first()
    torch.testing.assert_close(one["grid_xyz"], two["grid_xyz"], rtol=0, atol=0)
    still = module(frames, image=False, augment=PointAugment(0, 0, (1, 1), 0, 0))
    batch = next(iter(still.train_dataloader()))
    torch.testing.assert_close(batch["xyz"], batch["original_xyz"])
    assert batch["frame"] == one["frame"] and "rgb" not in batch


def test_another_folder_is_told_what_it_should_hold(tmp_path: Path) -> None:
    with pytest.raises(SuiteError, match="super_points"):
        module(tmp_path)
    with pytest.raises(SuiteError, match="multiple"):
        ScanNet200SVDataModule(image_height=225)
