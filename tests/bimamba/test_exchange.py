"""Whole networks as graphs: ONNX Runtime and a reloaded program of torch compute what we do."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from bimamba.example_inputs import example_inputs
from bimamba.exchange import Dynamic, Inputs, to_onnx, to_torch_export, write_graph
from bimamba.export import target_of
from blocks import SS2D, BiMamba, bidirectional_scan
from blocks.decompositions import Decomposed
from blocks.errors import SuiteError
from blocks.scan import path_scan, selective_scan
from lightning_modules.motion.networks.cmdm import CMDM
from lightning_modules.pose.networks.hybrid import HybridLifter
from lightning_modules.vision import VisionMamba
from tests.conftest import ROOT

NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "Vim": lambda: VisionMamba(img_size=32, dim=16, depth=2, num_classes=5),
    "hybrid lifter": lambda: HybridLifter(depth=1, dim=16, d_inner=16),
    "CMDM": lambda: CMDM(
        in_features=9, dim=16, num_layers=(1, 1), mamba_layers=1, num_heads=2, dim_feedforward=16,
        text_dim=8, time_dim=8,
    ),
}  # fmt: skip


def another(inputs: Inputs, dynamic: Dynamic) -> Inputs:
    """One sample of twice the length, where the length may vary."""
    found = {}
    for name, x in inputs.items():
        x = x[:1]
        for axis, size in dynamic[name].items():
            x = torch.cat([x, x], axis) if size == "frames" else x
        found[name] = x
    return found


def run(file: Path, inputs: Inputs) -> Tensor:
    ort = pytest.importorskip("onnxruntime")
    session = ort.InferenceSession(file, providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(None, {k: v.numpy() for k, v in inputs.items()})[0])


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_onnx_runtime_computes_what_the_network_does(name: str, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    torch.manual_seed(0)
    network = NETWORKS[name]().eval()
    inputs, dynamic = example_inputs(network)
    write_graph(tmp_path / "net.onnx", network, inputs, dynamic, {"network": name})
    for given in (inputs, another(inputs, dynamic)):
        with torch.no_grad():
            expected = network(**given)
        torch.testing.assert_close(run(tmp_path / "net.onnx", given), expected, rtol=0, atol=1e-4)


def test_a_loop_over_time_stays_a_loop_for_every_length(tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    torch.manual_seed(0)
    mixer = BiMamba(8, d_state=2).eval()
    sizes = {"x": {0: "batch", 1: "length"}}
    program = to_onnx(mixer, {"x": torch.randn(2, 5, 8)}, sizes)
    program.save(str(tmp_path / "mixer.onnx"))
    model = program.model
    kinds = [n.op_type for part in (model.graph, *model.functions.values()) for n in part]
    assert kinds.count("Scan") == 2
    for shape in ((1, 2, 8), (3, 70, 8)):
        x = torch.randn(shape)
        expected = mixer(x).detach()
        torch.testing.assert_close(
            run(tmp_path / "mixer.onnx", {"x": x}), expected, rtol=0, atol=1e-5
        )


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_an_exported_program_computes_the_same_in_another_process(
    name: str, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    network = NETWORKS[name]().eval()
    inputs, dynamic = example_inputs(network)
    write_graph(tmp_path / "net.pt2", network, inputs, dynamic, {"network": name})
    given = another(inputs, dynamic)
    with torch.no_grad():
        torch.save((given, network(**given)), tmp_path / "pair.pt")
    code = (
        "import torch, blocks.decompositions; given, y = torch.load('pair.pt');"
        "net = torch.export.load('net.pt2').module();"
        "torch.testing.assert_close(net(**given), y, rtol=0, atol=1e-5)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env={"PYTHONPATH": str(ROOT), "PATH": ""},
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]


def test_a_grid_is_exported_for_every_size() -> None:
    torch.manual_seed(0)
    mixer = SS2D(8, d_state=2).eval()
    sizes = {"x": {0: "batch", 1: "height", 2: "width"}}
    program = to_torch_export(mixer, {"x": torch.randn(2, 3, 4, 8)}, sizes).module()
    for shape in ((2, 3, 4, 8), (1, 5, 2, 8)):
        x = torch.randn(shape)
        with torch.no_grad():
            torch.testing.assert_close(program(x=x), mixer(x), rtol=0, atol=1e-5)


@pytest.mark.parametrize("lengths", [None, (7, 3)])
def test_the_parts_equal_the_operators(lengths: tuple[int, ...] | None) -> None:
    torch.manual_seed(0)
    u, delta, z = (torch.randn(2, 4, 7) for _ in range(3))
    A, B, C, D = -torch.rand(4, 3), torch.randn(2, 3, 7), torch.randn(2, 3, 7), torch.randn(4)
    valid = None if lengths is None else torch.tensor(lengths)
    for reverse in (False, True):
        options = {"return_last_state": True, "reverse": reverse, "lengths": valid}
        whole = selective_scan(u, delta, A, B, C, D, z, D, True, **options)
        with Decomposed():
            parts = selective_scan(u, delta, A, B, C, D, z, D, True, **options)
        for a, b in zip(parts, whole, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)
    whole = bidirectional_scan(u, delta, A, B, C, A_b=A, lengths=valid)
    mixer, x = BiMamba(8, d_state=2), torch.randn(2, 7, 8)
    mixed = mixer(x, valid)
    with Decomposed():
        torch.testing.assert_close(
            bidirectional_scan(u, delta, A, B, C, A_b=A, lengths=valid), whole
        )
        torch.testing.assert_close(mixer(x, valid), mixed, rtol=1e-5, atol=1e-5)


def test_what_cannot_be_exported_is_refused() -> None:
    x = torch.randn(1, 1, 2, 3)
    A = -torch.rand(1, 2, 2)
    with Decomposed(), pytest.raises(SuiteError, match="constant"):
        path_scan(x, x, A, A, A, paths=">")
    with pytest.raises(SuiteError, match=r"weights as \.safetensors"):
        example_inputs(nn.Linear(1, 1))


def test_the_format_completes_the_name_and_does_not_contradict_it() -> None:
    assert target_of(Path("net.pth"), None) == Path("net.pth")
    assert target_of(Path("net"), "onnx") == Path("net.onnx")
    assert target_of(Path("net.v1"), "torch_export") == Path("net.v1.pt2")
    with pytest.raises(SuiteError, match="the suffix says it"):
        target_of(Path("net.pth"), "onnx")
