"""Human3.6M: what upstream's reader makes of the same files, in every layout, and from no files."""

import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bimamba.main import main
from blocks.errors import SuiteError
from blocks.geometry.cameras import denormalise
from blocks.geometry.skeleton import H36M
from datamodules.inspection import Convertible, Inspectable, Remark
from datamodules.pose import Human36MDataModule, PoseAugment
from datamodules.pose.database import read_split
from datamodules.pose.h36m_pickle import FILE_NAME

STILL = PoseAugment(flip=0.0)


def module(root: Path | None, **options: Any) -> Human36MDataModule:
    given = {"num_frames": 9, "batch_size": 4, "num_workers": 0, "augment": STILL, **options}
    return Human36MDataModule(None if root is None else str(root), **given)


def ready(root: Path | None, stage: str = "fit", **options: Any) -> Human36MDataModule:
    data = module(root, **options)
    data.prepare_data()
    data.setup(stage)
    return data


def everything(data: Human36MDataModule) -> dict[str, Any]:
    batches = list(data.val_dataloader())
    return {
        key: torch.cat([batch[key] for batch in batches])
        if isinstance(batches[0][key], torch.Tensor)
        else [name for batch in batches for name in batch[key]]
        for key in batches[0]
    }


def in_order(data: Human36MDataModule) -> dict[str, torch.Tensor]:
    """Training clips without the shuffle."""
    dataset = data.train_dataloader().dataset
    samples = [dataset[i] for i in range(len(dataset))]  # type: ignore[arg-type]
    return {key: torch.stack([s[key] for s in samples]) for key in ("keypoints", "pose")}


def close(found: torch.Tensor, expected: np.ndarray) -> None:
    torch.testing.assert_close(found, torch.from_numpy(expected), rtol=1e-4, atol=1e-5)


@pytest.fixture
def tiny(golden: Path, tmp_path: Path) -> Path:
    shutil.copy(golden / "pose" / "h36m_tiny.pkl", tmp_path / FILE_NAME)
    return tmp_path


@pytest.fixture
def expected(golden: Path) -> dict[str, np.ndarray]:
    return dict(np.load(golden / "pose" / "h36m_tiny_expected.npz"))


def rewrite(root: Path, **changes: Any) -> None:
    """Changes the database; a callable gets the entry, None removes it."""
    content = pickle.loads((root / FILE_NAME).read_bytes())
    for split in content.values():
        for key, change in changes.items():
            if key in split and change is None:
                del split[key]
            elif key in split:
                split[key] = change(split[key])
    (root / FILE_NAME).write_bytes(pickle.dumps(content))


def test_clips_are_those_of_upstream(tiny: Path, expected: dict[str, np.ndarray]) -> None:
    data = ready(tiny, root_relative=False)
    train, test = in_order(data), everything(data)
    for kind, found in (("train", train), ("test", test)):
        close(found["keypoints"], expected[f"{kind}_data"])
        close(found["pose"], expected[f"{kind}_labels"])
    np.testing.assert_array_equal(test["frame"], expected["split_test"])
    np.testing.assert_array_equal(test["size"], expected["hw_test"])
    assert data.info.groups == tuple(expected["actions"].tolist())
    assert data.info.frames == 187


def test_denormalised_labels_times_the_factor_are_the_target(
    tiny: Path, expected: dict[str, np.ndarray]
) -> None:
    test = everything(ready(tiny, root_relative=False))
    pixels = denormalise(test["pose"], test["size"])
    torch.testing.assert_close(
        pixels, torch.from_numpy(expected["denorm_of_test_labels"]), rtol=1e-4, atol=1e-3
    )
    millimetres = pixels.double() * test["factor"][..., None, None]
    torch.testing.assert_close(millimetres, test["target"], rtol=1e-4, atol=0.01)


def test_upstreams_evaluation_follows_from_the_batch(
    tiny: Path, expected: dict[str, np.ndarray]
) -> None:
    """P1 of the golden predictions, computed from nothing but the batch's keys."""
    test = everything(ready(tiny))
    prediction = torch.from_numpy(expected["evalA_pred_norm"])
    prediction[:, :, 0] = 0
    prediction = denormalise(prediction, test["size"]).double()
    prediction = (prediction - prediction[:, :, :1]) * test["factor"][..., None, None]
    target = test["target"] - test["target"][:, :, :1]
    error = (prediction - target).norm(dim=-1).mean(-1)
    per_action = [
        error[(test["group"][:, None] == group) & test["scored"]].mean()
        for group in range(len(expected["actions"]))
    ]
    torch.testing.assert_close(
        torch.stack(per_action), torch.from_numpy(expected["evalA_p1_action"]), rtol=1e-5, atol=0
    )


