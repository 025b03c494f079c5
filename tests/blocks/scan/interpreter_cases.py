"""Triton's kernels against the definition, in a process whose Triton interprets.

Run by test_gpu.py as `python interpreter_cases.py NAME ...`; fails with a message. Interpretation
must be chosen before a kernel is defined, so that no test process could do both.
"""

import os
import sys

os.environ["TRITON_INTERPRET"] = "1"

import torch  # noqa: E402
from torch import Tensor  # noqa: E402

from blocks.conv import gpu as gpu_conv  # noqa: E402
from blocks.conv import operator as conv_operator  # noqa: E402
from blocks.conv import reference as conv_reference  # noqa: E402
from blocks.scan import backends, gpu, reference  # noqa: E402

# Small, so that short sequences have several chunks, and few channels several blocks.
gpu.CHUNK, gpu._CARRIED, gpu._WARP = 2, 2, 4
gpu_conv.TILE, gpu_conv.BLOCK = 4, 4
DOUBLE, SINGLE, HALF, BRAIN = torch.float64, torch.float32, torch.float16, torch.bfloat16
TOLERANCES = {DOUBLE: 1e-12, SINGLE: 2e-6, HALF: 2e-3, BRAIN: 2e-2}

# (B, D, L, N), paths, and what differs from a gated scan with skip and bias in float64.
SCANS = {
    "one step": ((1, 3, 1, 1), ">", {}),
    "forward": ((1, 3, 5, 2), ">", {}),
    "reverse": ((2, 5, 4, 1), "<", {}),
    "both": ((1, 5, 5, 2), "><", {}),
    "both, one input": ((1, 3, 5, 2), "><", {"shared": True}),
    "ragged": ((3, 2, 5, 1), "><", {"lengths": (5, 2, 0)}),
    "float32": ((1, 6, 7, 3), "><", {"dtype": SINGLE}),
    "float16": ((1, 4, 5, 2), "><", {"dtype": HALF}),
    "bfloat16": ((1, 4, 5, 2), "><", {"dtype": BRAIN}),
    "plain": ((1, 3, 4, 2), ">", {"absent": ("D", "z", "bias"), "softplus": False}),
    "groups": ((1, 10, 3, 1), "<", {"groups": 2}),
    "cross": ((1, 3, 6, 1), ">v<^", {"shared": True, "width": 3, "absent": ("z",)}),
    "cross, gated": ((1, 2, 6, 1), ">v<^", {"width": 2}),
    "columns": ((1, 3, 6, 2), "v^", {"shared": True, "width": 2}),
    "three paths": ((1, 2, 6, 1), ">v^", {"shared": True, "width": 3}),
    "channels first": ((1, 5, 5, 2), "><", {"channels_last": False}),
    "long": ((2, 9, 33, 4), "><", {"dtype": SINGLE}),
    "wide": ((1, 40, 9, 5), ">v<^", {"dtype": SINGLE, "width": 3, "shared": True}),
}  # fmt: skip


def draw(*shape: int, dtype: torch.dtype, channels_last: bool = True) -> Tensor:
    x = torch.randn(*shape, dtype=DOUBLE).to(dtype)
    return x.mT.contiguous().mT if channels_last else x


def make_scan(
    shape: tuple[int, int, int, int], paths: str, dtype: torch.dtype = DOUBLE, shared: bool = False,
    groups: int = 1, absent: tuple[str, ...] = (), lengths: tuple[int, ...] | None = None,
    softplus: bool = True, width: int = 0, channels_last: bool = True,
) -> tuple[object, ...]:  # fmt: skip
    torch.manual_seed(0)
    (B, D, L, N), K = shape, len(paths)
    real = torch.promote_types(dtype, SINGLE)
    streams = {"dtype": dtype, "channels_last": channels_last}
    given = {
        "D": torch.randn(K, D, dtype=real), "z": draw(B, D, L, **streams),
        "bias": torch.randn(K, D, dtype=real),
    }  # fmt: skip
    given |= dict.fromkeys(absent)
    valid = None if lengths is None else torch.tensor(lengths)
    x = [draw(B, 1 if shared else K, D, L, **streams), draw(B, K, D, L, **streams)]
    if valid is not None:
        for stream in x:
            for b, length in enumerate(valid.tolist()):
                stream[b, ..., length:] = float("nan")
    factors = [draw(B, K, groups, N, L, **streams) for _ in range(2)]
    A = -torch.rand(K, D, N, dtype=real) - 0.1
    return (*x, A, *factors, given["D"], given["z"], given["bias"], valid, softplus, paths, width)


def compare(name: str, found: object, expected: object, tolerance: float) -> None:
    if found is None or expected is None:
        assert found is expected, name
        return
    assert found.dtype == expected.dtype and found.shape == expected.shape, name
    if not found.numel():
        return
    assert torch.isfinite(found).all(), f"{name} is not finite"
    found, expected = found.detach().double(), expected.detach().double()
    error = float((found - expected).abs().max() / expected.abs().max().clamp(1e-3))
    assert error < tolerance, f"{name} differs by {error:.1e}, more than {tolerance:.0e}"


