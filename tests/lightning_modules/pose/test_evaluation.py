"""The evaluator against the original, over overlapping clips, blocked recordings and batches."""

import pickle

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from blocks.errors import SuiteError
from blocks.geometry.skeleton import H36M
from lightning_modules.pose import MotionAGFormer, PoseLifting
from lightning_modules.pose.evaluation import PoseErrors, PoseScores
from lightning_modules.pose.flipping import flipped
from tests.conftest import GOLDEN

FOLDER = GOLDEN / "pose"
EXPECTED = np.load(FOLDER / "h36m_tiny_expected.npz")
BLOCKED = ("s_09_act_05_subact_02", "s_09_act_10_subact_02", "s_09_act_13_subact_01")
ACTIONS = EXPECTED["actions"].tolist()


@pytest.fixture(scope="module")
def batch() -> dict[str, Tensor]:
    """The whole test split of the tiny database as one batch."""
    test = pickle.loads((FOLDER / "h36m_tiny.pkl").read_bytes())["test"]
    frame = torch.from_numpy(EXPECTED["split_test"])
    first = frame[:, 0].tolist()
    return {
        "keypoints": torch.from_numpy(EXPECTED["test_data"]),
        "pose": torch.from_numpy(EXPECTED["test_labels"]),
        "target": torch.from_numpy(np.asarray(test["joints_2.5d_image"]))[frame],
        "factor": torch.from_numpy(np.asarray(test["2.5d_factor"]))[frame],
        "size": torch.from_numpy(EXPECTED["hw_test"]),
        "frame": frame,
        "group": torch.tensor([ACTIONS.index(test["action"][i]) for i in first]),
        "scored": torch.tensor([[test["source"][i][:-6] not in BLOCKED] for i in first]).expand(
            frame.shape
        ),
    }


def make() -> PoseErrors:
    return PoseErrors(187, len(ACTIONS), H36M)


def lifting(network: MotionAGFormer, flip: bool) -> PoseLifting:
    module = PoseLifting(network, flip_test=flip).eval()
    module.info = {"skeleton": "h36m"}
    return module


def score(module: PoseLifting, pose: Tensor, batch: dict[str, Tensor]) -> PoseScores:
    errors = make()
    millimetres = module.millimetres(module.rooted(pose), batch)
    errors.update(millimetres, *(batch[k] for k in ("target", "frame", "group", "scored")))
    return errors.compute()


def network() -> MotionAGFormer:
    state = load_file(FOLDER / "h36m_tiny_model.safetensors")
    built = MotionAGFormer(
        depth=1, dim=8, num_frames=9, dim_rep=16, num_heads=2, mlp_ratio=2, neighbours=2
    )
    built.load_state_dict(state)
    return built


def test_given_predictions_score_as_in_the_original(batch: dict[str, Tensor]) -> None:
    pose = torch.from_numpy(EXPECTED["evalA_pred_norm"])
    found = score(lifting(network(), False), pose, batch)
    names = list(found.overall)
    for key, name in (("p1", "p1"), ("p2", "p2"), ("accel_upstream", None)):
        column = found.groups[:, names.index(key)]
        if name is not None:
            expected = torch.from_numpy(EXPECTED[f"evalA_{name}_action"])
            torch.testing.assert_close(column, expected, rtol=0, atol=1e-9)
    true = torch.from_numpy(EXPECTED["evalA_acc_action_per_valid_frame"])
    column = found.groups[:, names.index("accel")]
    torch.testing.assert_close(column, true, rtol=0, atol=1e-9)
    # Upstream's own totals went through float32: 4e-8 of their size.
    for name, key in (("p1", "p1"), ("p2", "p2"), ("accel_upstream", "acc")):
        assert found.overall[name] == pytest.approx(float(EXPECTED[f"evalA_{key}"]), rel=1e-7)
    joints = torch.from_numpy(EXPECTED["evalA_joint"])
    torch.testing.assert_close(found.joints, joints, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("flip", [True, False])
def test_a_network_scores_as_in_the_original(batch: dict[str, Tensor], flip: bool) -> None:
    module = lifting(network(), flip)
    with torch.no_grad():
        found = score(module, module(batch["keypoints"]), batch)
    prefix = "evalB_flip" if flip else "evalB_noflip"
    for name in ("p1", "p2"):
        expected = float(EXPECTED[f"{prefix}_{name}"])
        assert found.overall[name] == pytest.approx(expected, rel=2e-6)


def test_batches_and_their_order_do_not_matter(batch: dict[str, Tensor]) -> None:
    given = [batch["target"] * 1.1, *(batch[k] for k in ("target", "frame", "group", "scored"))]
    whole, parts = make(), make()
    whole.update(*given)
    for i in (3, 0, 2, 1):
        parts.update(*(x[i::4] for x in given))
    a, b = whole.compute(), parts.compute()
    assert a.overall == pytest.approx(b.overall, nan_ok=True)
    torch.testing.assert_close(a.groups, b.groups)


def test_a_frame_predicted_twice_counts_once_with_its_mean_error() -> None:
    errors = PoseErrors(2, 1, H36M)
    target = torch.zeros(1, 1, 17, 3, dtype=torch.float64)
    for error in (1.0, 3.0):
        pose = target.clone()
        pose[:, :, 1:, 0] = error
        errors.update(
            pose,
            target,
            *(torch.zeros(1, 1, dtype=torch.long)[:, :1],),
            torch.zeros(1, dtype=torch.long),
            torch.ones(1, 1, dtype=torch.bool),
        )
    assert errors.compute().overall["p1"] == pytest.approx(2 * 16 / 17)


def test_an_action_without_scored_frames_is_left_out() -> None:
    errors = PoseErrors(4, 2, H36M)
    pose = torch.randn(2, 2, 17, 3, dtype=torch.float64)
    scored = torch.tensor([[True, True], [False, False]])
    errors.update(pose, pose + 1, torch.arange(4).view(2, 2), torch.tensor([0, 1]), scored)
    found = errors.compute()
    assert found.groups[1].isnan().all()
    assert found.overall["p1"] == pytest.approx(float(found.groups[0, 0]))


def test_the_mirror_image_equals_the_originals() -> None:
    vectors = np.load(FOLDER / "losses_metrics.npz")
    x = torch.from_numpy(vectors["flip/in"])
    assert torch.equal(flipped(x, H36M), torch.from_numpy(vectors["flip/out"]))
    moving = torch.randn(2, 17, 5)
    assert torch.equal(flipped(flipped(moving, H36M), H36M), moving)
    assert torch.equal(flipped(moving, H36M)[:, 0, 3], -moving[:, 0, 3])


def test_a_checkpoint_of_another_skeleton_is_refused() -> None:
    module = lifting(network(), False)
    with pytest.raises(SuiteError, match="order of mpi_inf_3dhp"):
        module.on_load_checkpoint({"info": {"skeleton": "mpi_inf_3dhp"}})