def test_blocked_recordings_are_not_scored(tiny: Path) -> None:
    test = everything(ready(tiny))
    left_out = {name for name, scored in zip(test["source"], test["scored"], strict=True)
                if not scored.any()}  # fmt: skip
    assert left_out == {"s_09_act_05_subact_02_ca_01", "s_09_act_13_subact_01_ca_01"}


def test_velocity_is_the_step_to_the_next_frame(
    tiny: Path, expected: dict[str, np.ndarray]
) -> None:
    data = ready(tiny, root_relative=False, add_velocity=True)
    test = everything(data)
    close(test["keypoints"][1], expected["ds_vel_item1_x"])
    close(test["pose"][1], expected["ds_vel_item1_y"])
    assert test["frame"].shape == test["factor"].shape == test["scored"].shape == (18, 8)
    assert (data.info.num_frames, data.info.in_features) == (8, 5)


def test_projected_truth_as_input(tiny: Path, expected: dict[str, np.ndarray]) -> None:
    test = everything(ready(tiny, root_relative=False, input="gt"))
    close(test["keypoints"][1], expected["ds_proj_item1_x"])


def test_labels_are_measured_from_the_root(tiny: Path) -> None:
    assert everything(ready(tiny))["pose"][:, :, H36M.root].abs().max() == 0


def test_batches_are_what_the_table_says(tiny: Path) -> None:
    data = ready(tiny)
    batch = next(iter(data.val_dataloader()))
    found = {key: (value.dtype, tuple(value.shape)) for key, value in batch.items()
             if isinstance(value, torch.Tensor)}  # fmt: skip
    assert found == {
        "keypoints": (torch.float32, (4, 9, 17, 3)),
        "pose": (torch.float32, (4, 9, 17, 3)),
        "size": (torch.float64, (4, 2)),
        "index": (torch.int64, (4,)),
        "target": (torch.float64, (4, 9, 17, 3)),
        "factor": (torch.float64, (4, 9)),
        "frame": (torch.int64, (4, 9)),
        "group": (torch.int64, (4,)),
        "scored": (torch.bool, (4, 9)),
    }
    assert isinstance(batch["source"], list)
    train = next(iter(data.train_dataloader()))
    assert train.keys() == {"keypoints", "pose", "size", "index", "source"}


@pytest.mark.parametrize(
    "changes",
    [
        {"confidence": lambda x: x[..., None]},
        {"joint_2d": lambda x: x.tolist(), "2.5d_factor": lambda x: x.tolist()},
        {"source": np.array, "camera_name": list},
        {"joints_2.5d_image": None},
        {"action": lambda x: [{"Directions": 2, "Greeting": 5, "Waiting": 13, "Walking": 14,
                               "WalkTogether": 16}[name] for name in x]},
        {"action": None},
    ],
    ids=["confidence (N, 17, 1)", "lists", "arrays", "no product", "numbers", "no action"],
)  # fmt: skip
def test_hand_made_copies_mean_the_same(
    tiny: Path, expected: dict[str, np.ndarray], changes: dict[str, Any]
) -> None:
    rewrite(tiny, **changes)
    data = ready(tiny, root_relative=False)
    test = everything(data)
    close(test["keypoints"], expected["test_data"])
    assert data.info.groups == tuple(expected["actions"].tolist())


def test_a_missing_confidence_is_one(tiny: Path) -> None:
    rewrite(tiny, confidence=None)
    data = ready(tiny)
    assert (everything(data)["keypoints"][..., 2] == 1).all()
    assert data.describe()["train confidence"] == "missing, 1 instead"


