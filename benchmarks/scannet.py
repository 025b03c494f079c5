"""The 3-D backbones of the ScanNet wing on a frame of 15,000 voxels, and a layer beside spconv.

A call starts at the points: making voxels and finding their neighbours is part of every step, for
no two frames have the same. Peers of Res16UNet34C are the serialized Mamba U-Nets, which have the
same input and output; the peer of a layer is spconv's, with our weights, where it is installed. The
score of the wing, ScanNet's average precision, is timed beside its definition.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.instance_ap import measure_instance_ap
from benchmarks.room import room_frame
from benchmarks.settings import DTYPES, Settings, Tell, chosen
from benchmarks.spconv_peer import SpconvLayer
from benchmarks.timing import Row, compare, interleave, reason
from blocks.macs import count_macs
from blocks.sparse import SparseConv3d, Voxels, voxelize
from lightning_modules.scannet import Res16UNet34C, SerializedMambaUNet

SCANNET_PEERS = ("serialized_mamba", "serialized_mamba_small", "spconv")
OURS = "res16unet34c"
# Random pixels that fall into 15,000 voxels of this size, in metres.
POINTS, VOXEL = 17_350, 0.02
# Channels and strides of layers inside Res16UNet34C.
LAYERS = ((96, 1), (64, 2), (128, 4), (256, 8))
_QUICK = 400


def measure_scannet(settings: Settings, tell: Tell) -> dict[str, Any]:
    """Measures backbones and layers.

    Args:
        settings: How.
        tell: Hears what is being done.

    Returns:
        `frame`: points, voxels at each stride. `backbones`: by name parameters and MACs, rows of
        `forward` (evaluation) and `forward_backward` (training mode). `layers`: by size the rows of
        forward and backward. `average_precision`: of `measure_instance_ap`.
    """
    names = chosen(settings, SCANNET_PEERS)
    torch.manual_seed(0)
    xyz, color = (x.to(settings.device) for x in room_frame(_QUICK if settings.quick else POINTS))

    def frame() -> Voxels:
        return voxelize(xyz, color, torch.zeros_like(xyz[:, 0], dtype=torch.long), VOXEL)

    grids = [frame().grid]
    while len(grids) < 5:
        grids.append(grids[-1].coarser)
    levels = {str(grid.stride): len(grid) for grid in grids}
    layers: dict[str, dict[str, Row]] = {}
    for channels, stride in LAYERS[: 2 if settings.quick else None]:
        tell(f"a layer of {channels} channels at stride {stride}")
        layers[f"{channels}x{stride}"] = _layer(frame(), channels, stride, names, settings)
    return {
        "frame": {"points": len(xyz), "voxels": levels["1"], "size": VOXEL, "levels": levels},
        "backbones": _backbones(frame, names, settings, tell),
        "layers": layers,
        "average_precision": measure_instance_ap(settings, tell),
    }


def _backbones(
    frame: Callable[[], Voxels], names: list[str], settings: Settings, tell: Tell
) -> dict[str, Any]:
    makers: dict[str, Callable[[], nn.Module]] = {
        OURS: lambda: Res16UNet34C(**_narrow(settings.quick)),
        "serialized_mamba": SerializedMambaUNet,
        "serialized_mamba_small": lambda: SerializedMambaUNet(
            channels=(16, 32, 48, 64),
            depths=(1, 1, 1, 1),
            decoder_channels=(32, 32, 48),
            decoder_depths=(1, 1, 1),
        ),
    }
    if settings.quick:
        del makers["serialized_mamba"]
    wanted = [name for name in makers if name == OURS or name in names]
    networks = {name: makers[name]().to(settings.device) for name in wanted}
    found: dict[str, Any] = {
        "sizes": {
            name: {
                "parameters": sum(p.numel() for p in network.parameters()),
                "macs": count_macs(network, frame()).total,
            }
            for name, network in networks.items()
        }
    }
    for mode, maker in (("forward", _inference), ("forward_backward", _training)):
        tell(f"{mode.replace('_', ' and ')} of {', '.join(networks)}")
        steps = {name: maker(network, frame, settings) for name, network in networks.items()}
        found[mode] = compare(interleave(steps, settings), OURS)
    return found


def _training(
    network: nn.Module, frame: Callable[[], Voxels], settings: Settings
) -> Callable[[], object]:
    parameters = list(network.parameters())

    def step() -> tuple[Tensor, ...]:
        network.train()
        y = _autocast(network, frame(), settings)
        return torch.autograd.grad(y.float().square().mean(), parameters)

    return step


def _inference(
    network: nn.Module, frame: Callable[[], Voxels], settings: Settings
) -> Callable[[], object]:
    @torch.no_grad()
    def step() -> Tensor:
        network.eval()
        return _autocast(network, frame(), settings)

    return step


def _autocast(network: nn.Module, voxels: Voxels, settings: Settings) -> Tensor:
    dtype = DTYPES[settings.dtype]
    with torch.autocast(voxels.features.device.type, dtype, enabled=dtype != torch.float32):
        y: Tensor = network(voxels)
    return y


def _layer(
    voxels: Voxels, channels: int, stride: int, names: list[str], settings: Settings
) -> dict[str, Row]:
    """Forward and backward of a 3 x 3 x 3 layer, neighbours found before."""
    grid = voxels.grid
    while grid.stride < stride:
        grid = grid.coarser
    dtype = DTYPES[settings.dtype]
    x = torch.randn(len(grid), channels, device=settings.device, dtype=dtype, requires_grad=True)
    grad = torch.randn_like(x)
    conv = SparseConv3d(channels, channels).to(settings.device, dtype)
    steps: dict[str, Callable[[], object]] = {
        "ours": lambda: torch.autograd.grad(conv(x, grid), [x, conv.kernel], grad)
    }
    missing: dict[str, Row] = {}
    if "spconv" in names:
        try:
            peer = SpconvLayer(conv, grid)
            steps["spconv"] = lambda: torch.autograd.grad(peer(x), [x, peer.weight], grad)
            peer.check(x)
        except Exception as error:  # Absent, or built for another torch.
            steps.pop("spconv", None)
            missing["spconv"] = {"skipped": reason(error)}
    return compare(interleave(steps, settings), "ours") | missing


def _narrow(quick: bool) -> dict[str, Any]:
    return {"stem": 8, "planes": (8,) * 8, "depths": (1,) * 8} if quick else {}
