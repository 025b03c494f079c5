"""The selective scan beside its peers: forward, and forward with backward.

Shapes are written (B, D, L, N); the first three are those of the suite's targets.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks.agreement import disagreement, gradients, largest_difference
from benchmarks.first_call import measure_first_call
from benchmarks.roofline import measure_roofline
from benchmarks.scan_peers import CUDA_SCAN_PEERS, SCAN_PEERS, Scan, ScanPeer, ours
from benchmarks.settings import DTYPES, Settings, Tell, chosen
from benchmarks.timing import Contender, Row, compare, interleave, reason

Shape = tuple[int, int, int, int]
# Vim-Tiny's and a shorter sequence, and a long one in a single sample.
SHAPES: tuple[Shape, ...] = ((2, 384, 197, 16), (8, 192, 64, 16), (1, 384, 4096, 16))
# A GPU is filled by a training batch; VMamba has one state, of four paths side by side.
CUDA_SHAPES: tuple[Shape, ...] = (
    (128, 384, 197, 16), (64, 384, 3136, 1), (1, 384, 16384, 16),
)  # fmt: skip
_PEERS = SCAN_PEERS | CUDA_SCAN_PEERS
QUICK_SHAPES: tuple[Shape, ...] = ((2, 24, 33, 4), (1, 16, 64, 4))


def measure_scan(settings: Settings, tell: Tell) -> dict[str, Any]:
    """Measures everything about the scan.

    Args:
        settings: How.
        tell: Hears what is being done.

    Returns:
        `roofline`, `shapes` (see `_measure_shape`) and `first_call`, ready for JSON.
    """
    on_cuda = torch.device(settings.device).type == "cuda"
    names = chosen(settings, _PEERS if on_cuda else SCAN_PEERS)
    tell("limits of the machine")
    roofline = measure_roofline(settings.device, settings.quick)
    results: dict[str, Any] = {"roofline": roofline.as_dict(), "shapes": {}}
    full = CUDA_SHAPES if on_cuda else SHAPES
    for shape in QUICK_SHAPES if settings.quick else full:
        tell(f"scan, (B, D, L, N) = {shape}")
        found = _measure_shape(shape, names, settings)
        least = roofline.least_seconds(shape, DTYPES[settings.dtype].itemsize)
        found["least_seconds"] = least
        forward = found["forward"]["ours"]["median_seconds"]
        found["forward_over_exp_roofline"] = forward / least["exp"]
        results["shapes"]["x".join(map(str, shape))] = found
    tell("first call in a fresh process")
    results["first_call"] = measure_first_call("scan", settings)
    return results


def scan_inputs(shape: Shape, dtype: torch.dtype, device: str) -> tuple[Tensor, ...]:
    """The eight operands of a scan, drawn anew from one seed, each wanting a gradient.

    Args:
        shape: (B, D, L, N).
        dtype: Type of the streams u, delta, B, C, z; A, D and the bias are float32.
        device: Where they live.

    Returns:
        u, delta, A, B, C, D, z, delta_bias. Step sizes lie around 0.02, as in a trained Mamba.
    """
    batch, channels, length, states = shape
    draw = partial(torch.randn, generator=torch.Generator().manual_seed(0))
    streams = {
        "u": draw(batch, channels, length),
        "delta": draw(batch, channels, length) * 0.5,
        "B": draw(batch, states, length),
        "C": draw(batch, states, length),
        "z": draw(batch, channels, length),
    }
    u, delta, B, C, z = (x.to(device, dtype).requires_grad_() for x in streams.values())
    A, D, bias = (
        x.to(device).requires_grad_()
        for x in (
            -torch.arange(1.0, states + 1).repeat(channels, 1),
            torch.ones(channels),
            draw(channels) - 4,
        )
    )
    return u, delta, A, B, C, D, z, bias


def _measure_shape(shape: Shape, names: list[str], settings: Settings) -> dict[str, Any]:
    """`forward` and `forward_backward` (rows by name), and each peer's `agreement` with ours."""
    inputs = scan_inputs(shape, DTYPES[settings.dtype], settings.device)
    grad = torch.randn(inputs[0].shape, generator=torch.Generator().manual_seed(1)).to(inputs[0])
    agreement, excluded, no_backward = {}, {}, {}
    for name in names:
        peer = _PEERS[name]
        if settings.quick and peer.kind == "compiled" and settings.peers is None:
            excluded[name] = "compiling it takes longer than --quick allows"
            continue
        if peer.longest_backward is not None and shape[2] > peer.longest_backward:
            no_backward[name] = peer.why
        try:
            difference = _difference(peer, inputs, grad, name not in no_backward)
        except Exception as error:  # A prototype, a compiler, a package that is not installed.
            excluded[name] = reason(error)
            continue
        agreement[name] = difference
        if why := disagreement(difference, settings.dtype):
            excluded[name] = why
    scans = {"ours": ours} | {n: _PEERS[n].scan for n in names if n not in excluded}
    forward = {name: partial(_forward, scan, inputs) for name, scan in scans.items()}
    both = {n: partial(_step, s, inputs, grad) for n, s in scans.items() if n not in no_backward}
    return {
        "forward": _rows(forward, excluded, settings),
        "forward_backward": _rows(both, no_backward | excluded, settings),
        "agreement": agreement,
    }


def _rows(
    contenders: Mapping[str, Contender], skipped: dict[str, str], settings: Settings
) -> dict[str, Row]:
    times = interleave(contenders, settings)
    rows = compare(times, "ours") | {name: {"skipped": why} for name, why in skipped.items()}
    return {name: rows[name] for name in ("ours", *_PEERS) if name in rows}


def _difference(
    peer: ScanPeer, inputs: tuple[Tensor, ...], grad: Tensor, with_gradients: bool
) -> float:
    found, expected = peer.scan(*inputs), ours(*inputs)
    pairs = ([found], [expected])
    if with_gradients:
        pairs[0].extend(gradients(found, inputs, grad))
        pairs[1].extend(gradients(expected, inputs, grad))
    return largest_difference(*pairs)


@torch.no_grad()
def _forward(scan: Scan, inputs: tuple[Tensor, ...]) -> Tensor:
    return scan(*inputs)


def _step(scan: Scan, inputs: tuple[Tensor, ...], grad: Tensor) -> tuple[Tensor, ...]:
    return gradients(scan(*inputs), inputs, grad)
