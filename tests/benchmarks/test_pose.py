"""The pose benchmark on sizes that measure nothing, and whether its peer is the same network."""

from pathlib import Path

import pytest
import torch

from benchmarks.document import measure, write
from benchmarks.plain_agformer import PlainAGFormer
from benchmarks.pose import measure_pose
from benchmarks.settings import Settings
from benchmarks.tables import tables
from benchmarks.targets import targets
from blocks.geometry.skeleton import agformer_adjacency
from lightning_modules.pose import MotionAGFormer


def test_the_transcription_computes_poses_and_gradients_of_ours() -> None:
    torch.manual_seed(0)
    size = {"depth": 2, "dim": 16, "num_frames": 9, "dim_rep": 16}
    ours, plain = MotionAGFormer(**size), PlainAGFormer(agformer_adjacency(), **size)
    for name, parameter in ours.named_parameters():
        if "layer_scale" in name or "fusion" in name:
            torch.nn.init.normal_(parameter, std=0.5)
    plain.load_state_dict(ours.state_dict())
    x = torch.randn(3, 9, 17, 3, dtype=torch.float64)
    for network in (ours, plain):
        network.double()(x).square().sum().backward()
    torch.testing.assert_close(plain(x), ours(x))
    theirs = dict(plain.named_parameters())
    for name, parameter in ours.named_parameters():
        torch.testing.assert_close(theirs[name].grad, parameter.grad, msg=name)


def test_a_quick_run_is_written_and_promises_nothing(tmp_path: Path) -> None:
    settings = Settings(quick=True, rounds=1, threads=1)
    document, promised = measure("pose", settings, lambda text: None)
    results = document["results"]
    stream, training = results["stream"], results["training"]
    assert stream["rows"]["hybrid_causal_xs"]["frames_per_second"] > 0
    assert 0 < stream["state_bytes"] < 2 * 2**20
    assert stream["difference"] < 1e-5 and training["difference"] < 1e-4
    assert training["rows"]["plain_agformer_b"]["ratio"] > 0
    assert {target.holds for target in promised} == {None}
    assert len(tables("pose", results)) == 2
    (_, picture) = write("pose", settings, document, tmp_path)
    assert picture.name == "pose_cpu_quick.png" and picture.stat().st_size > 10_000


def test_figures_of_record_become_targets() -> None:
    results = {
        "stream": {
            "rows": {"hybrid_causal_xs": {"frames_per_second": 61.0}},
            "state_bytes": 3 * 2**20,
            "difference": 2e-6,
        },
        "training": {"rows": {"plain_agformer_b": {"ratio": 1.5}}},
    }
    assert [target.holds for target in targets("pose", results, Settings())] == [
        True, False, True, True,
    ]  # fmt: skip
    results["stream"]["rows"] = {"hybrid_causal_xs": {"skipped": "gone"}}
    results["training"]["rows"] = {}
    found = [target.holds for target in targets("pose", results, Settings())]
    assert found == [None, False, True, None]


@pytest.mark.parametrize("peers", [("agformer_xs_window",), ("plain_agformer_b",)])
def test_peers_can_be_chosen(peers: tuple[str, ...]) -> None:
    results = measure_pose(Settings(quick=True, rounds=1, peers=peers), lambda text: None)
    measured = {name for part in ("stream", "training") for name in results[part]["rows"]}
    assert measured == {"hybrid_causal_xs", "agformer_b", *peers}
    assert len(tables("pose", results)) == 2