def test_a_target_that_is_not_the_product_is_told(tiny: Path) -> None:
    rewrite(tiny, **{"joints_2.5d_image": lambda x: x + (np.arange(len(x)) < 3)[:, None, None]})
    with pytest.warns(UserWarning, match="3 of 187 frames"):
        ready(tiny)
    remarks = [r for r in module(tiny).validate() if isinstance(r, Remark)]
    assert any("joint3d_image * 2.5d_factor" in remark.expected for remark in remarks)


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"joint_2d": lambda x: x[:, :16]}, "joint_2d of shape"),
        ({"joint3d_image": lambda x: x[:-1]}, "joint3d_image of shape"),
        ({"camera_name": lambda x: np.full(len(x), "cam")}, "54138969"),
        ({"camera_name": lambda x: np.roll(x, 1)}, "one camera_name for all frames"),
        ({"joint_2d": None}, "the entry joint_2d"),
        ({"2.5d_factor": None}, "the entry 2.5d_factor"),
    ],
)
def test_broken_databases_are_refused_by_name(
    tiny: Path, changes: dict[str, Any], part: str
) -> None:
    rewrite(tiny, **changes)
    with pytest.raises(SuiteError, match=part):
        ready(tiny)
    (remark,) = module(tiny).validate()
    assert isinstance(remark, Remark) and remark.level == "error" and part in remark.expected


def test_validate_tells_what_frames_alone_show(tiny: Path) -> None:
    def spoil(joints: np.ndarray) -> np.ndarray:
        joints = joints.copy()
        joints[5, 3, 0] = np.nan
        joints[7, 2:6] = -40.0
        return joints

    rewrite(tiny, joint_2d=spoil, confidence=lambda x: x * 3)
    remarks = [r for r in module(tiny).validate() if isinstance(r, Remark)]
    levels = {remark.expected: remark.level for remark in remarks if remark.where[:5] == "train"}
    assert levels["numbers"] == "error"
    assert levels["joints inside the image"] == "note"
    assert levels["confidences from 0 to 1"] == "warning"
    assert levels["videos of at least 9 frames"] == "warning"


def test_joints_of_another_image_size_are_told(tiny: Path) -> None:
    rewrite(tiny, joint_2d=lambda x: 2 * x)
    remarks = [r for r in module(tiny).validate() if isinstance(r, Remark)]
    levels = {
        remark.where[:4]: remark for remark in remarks if "inside the image" in remark.expected
    }
    assert levels["test"].level == "warning" and "full image" in levels["test"].cure


def test_blocked_recordings_alone_are_refused_where_they_would_be_scored(tiny: Path) -> None:
    rewrite(tiny, source=lambda x: [f"s_09_act_05_subact_02_{name[-5:]}" if "s_09" in name
                                    or "s_11" in name else name for name in x])  # fmt: skip
    for stage in ("fit", "validate", "test"):
        with pytest.raises(SuiteError, match="broken truth") as caught:
            ready(tiny, stage)
        assert "s_09_act_05_subact_02" in str(caught.value)
    ready(tiny, "predict")


def test_a_nan_is_refused_before_training(tiny: Path) -> None:
    def spoil(joints: np.ndarray) -> np.ndarray:
        joints = joints.copy()
        joints[35, 3, 0] = np.nan
        return joints

    rewrite(tiny, joint_2d=spoil)
    with pytest.raises(SuiteError, match="s_01_act_02_subact_01_ca_02"):
        ready(tiny)


