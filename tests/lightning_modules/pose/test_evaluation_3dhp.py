"""MPI-INF-3DHP against the original evaluator and the official PCK and AUC."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from blocks.geometry.skeleton import MPI_INF_3DHP
from datamodules.pose import MPIINF3DHPDataModule
from datamodules.pose.mpi_inf_3dhp_files import TEST_FILE, TRAIN_FILE
from lightning_modules.pose import MotionAGFormer, PoseLifting
from lightning_modules.pose.evaluation import PoseErrors
from tests.conftest import GOLDEN

FOLDER = GOLDEN / "pose"


def test_pck_and_auc_are_the_official_ones() -> None:
    vectors = np.load(FOLDER / "mpi3dhp_pck_auc.npz")
    pose, truth = (torch.from_numpy(vectors[name]).unsqueeze(1) for name in ("pred", "gt"))
    for x in (pose, truth):  # Already relative to the pelvis, which does not count.
        x[:, :, MPI_INF_3DHP.root] = 0
    frames = torch.arange(len(pose))
    errors = PoseErrors(len(pose), 1, MPI_INF_3DHP, "frames", range(14))
    errors.update(
        pose, truth, frames[:, None], torch.zeros_like(frames), torch.ones(len(pose), 1).bool()
    )
    found = errors.compute().overall
    for name in ("pck", "auc"):
        assert found[name] == pytest.approx(float(vectors[name]), abs=1e-9)


def test_a_network_scores_and_predicts_as_in_the_original(tmp_path: Path) -> None:
    for kind, name in (("train", TRAIN_FILE), ("test", TEST_FILE)):
        shutil.copy(FOLDER / f"mpi3dhp_tiny_{kind}.npz", tmp_path / name)
    expected = np.load(FOLDER / "mpi3dhp_tiny_expected.npz")
    network = MotionAGFormer(
        depth=1, dim=8, num_frames=9, dim_rep=16, num_heads=2, mlp_ratio=2, neighbours=2
    )
    network.load_state_dict(load_file(FOLDER / "mpi3dhp_tiny_model.safetensors"))
    module = PoseLifting(network, flip_test=True).eval()
    data = MPIINF3DHPDataModule(
        str(tmp_path), num_frames=9, train_stride=4, batch_size=4, val_batch_size=32, num_workers=0
    )
    data.setup("validate")
    info = data.info
    module.info = {"skeleton": info.skeleton}
    (batch,) = data.val_dataloader()
    with torch.no_grad():
        pose = module.millimetres(module.rooted(module(batch["keypoints"])), batch)
    errors = PoseErrors(info.frames, len(info.groups), MPI_INF_3DHP, "frames", info.pck_joints)
    errors.update(pose, *(batch[k] for k in ("target", "frame", "group", "scored")))
    # One frame a window: the one in the middle.
    root = MPI_INF_3DHP.root
    centre = pose[:, 4] - pose[:, 4, root : root + 1]
    for group, name in enumerate(info.groups):
        wanted = torch.from_numpy(expected[f"inference/{name}"])[:, :, 0].permute(2, 1, 0)
        found = centre[batch["group"] == group].float()
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-2)
    assert errors.compute().overall["p1"] == pytest.approx(float(expected["eval_mpjpe"]), rel=1e-6)
