"""Peers compute our function, and whoever does not is found out."""

import pytest
import torch

from benchmarks.agreement import disagreement, gradients, largest_difference
from benchmarks.scan import measure_scan, scan_inputs
from benchmarks.scan_peers import SCAN_PEERS, ScanPeer, ours
from benchmarks.settings import Settings

EAGER = [name for name, peer in SCAN_PEERS.items() if peer.kind == "eager"]


def skip_without(name: str) -> None:
    if name == "mambapy":
        pytest.importorskip("mambapy")


@pytest.mark.parametrize("shape", [(2, 3, 7, 4), (1, 5, 1, 2), (2, 2, 16, 1)])
@pytest.mark.parametrize("name", EAGER)
def test_a_peer_has_our_values_and_gradients(name: str, shape: tuple[int, int, int, int]) -> None:
    skip_without(name)
    inputs = scan_inputs(shape, torch.float32, "cpu")
    found, expected = SCAN_PEERS[name].scan(*inputs), ours(*inputs)
    assert found.shape == expected.shape
    grad = torch.randn(expected.shape, generator=torch.Generator().manual_seed(1))
    mine = [found, *gradients(found, inputs, grad)]
    theirs = [expected, *gradients(expected, inputs, grad)]
    assert largest_difference(mine, theirs) < 1e-5


@pytest.mark.parametrize("name", EAGER)
def test_a_peer_keeps_the_type_of_bfloat16_streams(name: str) -> None:
    skip_without(name)
    inputs = scan_inputs((1, 4, 9, 2), torch.bfloat16, "cpu")
    found, expected = SCAN_PEERS[name].scan(*inputs), ours(*inputs)
    assert found.dtype == torch.bfloat16
    assert not disagreement(largest_difference([found], [expected]), "bfloat16")


def test_a_nan_is_a_difference() -> None:
    good, bad = torch.ones(2), torch.tensor([1.0, float("nan")])
    assert largest_difference([good], [good]) == 0
    assert disagreement(largest_difference([good, bad], [good, good]), "float32")


def test_peers_that_fail_or_differ_are_reported_instead_of_timed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: torch.Tensor) -> torch.Tensor:
        raise ImportError("No module named 'elsewhere'")

    def double(*operands: torch.Tensor) -> torch.Tensor:
        return 2 * ours(*operands)

    peers = {
        "missing": ScanPeer(fail),
        "wrong": ScanPeer(double),
        "forward_only": ScanPeer(ours, longest_backward=2, why="too slow"),
    }
    monkeypatch.setattr("benchmarks.scan.SCAN_PEERS", peers)
    monkeypatch.setattr("benchmarks.scan._PEERS", peers)
    monkeypatch.setattr("benchmarks.scan.QUICK_SHAPES", ((1, 2, 5, 2),))
    results = measure_scan(Settings(quick=True, rounds=1), lambda _: None)
    shape = results["shapes"]["1x2x5x2"]
    assert "elsewhere" in shape["forward"]["missing"]["skipped"]
    assert "differs from ours" in shape["forward_backward"]["wrong"]["skipped"]
    assert shape["forward"]["forward_only"]["median_seconds"] > 0
    assert shape["forward_backward"]["forward_only"] == {"skipped": "too slow"}