def test_the_command_describes_and_validates(
    tiny: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = str(Path(__file__).parents[3] / "configs" / "demo" / "pose.yaml")
    words = ["--config", config, "--data.init_args.root", str(tiny)]
    words += ["--data.init_args.num_frames", "9"]
    assert main(["data", "describe", *words]) == 0
    assert "test frames in no clip" in capsys.readouterr().out
    assert main(["data", "validate", *words]) == 0
    rewrite(tiny, joint_2d=lambda x: x[:, :16])
    assert main(["data", "validate", *words]) == 1
    assert "joint_2d of shape (106, 17, 2)" in capsys.readouterr().out


def test_an_intact_database_has_no_errors(tiny: Path) -> None:
    levels = {r.level for r in module(tiny).validate() if isinstance(r, Remark)}
    assert "error" not in levels


def test_uncovered_frames_are_counted_and_can_be_covered(tiny: Path) -> None:
    assert module(tiny).describe()["test frames in no clip"] == 25
    covering = module(tiny, cover_tails=True)
    assert covering.describe()["test frames in no clip"] == 0
    data = ready(tiny, cover_tails=True)
    assert set(everything(data)["frame"].flatten().tolist()) == set(range(187))
    assert "tails covered" in data.info.protocol


def test_a_converted_database_reads_the_same(tiny: Path, tmp_path: Path) -> None:
    data = module(tiny)
    assert isinstance(data, Convertible) and isinstance(data, Inspectable)
    files = [path for path in data.convert(tmp_path / "arrays") if isinstance(path, Path)]
    assert all(path.is_file() for path in files)
    again = ready(tmp_path / "arrays")
    assert again.describe()["layout"] == "database"
    assert isinstance(read_split(tmp_path / "arrays", "train").keypoints, np.memmap)
    before, after = everything(ready(tiny)), everything(again)
    assert all(torch.equal(before[k], after[k]) for k in ("keypoints", "pose", "target"))


def test_a_changed_pickle_is_read_again(tiny: Path) -> None:
    before = everything(ready(tiny))["keypoints"]
    rewrite(tiny, joint_2d=lambda x: x + 10)
    assert not torch.equal(before, everything(ready(tiny))["keypoints"])


def cut(root: Path, expected: dict[str, np.ndarray], folder: str = "H36M-9") -> Path:
    for kind in ("train", "test"):
        (root / folder / kind).mkdir(parents=True)
        for i, (x, y) in enumerate(zip(expected[f"{kind}_data"], expected[f"{kind}_labels"],
                                       strict=True)):  # fmt: skip
            clip = {"data_input": x, "data_label": y}
            (root / folder / kind / f"{i:08d}.pkl").write_bytes(pickle.dumps(clip))
    return root / folder


@pytest.mark.parametrize("folder", ["H36M-9", "MB3D_f9s3/H36M-SH"])
def test_folders_of_clips_read_as_they_were_cut(
    tiny: Path, expected: dict[str, np.ndarray], folder: str
) -> None:
    cut(tiny, expected, folder)
    data = ready(tiny, layout="clips", root_relative=False)
    train = in_order(data)
    close(train["keypoints"], expected["train_data"])
    close(train["pose"], expected["train_labels"])
    close(everything(data)["keypoints"], expected["test_data"])


def test_clips_without_their_database_cannot_be_evaluated(
    tiny: Path, expected: dict[str, np.ndarray]
) -> None:
    cut(tiny, expected)
    (tiny / FILE_NAME).unlink()
    with pytest.raises(SuiteError, match="beside the clips"):
        ready(tiny)


def test_stale_test_clips_are_refused(tiny: Path, expected: dict[str, np.ndarray]) -> None:
    folder = cut(tiny, expected)
    first, last = folder / "test" / "00000000.pkl", folder / "test" / "00000017.pkl"
    content = first.read_bytes()
    first.write_bytes(last.read_bytes())
    with pytest.raises(SuiteError, match="other joints in 00000000.pkl"):
        ready(tiny, layout="clips")
    first.write_bytes(content)
    last.unlink()
    with pytest.raises(SuiteError, match="17 files, 18 clips"):
        ready(tiny, layout="clips")


def test_clips_of_another_length_are_named(tiny: Path, expected: dict[str, np.ndarray]) -> None:
    cut(tiny, expected, "H36M-8")
    data = ready(tiny, layout="pickle", num_frames=8)
    assert data.info.num_frames == 8
    with pytest.raises(SuiteError, match=r"shape \(8, 17, 3\)"):
        ready(tiny, layout="clips", num_frames=8)


def test_a_wrong_folder_shows_what_would_be_right(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    with pytest.raises(SuiteError) as caught:
        ready(tmp_path)
    for part in (FILE_NAME, "data_3d_h36m.npz", "H36M-<frames>", "notes.txt", "null"):
        assert part in str(caught.value)


def test_too_long_clips_are_refused(tiny: Path) -> None:
    with pytest.raises(SuiteError, match="at least one frame"):
        module(tiny, num_frames=0)
    rewrite(tiny, source=lambda x: ["s_09_act_02_subact_01_ca_01"] * len(x), action=None,
            camera_name=lambda x: np.full(len(x), "54138969"))  # fmt: skip
    with pytest.raises(SuiteError, match="clips of 300"):
        ready(tiny, num_frames=300)
