"""Networks around a trunk: shapes, padding, and who owns the weights."""

import pytest
import torch
from torch import nn

from blocks.errors import SuiteError
from blocks.weights import load_weights
from lightning_modules.motion import TrunkDenoiser
from lightning_modules.pose import TrunkLifter
from lightning_modules.trunk import JointNetwork, MambaTrunk, TrunkNetwork
from lightning_modules.vision import TrunkClassifier


def trunk(dim: int = 8) -> MambaTrunk:
    torch.manual_seed(0)
    return MambaTrunk(dim, depth=2, d_state=4)


def test_each_network_with_a_trunk_of_its_own_maps_what_it_says() -> None:
    classifier = TrunkClassifier(16, 8, num_classes=5, dim=8, trunk=trunk())
    assert classifier(torch.randn(2, 3, 16, 16)).shape == (2, 5)
    lifter = TrunkLifter(2, dim=8, trunk=trunk())
    assert lifter(torch.randn(2, 6, 17, 3)).shape == (2, 6, 17, 3)


def test_padding_changes_no_denoised_frame() -> None:
    network = TrunkDenoiser(5, text_dim=6, dim=8, trunk=trunk()).double().eval()
    x, text = torch.randn(2, 9, 5).double(), torch.randn(2, 1, 6).double()
    time, padding = torch.tensor([3, 7]), torch.zeros(2, 9, dtype=torch.bool)
    padding[1, 6:] = True
    together = network(x, time, text, padding)
    noise = torch.where(padding.unsqueeze(-1), torch.randn_like(x), x)
    alone = network(x[1:, :6], time[1:], text[1:])
    torch.testing.assert_close(together[1:, :6], alone)
    torch.testing.assert_close(network(noise, time, text, padding)[1, :6], alone[0])


def test_an_erased_text_counts_as_zeros() -> None:
    network = TrunkDenoiser(5, text_dim=6, dim=8, trunk=trunk()).eval()
    x, text, time = torch.randn(2, 4, 5), torch.randn(2, 1, 6), torch.tensor([1, 2])
    erased = network(x, time, text, erase_text=torch.tensor([True, False]))
    nothing = network(x, time, torch.cat((torch.zeros(1, 1, 6), text[1:])))
    torch.testing.assert_close(erased, nothing)
    assert not torch.allclose(erased[0], network(x, time, text)[0])


def test_a_joint_network_owns_each_weight_once() -> None:
    shared = trunk()
    joint = JointNetwork(shared, {"a": TrunkClassifier(16, 8, 5, dim=8), "b": TrunkLifter(dim=8)})
    names = list(joint.state_dict())
    assert sum(name.startswith("trunk.") for name in names) == len(shared.state_dict())
    assert not any("trunk" in name for name in names if name.startswith("heads."))
    joint.heads["a"](torch.randn(1, 3, 16, 16)).sum().backward()
    assert all(p.grad is not None for p in shared.parameters())


def test_a_head_finds_itself_among_those_trained_together() -> None:
    joint = JointNetwork(trunk(), {"a": TrunkClassifier(16, 8, 5, dim=8), "b": TrunkLifter(dim=8)})
    alone = TrunkLifter(dim=8, trunk=MambaTrunk(8, depth=2, d_state=4))
    load_weights(alone, alone.adapt_state_dict(joint.state_dict()), source="joint")
    x = torch.randn(1, 4, 17, 3)
    torch.testing.assert_close(alone(x), joint.heads["b"](x))
    other = TrunkLifter(in_features=2, dim=8, trunk=trunk())
    with pytest.raises(SuiteError, match="none of a, b"):
        other.adapt_state_dict(joint.state_dict())


def test_what_cannot_share_says_so() -> None:
    with pytest.raises(SuiteError, match="a trunk of width 8"):
        JointNetwork(trunk(16), {"a": TrunkLifter(dim=8)})
    with pytest.raises(SuiteError, match="of its own"):
        JointNetwork(trunk(), {"a": TrunkLifter(dim=8, trunk=trunk())})
    with pytest.raises(SuiteError, match="heads.a.init_args.network"):
        JointNetwork(trunk(), {"a": nn.Linear(2, 2)})
    with pytest.raises(SuiteError, match="expected: a trunk|a trunk"):
        TrunkLifter(dim=8)(torch.randn(1, 2, 17, 3))
    assert issubclass(TrunkLifter, TrunkNetwork)
