"""Multiply-accumulate operations (MACs) of one forward pass, our operators included.

torch counts matrix products, convolutions and attention; here it learns what the selective scan and
its convolution cost. Norms, activations and other element-wise work count nothing, as usual.
"""

import contextlib
import math
import random
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode, register_flop_formula

import blocks.conv.operator
import blocks.decompositions
import blocks.scan.operator
import blocks.selective_paths  # noqa: F401  These define what the formulas below are for.

# Albert Gu in state-spaces/mamba, issue 110; VMamba's tables use it too.
_SCAN_FLOPS = 9
COUNTER = (
    "torch FlopCounterMode / 2 of one call of the network in evaluation mode, "
    f"scan counted as {_SCAN_FLOPS / 2} MACs per (channel, state, step)"
)


class Macs(NamedTuple):
    """A count and how it was made.

    Args:
        total: Multiply-accumulates of the whole input, half of its floating-point operations.
        counter: What counted.
    """

    total: int
    counter: str = COUNTER


def count_macs(network: nn.Module, *inputs: Any, **options: Any) -> Macs:
    """Counts a forward pass, and leaves the network as it was.

    It runs `network.forward` in evaluation mode without gradients, eagerly even where the network
    is compiled. Random states, buffers and the training mode of each module are put back.

    Args:
        network: Any module whose parameters are whole on this process.
        *inputs: What its forward takes.
        **options: The same, by name.

    Returns:
        The count. It grows with what is computed, not with what is kept: positions beyond a
        sample's length count, attention counts without its mask.
    """
    with _undisturbed(network), torch.no_grad(), FlopCounterMode(display=False) as counter:
        network.eval().forward(*inputs, **options)
    return Macs(counter.get_total_flops() // 2)


@contextlib.contextmanager
def _undisturbed(network: nn.Module) -> Iterator[None]:
    modes = [(module, module.training) for module in network.modules()]
    # torch's own Transformer layers are one operation in evaluation mode, which nobody counts.
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    buffers = [(buffer, buffer.clone()) for buffer in network.buffers()]
    states = random.getstate(), np.random.get_state()
    devices = {p.device.index for p in network.parameters() if p.device.type == "cuda"}
    try:
        with torch.random.fork_rng(sorted(index or 0 for index in devices)):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        random.setstate(states[0])
        np.random.set_state(states[1])
        with torch.no_grad():
            for buffer, before in buffers:
                buffer.copy_(before)
        for module, training in modes:
            module.training = training


@register_flop_formula(torch.ops.bimamba.selective_scan, get_raw=True)
def scan_flops(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    *_: Any,
    **__: Any,
) -> int:
    """Floating-point operations of the scan along all of its paths.

    9 per (batch, path, channel, state, step): discretising A and B, the recurrence and reading the
    state, as its authors count them. The skip D u adds a multiplication and an addition per (batch,
    path, channel, step), the gate as much per (batch, channel, step). Complex states count four
    times, once for each real product in a complex one.

    Args:
        u: Input, (B, K or 1, D, L).
        delta: Step sizes, (B, K, D, L).
        A: Decay, (K, D, N).
        B: Not looked at.
        C: Not looked at.
        D: Skip weights or None.
        z: Gate or None.
    """
    return delta.numel() // delta.shape[1] * _scan_flops(A, skip=D is not None, gate=z is not None)


@register_flop_formula(torch.ops.bimamba.recurrence)
def recurrence_flops(u_shape: Any, s_shape: Any, A_shape: Any, *_: Any, **__: Any) -> int:
    """Floating-point operations of one path without skip and gate, as of the scan.

    Args:
        u_shape: (B, D, L).
        s_shape: Not looked at.
        A_shape: (D, N).
    """
    return int(9 * math.prod(u_shape) * A_shape[1])


@register_flop_formula(torch.ops.bimamba.path_conv)
def conv_flops(x_shape: Any, weight_shape: Any, *_: Any, **__: Any) -> int:
    """Floating-point operations of the depthwise convolution: two per tap.

    Args:
        x_shape: (B, D, L).
        weight_shape: (K, D, W), one filter per path and channel.
    """
    batch, channels, length = x_shape
    return int(2 * batch * channels * length * weight_shape[0] * weight_shape[2])


@register_flop_formula(torch.ops.bimamba.selective_paths, get_raw=True)
def mixer_flops(
    x: Tensor,
    z: Tensor,
    conv_weight: Tensor,
    conv_bias: Tensor | None,
    x_proj_weight: Tensor,
    dt_proj_weight: Tensor,
    A: Tensor,
    *_: Any,
    **__: Any,
) -> int:
    """Floating-point operations between the outer projections of a mixer: the sum of its parts.

    Args:
        x: Input, (B, D, L).
        z: Gate, not looked at.
        conv_weight: (K, D, W).
        conv_bias: Not looked at.
        x_proj_weight: (K, R + 2N, D).
        dt_proj_weight: (K, D, R).
        A: Decay, (K, D, N).
    """
    products = conv_weight.shape[2] + x_proj_weight.shape[1] + dt_proj_weight.shape[2]
    return x.numel() * (2 * len(conv_weight) * products + _scan_flops(A, skip=True, gate=True))


def _scan_flops(A: Tensor, *, skip: bool, gate: bool) -> int:
    """Of all paths of a scan, per sample, channel and step; A is (K, D, N)."""
    paths, _, states = A.shape
    return _SCAN_FLOPS * paths * states * (4 if A.is_complex() else 1) + 2 * (paths * skip + gate)
