"""MotionAGFormer against the original: outputs, gradients, batch statistics, sizes."""

import json
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from blocks.errors import SuiteError
from blocks.graph import chain_graph, nearest_graph, propagate
from lightning_modules.pose import MotionAGFormer
from tests.conftest import GOLDEN

FOLDER = GOLDEN / "pose"
MANIFEST: dict[str, Any] = json.loads((FOLDER / "agformer_manifest.json").read_text())
SIZES: dict[str, Any] = {
    name: record
    for name, record in json.loads((FOLDER / "agformer_sizes.json").read_text()).items()
    if "config" in record
}


def load(name: str) -> tuple[MotionAGFormer, dict[str, Tensor]]:
    vectors = load_file(FOLDER / f"{name}.safetensors")
    network = MotionAGFormer.from_upstream(MANIFEST[name]["config"])
    state = {k.removeprefix("sd/"): v for k, v in vectors.items() if k.startswith("sd/")}
    network.load_state_dict(state, strict=True)
    return network.eval(), vectors


def check_gradients(network: MotionAGFormer, vectors: dict[str, Tensor], mode: str) -> None:
    x = vectors["x"].clone().requires_grad_()
    y = network(x)
    torch.testing.assert_close(y, vectors[f"y_{mode}"], rtol=1e-4, atol=1e-5)
    (y * vectors["w"]).sum().backward()
    found = {name: p.grad for name, p in network.named_parameters()} | {"x": x.grad}
    expected = {
        k.removeprefix(f"grad_{mode}/"): v for k, v in vectors.items() if f"grad_{mode}/" in k
    }
    assert expected
    for name, grad in expected.items():
        torch.testing.assert_close(found[name], grad, rtol=1e-3, atol=1e-4, msg=name)


@pytest.mark.parametrize("name", MANIFEST)
def test_it_computes_what_the_original_computes(name: str) -> None:
    network, vectors = load(name)
    assert sum(p.numel() for p in network.parameters()) == MANIFEST[name]["params"]
    with torch.no_grad():
        rep = network.represent(vectors["x"])
    torch.testing.assert_close(rep, vectors["rep_eval"], rtol=1e-4, atol=1e-5)
    check_gradients(network, vectors, "eval")


@pytest.mark.parametrize("name", MANIFEST)
def test_training_counts_per_node_like_the_original(name: str) -> None:
    network, vectors = load(name)
    network.train()
    check_gradients(network, vectors, "train")
    buffers = dict(network.named_buffers())
    after = {k.removeprefix("after_train/"): v for k, v in vectors.items() if "after_train/" in k}
    for key, value in after.items():
        torch.testing.assert_close(buffers[key], value, rtol=1e-4, atol=1e-5, msg=key)


@pytest.mark.parametrize("size", SIZES)
def test_published_sizes_have_their_exact_number_of_parameters(size: str) -> None:
    record = SIZES[size]
    with torch.device("meta"):
        network = MotionAGFormer.from_upstream(record["config"])
    assert sum(p.numel() for p in network.parameters()) == record["params"]
    assert len(network.state_dict()) == record["state_dict_entries"]


def test_a_clip_of_another_length_is_refused_with_the_cure() -> None:
    network = MotionAGFormer(depth=1, dim=8, num_frames=9, num_heads=2, dim_rep=8)
    with pytest.raises(SuiteError, match="9 nodes.*(?s:.)*windows"):
        network(torch.zeros(1, 8, 17, 3))


def test_degrees_scale_as_the_dense_formula_does() -> None:
    A = chain_graph(6, 2)
    x = torch.randn(3, 6, 4)
    half = torch.diag(A.sum(1) ** -0.5)
    torch.testing.assert_close(propagate(A, x), half @ A @ half @ x)
    assert A[4].tolist() == [0, 0, 0, 0, 1, 1]


def test_the_similarity_graph_follows_a_loop() -> None:
    x = torch.randn(2, 5, 3)
    A = nearest_graph(x, 2)
    for b in range(2):
        for i in range(5):
            products = [float(x[b, i] @ x[b, j]) for j in range(5)]
            expected = [float(p >= sorted(products)[-2] - 1e-6) for p in products]
            assert A[b, i].tolist() == expected