def check_scan(name: str) -> None:
    shape, paths, options = SCANS[name]
    arguments = make_scan(shape, paths, **options)
    tolerance = TOLERANCES[options.get("dtype", DOUBLE)]
    out, last, kept = gpu.forward(*arguments)
    out_, last_, kept_ = reference.forward(*arguments)
    compare(f"{name}: output", out, out_, tolerance)
    compare(f"{name}: last states", last, last_, tolerance)
    assert kept.shape == gpu.kept_shape(
        len(paths), shape[0], arguments[3].shape[2], *shape[1:]
    )  # fmt: skip
    grad, grad_last = torch.randn(out.shape).to(out), torch.randn_like(last)
    before = [x.clone() for x in arguments[:2]]
    expected = reference.backward(grad, grad_last, kept_, *arguments)
    found = gpu.backward(grad, grad_last, kept, *arguments)
    again = gpu.backward(grad, grad_last, kept, *arguments)
    for x, copy in zip(arguments[:2], before, strict=True):
        assert torch.equal(x.nan_to_num(), copy.nan_to_num()), f"{name} changes its input"
    names = ("u", "delta", "A", "B", "C", "D", "z", "bias")
    for title, ours, twice, theirs in zip(names, found, again, expected, strict=True):
        compare(f"{name}: gradient of {title}", ours, theirs, tolerance)
        assert ours is None or torch.equal(ours, twice), f"{name}: {title} is not deterministic"
    if "lengths" not in options:
        over = gpu.backward(grad, grad_last, kept, *arguments, overwrite=True)
        compare(f"{name}: u, overwritten", over[0], expected[0], tolerance)
        compare(f"{name}: delta, overwritten", over[1], expected[1], tolerance)


def check_convolutions(_: str) -> None:
    for paths, width, dtype, silu, biased, lengths in (
        ("><", 4, DOUBLE, True, True, None), (">", 3, DOUBLE, False, False, None),
        ("<", 1, DOUBLE, True, True, None), ("><", 2, DOUBLE, True, True, (7, 3, 0)),
        ("><", 4, BRAIN, True, True, None),
    ):  # fmt: skip
        torch.manual_seed(1)
        K, D, L = len(paths), 5, 7
        x = draw(3, D, L, dtype=dtype)
        valid = None if lengths is None else torch.tensor(lengths)
        real = torch.promote_types(dtype, SINGLE)
        weight = torch.randn(K, D, width, dtype=real)
        bias = torch.randn(K, D, dtype=real) if biased else None
        arguments = (x, weight, bias, valid, silu, paths)
        title = f"convolution {paths} {width} {dtype} {lengths}"
        y, y_ = gpu_conv.forward(*arguments), conv_reference.forward(*arguments)
        compare(title, y, y_, TOLERANCES[dtype])
        grad = torch.randn(y.shape).to(y)
        pairs = zip(
            gpu_conv.backward(grad, *arguments), conv_reference.backward(grad, *arguments),
            strict=True,
        )  # fmt: skip
        for i, (ours, theirs) in enumerate(pairs):
            compare(f"{title}: gradient {i}", ours, theirs, TOLERANCES[dtype])


def check_operators(_: str) -> None:
    """The mixer's operator through the table of backends, all of it by the kernels."""
    from blocks.selective_paths import selective_paths

    usable, why = backends.BACKENDS["triton"].available(torch.device("cpu"))
    assert usable and "interpreted" in why
    # A CPU is numba's, even here.
    assert backends.active_backend("cpu")[0] == "numba"
    torch.manual_seed(2)
    K, D, L, N, R, W = 2, 3, 5, 2, 2, 3
    shapes = ((1, D, L), (1, D, L), (K, D, W), (K, D), (K, R + 2 * N, D), (K, D, R))
    tensors = [torch.randn(s, dtype=DOUBLE) for s in shapes]
    tensors += [-torch.rand(K, D, N, dtype=DOUBLE), *(torch.randn(K, D).double() for _ in "12")]
    results = []
    for backend, conv in (("triton", gpu_conv), ("reference", conv_reference)):
        conv_operator.conv_backend = lambda x, conv=conv: conv
        sys.modules["blocks.selective_paths"].conv_backend = conv_operator.conv_backend
        inputs = [x.clone().requires_grad_() for x in tensors]
        y = selective_paths(*inputs, paths="><", backend=backend)
        results.append([y, *torch.autograd.grad(y.square().sum(), inputs)])
    for i, (ours, theirs) in enumerate(zip(*results, strict=True)):
        compare(f"selective_paths: {i}", ours, theirs, 1e-11)


def check_refusals(_: str) -> None:
    A = torch.zeros(1, 2, 2)
    variable, constant = torch.zeros(1, 1, 1, 2, 3), torch.zeros(1, 2, 2)
    assert gpu.refuses(A, variable, variable) is None
    assert "complex" in str(gpu.refuses(A.to(torch.complex64), variable, variable))
    assert "constant" in str(gpu.refuses(A, constant, variable))
    assert "paths" in str(gpu.refuses(torch.zeros(9, 2, 2), variable, variable))
    for shape in ((0, 3, 4, 2), (2, 3, 0, 2)):
        arguments = make_scan(shape, "><")
        out, last, kept = gpu.forward(*arguments)
        assert out.shape == (shape[0], 3, shape[2]) and (last == 0).all()
        grads = gpu.backward(out, last, kept, *arguments)
        assert all((g == 0).all() for g in grads if g is not None)


CHECKS = dict.fromkeys(SCANS, check_scan) | {
    "convolutions": check_convolutions,
    "operators": check_operators,
    "refusals": check_refusals,
}

if __name__ == "__main__":
    torch.set_num_threads(1)
    for name in sys.argv[1:]:
        CHECKS[name](name)
        print(name, "holds", flush=True)
