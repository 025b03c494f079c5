"""Do two computations agree, in values and gradients? Nobody is timed who computes something else.

A difference is relative to the largest entry of its tensor: gradients of A or B are sums over
thousands of steps, and their small entries say nothing about the method.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

# Largest relative difference that is still rounding. Peers sum in other orders.
TOLERANCES = {"float32": 1e-3, "bfloat16": 5e-2}


def gradients(output: Tensor, inputs: Sequence[Tensor], grad: Tensor) -> tuple[Tensor, ...]:
    """Gradients of every input.

    Args:
        output: Output with a graph.
        inputs: Tensors it depends on.
        grad: Gradient of the output, a full tensor as in training; `sum()` would send back ones
            that have no memory of their own.
    """
    # At L = 1 nothing decays: A is unused, and its gradient 0.
    return torch.autograd.grad(output, list(inputs), grad, materialize_grads=True)


def largest_difference(found: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """Largest difference of any pair, relative to its expected tensor's largest entry."""
    pairs = [(a.detach().float(), b.detach().float()) for a, b in zip(found, expected, strict=True)]
    differences = [float((a - b).abs().max() / b.abs().max().clamp(1e-12)) for a, b in pairs]
    # max() would pass over a NaN.
    return max(differences, key=lambda value: (value != value, value))


def disagreement(difference: float, dtype: str) -> str:
    """Why a peer is not timed; empty if it computes the same."""
    if difference <= TOLERANCES[dtype]:
        return ""
    return f"differs from ours by {difference:.1e} of the largest entry"
