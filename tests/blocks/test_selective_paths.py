"""Convolution, selection and scan as one operator: values, gradients, padding, types, memory."""

import pytest
import torch
from torch import Tensor

from blocks.conv.operator import path_conv
from blocks.errors import SuiteError
from blocks.scan.operator import path_scan
from blocks.selective_paths import selective_paths

Arguments = list[Tensor]


def make(
    paths: str, batch: int = 2, channels: int = 35, length: int = 21, states: int = 3,
    dtype: torch.dtype = torch.float64,
) -> Arguments:  # fmt: skip
    rng = torch.Generator().manual_seed(length)
    K, R, W = len(paths), 4, 4
    shapes = (
        (batch, channels, length), (batch, channels, length), (K, channels, W), (K, channels),
        (K, R + 2 * states, channels), (K, channels, R), (K, channels, states), (K, channels),
        (K, channels),
    )  # fmt: skip
    found = [torch.randn(s, dtype=dtype, generator=rng) for s in shapes]
    for i in (4, 5):
        found[i] *= 0.3
    found[6] = -found[6].abs() - 0.1
    return [x.requires_grad_() for x in found]


def composed(arguments: Arguments, paths: str, lengths: Tensor | None = None) -> Tensor:
    """The same from its parts, each with an autograd rule of its own."""
    x, z, conv_weight, conv_bias, x_proj, dt_proj, A, D, dt_bias = arguments
    u = path_conv(x, conv_weight, conv_bias, paths=paths, silu=True, lengths=lengths)
    projected = torch.einsum("bkdl,krd->bkrl", u, x_proj)
    rank, states = dt_proj.shape[-1], A.shape[-1]
    dt, B, C = projected.split([rank, states, states], dim=2)
    delta = torch.einsum("bkrl,kdr->bkdl", dt, dt_proj)
    return path_scan(u, delta, A, B, C, D, z, dt_bias, True, paths=paths, lengths=lengths)[0]


@pytest.mark.parametrize("backend", ["numba", "reference"])
@pytest.mark.parametrize("paths", [">", "<", "><"])
@pytest.mark.parametrize("ragged", [False, True])
def test_values_and_gradients_equal_those_of_the_parts(
    backend: str, paths: str, ragged: bool
) -> None:
    arguments = make(paths)
    lengths = torch.tensor([21, 9]) if ragged else None
    ours = selective_paths(*arguments, paths=paths, lengths=lengths, backend=backend)
    theirs = composed(arguments, paths, lengths)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)
    grad = torch.randn_like(theirs)
    gradients = zip(
        torch.autograd.grad(ours, arguments, grad),
        torch.autograd.grad(theirs, arguments, grad),
        strict=True,
    )
    for a, b in gradients:
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


def test_a_backward_pass_leaves_what_it_was_given_alone() -> None:
    arguments = make("><")
    before = [x.detach().clone() for x in arguments]
    y = selective_paths(*arguments, paths="><")
    first = torch.autograd.grad(y.sum(), arguments, retain_graph=True)
    again = torch.autograd.grad(y.sum(), arguments)
    for a, b in zip((*arguments, *first), (*before, *again), strict=True):
        assert torch.equal(a, b)


def test_float32_layouts_of_a_projection_agree_with_dense_ones() -> None:
    dense = [x.detach().float() for x in make("><", channels=48)]
    xz = torch.cat((dense[0], dense[1]), 1).mT.contiguous().mT
    views = [*xz.chunk(2, 1), *dense[2:]]
    a = selective_paths(*dense, paths="><")
    b = selective_paths(*views, paths="><")
    torch.testing.assert_close(a, b, rtol=0, atol=1e-5)


def test_the_operator_obeys_torch() -> None:
    arguments = make("><", channels=16, length=5)
    for lengths in (None, torch.tensor([5, 2])):
        given = (*arguments, lengths, "><", "")
        torch.library.opcheck(torch.ops.bimamba.selective_paths.default, given)


def test_only_the_narrow_tensors_are_kept_beside_the_inputs() -> None:
    arguments = make("><", channels=256, length=64, states=16, dtype=torch.float32)
    given = {x.data_ptr() for x in arguments}
    kept: list[int] = []

    def pack(x: Tensor) -> Tensor:
        if x.data_ptr() not in given:
            kept.append(x.numel())
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        selective_paths(*arguments, paths="><")
    stream = 2 * 2 * 256 * 64  # u or delta of both paths
    assert sum(kept) < 1.3 * stream


def test_autocast_projects_in_its_type_and_keeps_the_rest() -> None:
    arguments = make("><", dtype=torch.float32)
    exact = selective_paths(*arguments, paths="><")
    with torch.autocast("cpu", torch.bfloat16):
        y = selective_paths(*arguments, paths="><")
    assert y.dtype == torch.bfloat16
    assert (y.float() - exact).abs().max() < 0.05 * exact.abs().max()
    gradients = torch.autograd.grad(y.float().sum(), arguments)
    assert all(g.dtype == torch.float32 and g.isfinite().all() for g in gradients)


def test_lengths_beyond_the_input_are_refused() -> None:
    with pytest.raises(SuiteError, match="0 to the 21 steps"):
        selective_paths(*make(">"), paths=">", lengths=torch.tensor([22, 1]))


def test_shapes_are_found_without_numbers() -> None:
    arguments = [x.detach().to("meta") for x in make("><")]
    assert selective_paths(*arguments, paths="><").shape == (2, 35, 21)
