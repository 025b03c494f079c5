"""The convolution along paths: both implementations, every layout, padding, types, refusals."""

import pytest
import torch
from torch import Tensor

from blocks.conv import cpu, reference
from blocks.conv.operator import path_conv


def make(
    batch: int = 2,
    channels: int = 35,
    length: int = 70,
    width: int = 4,
    paths: str = "><",
    dtype: torch.dtype = torch.float64,
) -> tuple[Tensor, Tensor, Tensor]:
    rng = torch.Generator().manual_seed(length)
    shapes = (batch, channels, length), (len(paths), channels, width), (len(paths), channels)
    x, weight, bias = (torch.randn(s, dtype=dtype, generator=rng) for s in shapes)
    return x, weight, bias


def naive(x: Tensor, weight: Tensor, bias: Tensor, silu: bool, paths: str) -> Tensor:
    """Forward by conv1d, reverse by flipping what goes in and what comes out."""
    outs = []
    for k, path in enumerate(paths):
        source = x if path == ">" else x.flip(-1)
        past = weight.shape[-1] - 1
        padded = torch.nn.functional.pad(source, (past, 0))
        y = torch.conv1d(padded, weight[k].unsqueeze(1), bias[k], groups=x.shape[1])
        y = torch.nn.functional.silu(y) if silu else y
        outs.append(y if path == ">" else y.flip(-1))
    return torch.stack(outs, 1)


@pytest.mark.parametrize("backend", [cpu, reference], ids=["numba", "reference"])
@pytest.mark.parametrize("silu", [True, False])
@pytest.mark.parametrize("paths", [">", "<", "><", ">><"])
@pytest.mark.parametrize(
    "sizes",
    [{}, {"length": 1}, {"length": 2, "width": 7}, {"length": 33, "channels": 32, "width": 1},
     {"length": 32, "channels": 64}, {"length": 31, "channels": 1}],
    ids=str,
)  # fmt: skip
def test_values_and_gradients_equal_a_flipped_conv1d(
    backend: object, silu: bool, paths: str, sizes: dict[str, int]
) -> None:
    inputs = [t.requires_grad_() for t in make(paths=paths, **sizes)]
    expected = naive(*inputs, silu, paths)
    grad = torch.randn_like(expected)
    theirs = torch.autograd.grad(expected, inputs, grad)
    x, weight, bias = (t.detach() for t in inputs)
    out = backend.forward(x, weight, bias, None, silu, paths)
    ours = backend.backward(grad, x, weight, bias, None, silu, paths)
    for a, b in zip((out, *ours), (expected, *theirs), strict=True):
        torch.testing.assert_close(a, b.detach(), rtol=0, atol=1e-12)


@pytest.mark.parametrize("backend", [cpu, reference], ids=["numba", "reference"])
def test_nan_padding_changes_nothing(backend: object) -> None:
    x, weight, bias = make()
    lengths = torch.tensor([70, 33])
    grad = torch.randn(2, 2, 35, 70, dtype=torch.float64)
    alone = backend.forward(x[1:, :, :33], weight, bias, None, True, "><")
    x[1, :, 33:] = float("nan")
    grad[1, ..., 33:] = float("nan")
    out = backend.forward(x, weight, bias, lengths, True, "><")
    torch.testing.assert_close(out[1:, ..., :33], alone, rtol=0, atol=1e-12)
    assert (out[1, ..., 33:] == 0).all()
    dx, dweight, dbias = backend.backward(grad, x, weight, bias, lengths, True, "><")
    assert all(t.isfinite().all() for t in (dx, dweight, dbias))
    assert (dx[1, :, 33:] == 0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_types_and_layouts_are_kept(dtype: torch.dtype) -> None:
    x, weight, bias = (t.to(dtype) for t in make())
    wide = path_conv(x.double(), weight.double(), bias.double(), paths="><", silu=True)
    bound = {torch.float32: 1e-6, torch.bfloat16: 2e-2, torch.float16: 2e-3}[dtype]
    for layout in (x, x.mT.contiguous().mT, torch.cat((x, x), 1)[:, :35]):
        layout = layout.detach().requires_grad_()
        out = path_conv(layout, weight, bias, paths="><", silu=True)
        out.sum().backward()
        assert out.dtype == dtype and layout.grad.dtype == dtype
        assert (out.double() - wide).abs().max() <= bound * wide.abs().max()


def test_the_operator_passes_opcheck() -> None:
    x, weight, bias = (t.requires_grad_() for t in make(channels=5, length=9))
    operator = torch.ops.bimamba.path_conv.default
    for rest in ((bias, torch.tensor([9, 4]), True, "><"), (None, None, False, "><")):
        results = torch.library.opcheck(operator, (x, weight, *rest))
        assert set(results.values()) == {"SUCCESS"}


@pytest.mark.parametrize(("batch", "length"), [(0, 5), (2, 0)])
def test_nothing_gives_nothing(batch: int, length: int) -> None:
    x, weight, bias = (t.requires_grad_() for t in make(batch=batch, length=length))
    out = path_conv(x, weight, bias, paths="><", silu=True)
    assert out.shape == (batch, 2, 35, length)
    out.sum().backward()
    assert (weight.grad == 0).all() and x.grad.shape == x.shape
