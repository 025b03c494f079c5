"""The serialized Mamba U-Net: no sample disturbs another, and every option does its work."""

from typing import Any

import pytest
import torch
from torch import nn

from blocks import BiMamba
from blocks.errors import SuiteError
from blocks.serialization import ORDERS, serialize
from lightning_modules.scannet import Res16UNet34C, SerializedMambaUNet
from lightning_modules.scannet.networks.serialized_levels import SerializedLevel
from lightning_modules.scannet.networks.serialized_mamba_unet import _Block
from tests.lightning_modules.scannet.networks.rooms import by_room, room, voxels_of

TINY: dict[str, Any] = {
    "channels": (8, 12, 16),
    "depths": (1, 2, 2),
    "decoder_channels": (8, 12),
    "decoder_depths": (1, 1),
    "out_channels": 10,
    "d_state": 4,
}
SMALL: dict[str, Any] = {
    "channels": (16, 32, 48, 64),
    "depths": (1, 1, 1, 1),
    "decoder_channels": (32, 32, 48),
    "decoder_depths": (1, 1, 1),
}


def tiny(**options: Any) -> SerializedMambaUNet:
    torch.manual_seed(0)
    return SerializedMambaUNet(**TINY | options)


def parameters(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def test_sizes_are_within_the_promised_ones() -> None:
    with torch.device("meta"):
        assert 9e6 < parameters(SerializedMambaUNet()) <= 14e6
    assert 0.15e6 < parameters(SerializedMambaUNet(**SMALL)) <= 0.25e6


@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_room_has_the_same_features_alone_and_in_any_batch(place: int) -> None:
    network = tiny().eval()
    one = room(300, 1)
    rooms = [room(700, 2), room(40, 3)]
    rooms.insert(place, one)
    together = voxels_of(*rooms)
    with torch.no_grad():
        alone = network(voxels_of(one))
        part = by_room(network(together), together)[place]
    assert alone.std() > 0.1
    torch.testing.assert_close(part, alone, atol=1e-5, rtol=1e-5)


def test_a_room_sends_the_same_gradient_alone_and_in_any_batch() -> None:
    network = tiny().eval()
    one, other = room(300, 1), room(500, 2)
    grads = []
    for rooms in ([one], [other, one]):
        voxels = voxels_of(*rooms)
        y = by_room(network(voxels), voxels)[-1]
        grads.append(
            torch.autograd.grad((y * torch.linspace(-1, 1, 10)).sum(), [*network.parameters()])
        )
    for mine, theirs in zip(*grads, strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-4, rtol=1e-4)


def test_a_room_may_lie_anywhere_on_the_grid() -> None:
    network = tiny().eval()
    xyz, color = room(300, 1)
    # Whole voxels of 5 cm: the voxels are the same, the strides' absolute multiples are not.
    xyz = (xyz / 0.05).floor() * 0.05 + 0.025
    moved = xyz + 0.05 * torch.tensor([-301, 7, 94])
    with torch.no_grad():
        found, expected = (network(voxels_of((where, color))) for where in (moved, xyz))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_points_read_the_same_features_in_whatever_order_they_come() -> None:
    order = torch.randperm(300, generator=torch.Generator().manual_seed(0))
    one = room(300)
    narrow = Res16UNet34C(stem=8, planes=(8,) * 8, depths=(1,) * 8)
    for backbone in (tiny().eval(), narrow.eval()):
        voxels, mixed = voxels_of(one), voxels_of((one[0][order], one[1][order]))
        with torch.no_grad():
            y, found = voxels.to_points(backbone(voxels)), mixed.to_points(backbone(mixed))
        assert y.shape == (300, backbone.out_channels)
        torch.testing.assert_close(found, y[order], atol=1e-5, rtol=1e-5)


def test_every_parameter_gets_a_gradient() -> None:
    network = tiny()
    y = network(voxels_of(room(400), room(300, 1)))
    torch.autograd.backward((y * torch.randn_like(y)).sum())
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().max() > 0, name


def test_a_block_is_convolution_scans_along_its_curve_and_perceptron() -> None:
    torch.manual_seed(0)
    voxels = voxels_of(room(200))
    level = SerializedLevel.finest(voxels)
    block, x = _Block(8, 4, 16, 0.0), torch.randn(len(level.grid), 8)
    cells = voxels.coordinates[:, 1:] - voxels.coordinates[:, 1:].amin(0)
    for order in ORDERS:
        along = serialize(cells, voxels.coordinates[:, 0], 16, order).argsort()
        y = x + block.conv(x, level.grid)
        assert block.mixer is not None
        y[along] += block.mixer(block.mixer_norm(y)[along][None])[0]
        y = y + block.mlp(block.mlp_norm(y))
        torch.testing.assert_close(block(x, level, order), y, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("first", [0, 1, 2, 3])
def test_levels_above_the_first_scanning_one_have_no_scan(first: int) -> None:
    network = tiny(mamba_from_stage=first)
    for stages in (network.encoder, network.decoder):
        for level, stage in enumerate(stages):
            scans = any(isinstance(module, BiMamba) for module in stage.modules())
            assert scans == (level >= first)


def recorded_orders(network: SerializedMambaUNet) -> list[str]:
    """Curves the blocks were run along, in a call."""
    seen: list[str] = []
    hooks = [
        module.register_forward_pre_hook(lambda _, given: seen.append(given[2]))
        for module in network.modules()
        if isinstance(module, _Block)
    ]
    with torch.no_grad():
        network(voxels_of(room(60), room(50, 1)))
    for hook in hooks:
        hook.remove()
    return seen


def test_blocks_take_the_four_curves_in_turn() -> None:
    assert recorded_orders(tiny().eval()) == [ORDERS[i % 4] for i in range(7)]
    assert recorded_orders(tiny(shuffle_orders=False).train()) == [ORDERS[i % 4] for i in range(7)]


def test_training_deals_the_curves_anew_by_torchs_generator() -> None:
    network = tiny(drop_path=0.0).train()
    torch.manual_seed(1)
    found = [tuple(recorded_orders(network)) for _ in range(12)]
    torch.manual_seed(1)
    assert [tuple(recorded_orders(network)) for _ in range(12)] == found
    assert len(set(found)) > 3
    for orders in found:
        assert set(orders[:4]) == set(ORDERS) and orders[4:] == orders[:3]


def test_an_evaluation_draws_nothing() -> None:
    network = tiny().eval()
    before = torch.get_rng_state()
    recorded_orders(network)
    assert torch.equal(torch.get_rng_state(), before)


def test_drop_path_drops_a_branch_of_whole_rooms() -> None:
    torch.manual_seed(0)
    level = SerializedLevel.finest(voxels_of(*(room(40, i) for i in range(40))))
    block = _Block(4, None, 8, 0.5).train()
    nn.init.zeros_(block.conv.kernel)
    nn.init.zeros_(block.conv.get_parameter("bias"))
    x = torch.randn(len(level.grid), 4)
    change = (block(x, level, "z") - x).split(level.lengths.tolist())
    full = (block.eval()(x, level, "z") - x).split(level.lengths.tolist())
    dropped = 0
    for mine, whole in zip(change, full, strict=True):
        if mine.abs().max() == 0:
            dropped += 1
        else:
            torch.testing.assert_close(mine, 2 * whole, atol=1e-5, rtol=1e-5)
    assert 10 < dropped < 30


def test_rates_grow_with_depth() -> None:
    network = tiny(drop_path=0.4)
    assert network.encoder[0][0].drop_path.p == 0
    assert network.encoder[-1][-1].drop_path.p == pytest.approx(0.4)
    assert network.decoder[0][0].drop_path.p == 0
    assert network.decoder[-1][-1].drop_path.p == pytest.approx(0.4)


def test_autocast_stays_near_float32() -> None:
    network, voxels = tiny().eval(), voxels_of(room(300))
    with torch.no_grad():
        exact = network(voxels)
        with torch.autocast("cpu", torch.bfloat16):
            low = network(voxels).float()
    assert (low - exact).abs().mean() < 0.05 * exact.std()


@pytest.mark.parametrize(
    "sizes",
    [
        {"depths": (1, 1)},
        {"decoder_channels": (8, 8, 8)},
        {"decoder_depths": (1,)},
        {"channels": ()},
    ],
)
def test_levels_that_do_not_fit_together_are_refused(sizes: dict[str, Any]) -> None:
    with pytest.raises(SuiteError, match="finest first"):
        tiny(**sizes)
