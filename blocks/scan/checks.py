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
        check_range(lengths, length)
    for name, x in (
        ("delta", delta), ("A", A), ("B", B), ("C", C), ("D", D), ("z", z),
        ("delta_bias", delta_bias), ("lengths", lengths),
    ):  # fmt: skip
        if x is not None and x.device != u.device:
            raise _misfit(name, f"a tensor on {u.device}, where u is", x)


def check_paths_arguments(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    lengths: Tensor | None,
    paths: str,
) -> None:
    """Compares the arguments of `path_scan` with its contract; `paths` is checked elsewhere.

    Raises:
        SuiteError: The first argument that does not fit, with what would.
    """
    count = len(paths)
    if u.dim() != 4 or u.shape[1] not in (1, count):
        raise _misfit("u", f"a tensor (batch, {count} paths or 1, channels, positions)", u)
    for name, x, rank in (("delta", delta, 4), ("A", A, 3)):
        if x.dim() != rank or x.shape[rank - 3] != count:
            raise _misfit(name, f"{rank} axes, one of them for the {count} paths", x)
    for name, x in (("B", B), ("C", C)):
        if x.dim() not in (3, 4, 5) or x.shape[0 if x.dim() == 3 else 1] != count:
            raise _misfit(name, f"3 axes (constant) or 4 to 5, one for the {count} paths", x)
    for name, x_ in (("D", D), ("delta_bias", delta_bias)):
        if x_ is not None and (x_.dim() != 2 or x_.shape[0] != count):
            raise _misfit(name, f"shape ({count} paths, channels)", x_)
    check_arguments(
        u[:, 0],
        delta[:, 0],
        A[0],
        B[0] if B.dim() == 3 else B[:, 0],
        C[0] if C.dim() == 3 else C[:, 0],
        None if D is None else D[0],
        z,
        None if delta_bias is None else delta_bias[0],
        lengths,
    )


def check_range(lengths: Tensor, length: int) -> None:
    """Raises a SuiteError for lengths outside 0..length where looking at them costs nothing.

    On a GPU that would wait for it, and a compiler has no values: there they are clipped.
    """
    if lengths.device.type != "cpu" or torch.compiler.is_compiling() or lengths.numel() == 0:
        return
    shortest, longest = int(lengths.min()), int(lengths.max())
    if shortest < 0 or longest > length:
        raise SuiteError(
            expected=f"lengths from 0 to the {length} steps there are",
            found=f"{shortest} to {longest}",
            where="lengths",
            cure="count the valid steps of each sample; padding comes after them",
        )


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
