"""Causal depthwise convolution over time, and the same one step at a time.

    out[d, t] = act(bias[d] + sum_k weight[d, k] x[d, t - (W-1) + k])

Follows Dao-AILab/causal-conv1d, in any width, layout and precision; without its `seq_idx`. Reversed
in time the taps look ahead instead: out[t] = act(bias + sum_k weight[k] x[t + (W-1) - k]).

Shapes: B batch, D channels, L time, W width, S >= W-1 stored inputs.
"""

from typing import Literal, overload

import torch
import torch.nn.functional as F
from torch import Tensor

from blocks.conv import cpu
from blocks.conv.operator import path_conv
from blocks.errors import SuiteError
from blocks.scan.checks import check_range
from blocks.scan.paths import FORWARD, REVERSE

Activation = Literal["silu", "swish"] | None


@overload
def causal_conv1d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    initial_states: Tensor | None = None,
    return_final_states: Literal[False] = False,
    activation: Activation = None,
    *,
    reverse: bool = False,
    lengths: Tensor | None = None,
) -> Tensor: ...


@overload
def causal_conv1d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    initial_states: Tensor | None = None,
    *,
    return_final_states: Literal[True],
    activation: Activation = None,
    reverse: bool = False,
    lengths: Tensor | None = None,
) -> tuple[Tensor, Tensor]: ...


def causal_conv1d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    initial_states: Tensor | None = None,
    return_final_states: bool = False,
    activation: Activation = None,
    *,
    reverse: bool = False,
    lengths: Tensor | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    """Depthwise convolution that never looks ahead (or, reversed, never back).

    Computes in the wider of the types of x and weight.

    Args:
        x: Input, (B, D, L).
        weight: Taps, (D, W), oldest first; `Conv1d.weight.squeeze(1)`.
        bias: (D,).
        initial_states: The W-1 inputs before x, (B, D, W-1); zeros by default.
        return_final_states: Whether to return the last W-1 inputs too.
        activation: "silu" ("swish" is the same) or None.
        reverse: Whether time runs backwards: flip(conv(flip(x))) without a flip. Does not go with
            initial or final states, because nothing is ever stepped backwards.
        lengths: Valid steps per sample, (B,) integers. Beyond them the output is 0, and whatever
            the padding holds changes neither results nor gradients.

    Returns:
        Output (B, D, L) in the type of x; with `return_final_states` also the last W-1 valid
        inputs, (B, D, W-1), zeros where there were fewer.

    Raises:
        SuiteError: Shapes do not fit, or states are asked of a reverse convolution.
    """
    _check(x, weight, bias, activation)
    past = weight.shape[1] - 1
    if reverse and (initial_states is not None or return_final_states):
        raise SuiteError(
            expected="initial or final states with a forward convolution only",
            found="reverse=True",
            where="causal_conv1d",
            cure="leave the states out, or flip x yourself",
        )
    if initial_states is not None and initial_states.shape != (*x.shape[:2], past):
        raise _misfit("initial_states", f"shape {(*x.shape[:2], past)}", initial_states)

    if lengths is not None:
        check_range(lengths, x.shape[-1])
    history = x
    if initial_states is not None:
        history = torch.cat([initial_states.to(x.dtype), x], dim=-1)
    known = history.shape[-1] - x.shape[-1]
    valid = None if lengths is None else lengths + known
    path = REVERSE if reverse else FORWARD
    y = _convolve(history, weight, bias, activation, path, valid)[..., known:]
    return (y, last_steps(history, past, valid)) if return_final_states else y


def last_steps(x: Tensor, count: int, lengths: Tensor | None = None) -> Tensor:
    """The last `count` valid steps of (B, D, L), zeros on the left where there are fewer."""
    padded = F.pad(x, (count, 0))
    if lengths is None:
        return padded[..., x.shape[-1] :]
    steps = lengths.view(-1, 1, 1) + torch.arange(count, device=x.device)
    return padded.gather(-1, steps.expand(-1, x.shape[1], -1))


def causal_conv1d_update(
    x: Tensor,
    conv_state: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    activation: Activation = None,
) -> Tensor:
    """Convolves new steps, given the inputs before them.

    Args:
        x: New inputs, (B, D) for one step or (B, D, L).
        conv_state: Latest inputs, (B, D, S) with S >= W-1. Shifted left by the new ones IN PLACE,
            cut off from the graph.
        weight: Taps, (D, W), oldest first.
        bias: (D,).
        activation: "silu" ("swish" is the same) or None.

    Returns:
        Output in the shape and type of x.
    """
    x_BDL = x.unsqueeze(-1) if x.dim() == 2 else x
    _check(x_BDL, weight, bias, activation)
    stored, past = conv_state.shape[-1], weight.shape[1] - 1
    if conv_state.shape[:2] != x.shape[:2] or stored < past:
        raise _misfit("conv_state", f"shape {tuple(x.shape[:2])} + (at least {past},)", conv_state)
    if x.dim() == 2 and activation is not None:
        stepped = cpu.step(x, conv_state, weight, bias)
        if stepped is not None:
            return stepped
    history = torch.cat([conv_state, x_BDL.to(conv_state.dtype)], dim=-1)
    conv_state.copy_(history[..., history.shape[-1] - stored :].detach())
    y = _convolve(history[..., stored - past :], weight, bias, activation, FORWARD)[..., past:]
    return y.reshape(x.shape).to(x.dtype)


def _convolve(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    activation: Activation,
    path: str,
    lengths: Tensor | None = None,
) -> Tensor:
    bias = None if bias is None else bias.unsqueeze(0)
    y = path_conv(
        x, weight.unsqueeze(0), bias, paths=path, silu=activation is not None, lengths=lengths
    )
    return y.squeeze(1)


def _check(x: Tensor, weight: Tensor, bias: Tensor | None, activation: Activation) -> None:
    if x.dim() != 3:
        raise _misfit("x", "a tensor (batch, channels, time)", x)
    if weight.dim() != 2 or weight.shape[0] != x.shape[1] or weight.shape[1] < 1:
        raise _misfit("weight", f"shape ({x.shape[1]}, width), one row per channel of x", weight)
    if bias is not None and bias.shape != weight.shape[:1]:
        raise _misfit("bias", f"shape ({x.shape[1]},)", bias)
    if activation not in (None, "silu", "swish"):
        raise SuiteError(
            expected='None, "silu" or "swish"',
            found=repr(activation),
            where="causal_conv1d(activation=...)",
            cure="apply other functions to the output",
        )


def _misfit(name: str, expected: str, x: Tensor) -> SuiteError:
    return SuiteError(
        expected=expected,
        found=f"shape {tuple(x.shape)}",
        where=f"causal_conv1d({name}=...)",
        cure="shapes are listed in the docstring of blocks.causal_conv1d",
    )
