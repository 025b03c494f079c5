"""Pose lifting: poses while the camera runs, and a training step of MotionAGFormer-B.

A stream is one call per frame of `hybrid_causal_xs`, as shipped; beside it stands what a network
without memory must do, a window of frames through MotionAGFormer-XS for the last pose alone. The
training step is that of MotionAGFormer-B on clips of 81 frames, beside a plain transcription of its
formulas with the same weights. The optimiser is AdamW, as the suite builds it and as torch does
without being told anything. Weights are random, which time does not notice.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor, nn

from benchmarks.plain_agformer import PlainAGFormer
from benchmarks.settings import DTYPES, Settings, Tell, chosen
from benchmarks.timing import compare, interleave
from blocks.geometry.skeleton import agformer_adjacency
from lightning_modules.optimization import Optimizer, build_optimizer, parameter_groups
from lightning_modules.pose import HybridLifter, MotionAGFormer, StreamingLifter
from lightning_modules.pose.losses import PoseLoss

POSE_PEERS = ("plain_agformer_b", "agformer_xs_window")
_CONFIGS = Path(__file__).parent.parent / "configs" / "pose"
_SIZE, _WINDOW, _STREAM = (1000, 1000), 27, 100
_BASE: dict[str, Any] = {"depth": 16, "dim": 128, "num_frames": 81}
_ADAMW = Optimizer(lr=5e-4, weight_decay=0.01)
_QUICK: dict[str, Any] = {"depth": 1, "dim": 16, "num_frames": 9}


def measure_pose(settings: Settings, tell: Tell) -> dict[str, Any]:
    """Measures the stream and the training step.

    Args:
        settings: How. The stream is always float32.
        tell: Hears what is being done.

    Returns:
        `stream`: `rows` with `frames_per_second`, `state_bytes` of the stream, and `difference`,
        the largest one to the whole clip at once, in halves of the image's width; `training`:
        `clips` and `frames` of a step, its `rows`, and the same `difference` of the two networks.
    """
    peers = chosen(settings, POSE_PEERS)
    torch.manual_seed(0)
    with torch.random.fork_rng(devices=[]):
        return {"stream": _stream(settings, peers, tell), "training": _train(settings, peers, tell)}


def _stream(settings: Settings, peers: list[str], tell: Tell) -> dict[str, Any]:
    tell("a stream of frames, one call each")
    network = HybridLifter(**_shipped("hybrid_causal_xs", settings.quick)).to(settings.device)
    joints = torch.cat((1000 * torch.rand(_STREAM, 17, 2), torch.ones(_STREAM, 17, 1)), -1)
    lifter = StreamingLifter(network, _SIZE, root_relative=False)
    poses = torch.stack([lifter(frame) for frame in joints])
    with torch.no_grad():
        features = torch.cat((joints[..., :2] / 500 - 1, joints[..., 2:]), -1)
        whole = network(features.unsqueeze(0).to(settings.device))[0]
    contenders: dict[str, Callable[[], object]] = {"hybrid_causal_xs": lambda: lifter(joints[0])}
    if "agformer_xs_window" in peers:
        window = features[:_WINDOW].unsqueeze(0).to(settings.device)
        without_memory = MotionAGFormer(**_shipped("agformer_xs", settings.quick))
        without_memory = without_memory.to(settings.device).eval()
        contenders["agformer_xs_window"] = lambda: _last(without_memory, window)
    rows = compare(interleave(contenders, settings), "hybrid_causal_xs")
    for row in rows.values():
        if "median_seconds" in row:
            row["frames_per_second"] = 1 / row["median_seconds"]
    return {
        "rows": rows,
        "state_bytes": lifter.nbytes,
        "difference": float((poses - whole).abs().max()),
    }


@torch.no_grad()
def _last(network: nn.Module, window: Tensor) -> Tensor:
    pose: Tensor = network(window)[:, -1]
    return pose


def _train(settings: Settings, peers: list[str], tell: Tell) -> dict[str, Any]:
    size = _QUICK if settings.quick else _BASE
    clips, frames = 1, size["num_frames"]
    tell(f"a training step of {clips} clip of {frames} frames")
    networks: dict[str, nn.Module] = {"agformer_b": MotionAGFormer(**size)}
    if "plain_agformer_b" in peers:
        networks["plain_agformer_b"] = PlainAGFormer(agformer_adjacency(), **size)
        networks["plain_agformer_b"].load_state_dict(networks["agformer_b"].state_dict())
    x = torch.rand(clips, frames, 17, 3, device=settings.device) * 2 - 1
    y = torch.rand_like(x)
    for network in networks.values():
        network.to(settings.device).eval()
    with torch.no_grad():
        poses = [network(x) for network in networks.values()]
    steps = {name: _step(network, x, y, settings) for name, network in networks.items()}
    return {
        "clips": clips,
        "frames": frames,
        "rows": compare(interleave(steps, settings), "agformer_b"),
        "difference": float((poses[0] - poses[-1]).abs().max()),
    }


def _step(network: nn.Module, x: Tensor, y: Tensor, settings: Settings) -> Callable[[], object]:
    optimizer = torch.optim.AdamW(network.parameters(), lr=_ADAMW.lr, weight_decay=0.01)
    if isinstance(network, MotionAGFormer):
        optimizer = build_optimizer(parameter_groups(network, _ADAMW), _ADAMW.lr, _ADAMW)
    loss, dtype = PoseLoss(), DTYPES[settings.dtype]

    def step() -> None:
        network.train()
        with torch.autocast(x.device.type, dtype, enabled=dtype != torch.float32):
            pose = network(x)
        torch.autograd.backward(loss.total(loss.terms(pose.float(), y)))
        optimizer.step()
        optimizer.zero_grad()

    return step


def _shipped(name: str, quick: bool) -> dict[str, Any]:
    """Arguments of the network of a configuration."""
    content = yaml.safe_load((_CONFIGS / f"{name}.yaml").read_text())
    arguments: dict[str, Any] = content["model"]["init_args"]["network"]["init_args"]
    return arguments | ({"depth": 1} if quick else {})
