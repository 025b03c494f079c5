"""The shape, type and device contract of the selective scan, checked once at its door.

Shapes: B batch, D channels, L time, N states, G groups.
"""

import torch
from torch import Tensor

from blocks.errors import SuiteError


def check_arguments(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    lengths: Tensor | None,
) -> None:
    """Compares the arguments of `selective_scan` with its contract.

    Raises:
        SuiteError: The first argument that does not fit, with what would.
    """
    if u.dim() != 3:
        raise _misfit("u", "a tensor (batch, channels, time)", u)
    batch, channels, length = u.shape
    if A.dim() != 2 or A.shape[0] != channels:
        raise _misfit("A", f"shape ({channels}, states), one row per channel of u", A)
    expect_shape("delta", delta, (batch, channels, length))
    if z is not None:
        expect_shape("z", z, (batch, channels, length))
    for name, x in (("D", D), ("delta_bias", delta_bias)):
        if x is not None:
            expect_shape(name, x, (channels,))

    states = A.shape[1]
    steps = 2 * length if A.is_complex() else length
    for name, x in (("B", B), ("C", C)):
        grouped = x.dim() == 4 and x.shape[1] > 0 and channels % x.shape[1] == 0
        variable = x.dim() == 3 or grouped
        fits = variable and (x.shape[0], *x.shape[-2:]) == (batch, states, steps)
        if not fits and tuple(x.shape) != (channels, states):
            raise _misfit(
                name,
                f"shape ({channels}, {states}), ({batch}, {states}, {steps}) or "
                f"({batch}, groups, {states}, {steps}) with groups dividing {channels}",
                x,
            )
        if x.is_complex() != (A.is_complex() and not variable):
            kind = "complex, as A is" if A.is_complex() and not variable else "real numbers"
            raise _misfit(name, kind, x)
    if B.dim() > 2 < C.dim() and _groups(B) != _groups(C):
        raise _misfit("C", f"as many groups as B, {_groups(B)}", C)

    for name, x in (("u", u), ("delta", delta), ("z", z), ("D", D), ("delta_bias", delta_bias)):
        if x is not None and not x.is_floating_point():
            raise _misfit(name, "real floating-point numbers", x)
    if lengths is not None:
        expect_shape("lengths", lengths, (batch,))
        if lengths.is_floating_point() or lengths.dtype == torch.bool:
            raise _misfit("lengths", "integers", lengths)
    for name, x in (
        ("delta", delta), ("A", A), ("B", B), ("C", C), ("D", D), ("z", z),
        ("delta_bias", delta_bias), ("lengths", lengths),
    ):  # fmt: skip
        if x is not None and x.device != u.device:
            raise _misfit(name, f"a tensor on {u.device}, where u is", x)


def _groups(x: Tensor) -> int:
    return x.shape[1] if x.dim() == 4 else 1


def expect_shape(name: str, x: Tensor, shape: tuple[int, ...]) -> None:
    """Raises a SuiteError unless `x` has the shape."""
    if x.shape != shape:
        raise _misfit(name, f"shape {shape}", x)


def _misfit(name: str, expected: str, x: Tensor) -> SuiteError:
    return SuiteError(
        expected=expected,
        found=f"shape {tuple(x.shape)} of {x.dtype} on {x.device}",
        where=f"selective_scan({name}=...)",
        cure="shapes are listed in the docstring of blocks.selective_scan",
    )
