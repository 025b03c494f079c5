"""PoseMamba against the original: output, and the true gradient of its forward pass."""

import json

import pytest
import torch
from safetensors.torch import load_file

from blocks.errors import SuiteError
from lightning_modules.pose import PoseMamba
from tests.conftest import GOLDEN

MANIFEST = json.loads((GOLDEN / "pose" / "posemamba_manifest.json").read_text())


def test_it_computes_what_the_original_computes_with_the_true_gradient() -> None:
    vectors = load_file(GOLDEN / "pose" / "posemamba_tiny.safetensors")
    network = PoseMamba.from_upstream(MANIFEST["tiny_config"]).eval()
    network.load_state_dict({k[3:]: v for k, v in vectors.items() if k.startswith("sd/")})
    y = network(vectors["x"])
    torch.testing.assert_close(y, vectors["y"], rtol=1e-4, atol=1e-5)
    weight = vectors.get("w")
    (y.sum() if weight is None else (y * weight).sum()).backward()
    found = {name: p.grad for name, p in network.named_parameters()}
    expected = {
        k[10:]: v for k, v in vectors.items() if k.startswith("grad_true/") and k[10:] != "x"
    }
    assert len(expected) == 5
    for name, grad in expected.items():
        torch.testing.assert_close(found[name], grad, rtol=1e-3, atol=1e-4, msg=name)


@pytest.mark.parametrize("size", MANIFEST["counts"])
def test_sizes_count_what_profilers_of_modules_miss(size: str) -> None:
    record = MANIFEST["counts"][size]
    network = PoseMamba(dim=record["dim"], depth=record["depth"])
    assert sum(p.numel() for p in network.parameters()) == record["params"]


def test_confidence_is_not_read_and_longer_clips_are_refused() -> None:
    network = PoseMamba(num_frames=4, dim=16, depth=1).eval()
    x = torch.randn(1, 3, 17, 3)
    torch.testing.assert_close(network(x), network(x[..., :2]))
    with pytest.raises(SuiteError, match="at most 4 frames"):
        network(torch.randn(1, 5, 17, 3))
