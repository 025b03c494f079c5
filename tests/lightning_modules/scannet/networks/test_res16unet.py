"""Res16UNet34C against MinkowskiEngine's own output, and its published sizes."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from blocks.errors import SuiteError
from blocks.sparse import voxelize
from lightning_modules.scannet import Res16UNet34C
from tests.blocks.sparse.clouds import rows_of
from tests.lightning_modules.scannet.networks.rooms import by_room, room, voxels_of

NARROW: dict[str, Any] = {
    "stem": 8,
    "planes": (8, 8, 12, 12, 12, 8, 8, 10),
    "depths": (1, 2, 1, 1, 1, 1, 1, 1),
}


def test_the_network_computes_what_minkowski_engine_does(golden: Path) -> None:
    g = load_file(golden / "scannet" / "minkunet.safetensors")
    xyz, features = (torch.cat([g[f"in/{b}/{name}"] for b in (0, 1)]) for name in ("xyz", "feats"))
    voxels = voxelize(xyz, features, torch.arange(2).repeat_interleave(600), 0.02)
    network = Res16UNet34C(**NARROW).eval()
    state = {k.removeprefix("net."): v for k, v in g.items() if k.startswith("net.")}
    network.load_state_dict(state)
    y = network(voxels)
    rows = rows_of(g["voxel/coords"], voxels.grid)
    torch.testing.assert_close(y[rows], g["out/voxel"], atol=1e-6, rtol=1e-5)
    points = voxels.to_points(y)
    torch.testing.assert_close(points, g["out/point"], atol=1e-6, rtol=1e-5)
    torch.autograd.backward(points.square().mean())
    names = [key.removeprefix("grad/") for key in g if key.startswith("grad/")]
    assert len(names) == 3
    for name in names:
        found, expected = network.get_parameter(name).grad, g[f"grad/{name}"]
        # One of the gradients is of the order of 1e-9: closeness is relative to the largest.
        scale = float(expected.abs().max())
        torch.testing.assert_close(found, expected, atol=1e-5 * scale, rtol=0)


def test_sizes_and_keys_are_the_published_ones() -> None:
    with torch.device("meta"):
        network = Res16UNet34C()
    state = network.state_dict()
    assert sum(p.numel() for p in network.parameters()) == 37_854_112
    assert len(state) == 372
    assert network.out_channels == 96
    for key, shape in {
        "conv0p1s1.kernel": (125, 3, 32),
        "conv1p1s2.kernel": (8, 32, 32),
        "block1.0.conv1.kernel": (27, 32, 32),
        "block2.0.downsample.0.kernel": (32, 64),
        "block4.5.conv2.kernel": (27, 256, 256),
        "convtr4p16s2.kernel": (8, 256, 256),
        "block5.0.conv1.kernel": (27, 384, 256),
        "block8.0.conv1.kernel": (27, 128, 96),
        "bntr7.bn.running_var": (96,),
    }.items():
        assert tuple(state[key].shape) == shape, key


def test_momenta_are_small_outside_residual_blocks_and_in_shortcuts() -> None:
    network = Res16UNet34C(**NARROW)
    momenta = {
        name: module.momentum
        for name, module in network.named_modules()
        if isinstance(module, nn.BatchNorm1d)
    }
    assert {m for n, m in momenta.items() if n.startswith("bn")} == {0.02}
    assert {m for n, m in momenta.items() if "downsample" in n} == {0.02}
    assert {m for n, m in momenta.items() if "norm" in n} == {0.1}
    assert sum(n.startswith("bn") for n in momenta) == 9


def test_a_room_has_the_same_features_alone_and_in_any_batch() -> None:
    torch.manual_seed(0)
    network = Res16UNet34C(**NARROW).eval()
    rooms = [room(300, 1), room(700, 2), room(150, 3)]
    together = voxels_of(*rooms)
    with torch.no_grad():
        parts = by_room(network(together), together)
        for one, part in zip(rooms, parts, strict=True):
            torch.testing.assert_close(network(voxels_of(one)), part, atol=1e-5, rtol=1e-5)


def test_the_narrow_form_trains_all_of_its_parameters() -> None:
    torch.manual_seed(0)
    network = Res16UNet34C(**NARROW)
    voxels = voxels_of(room(400), room(300, 1))
    y = network(voxels)
    assert y.shape == (len(voxels.grid), network.out_channels)
    torch.autograd.backward((y * torch.randn_like(y)).sum())
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize(
    "config",
    [
        # ESAM, then Mask3D, who spells dilations in its own way.
        {"in_channels": 3, "out_channels": 96,
         "config": {"dilations": [1, 1, 1, 1], "conv1_kernel_size": 5, "bn_momentum": 0.02}},
        {"in_channels": 3, "out_channels": 20, "out_fpn": True,
         "config": {"dialations": [1, 1, 1, 1], "conv1_kernel_size": 5, "bn_momentum": 0.02}},
    ],
)  # fmt: skip
def test_upstream_configurations_build_the_published_network(config: dict[str, Any]) -> None:
    with torch.device("meta"):
        built, default = Res16UNet34C.from_upstream(config), Res16UNet34C()
    assert built.init_call == default.init_call


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"config": {"dilations": [1, 2, 1, 1]}}, "dilations of 1"),
        ({"in_channel": 3}, "did you mean 'in_channels'"),
        ({"config": {"conv_kernel_size": 3}}, "did you mean 'conv1_kernel_size'"),
    ],
)
def test_other_configurations_are_refused(config: dict[str, Any], message: str) -> None:
    with pytest.raises(SuiteError, match=message):
        Res16UNet34C.from_upstream(config)


def test_a_wrong_number_of_blocks_is_refused() -> None:
    with pytest.raises(SuiteError, match="8 planes"):
        Res16UNet34C(planes=(8, 8, 8, 8))
