"""The adapters to mamba-ssm and causal-conv1d, on stand-ins with the true signatures.

The stand-ins compute by the definition and refuse what the compiled modules would: other types,
strides, or a number of arguments that no release takes.
"""

import sys
from types import ModuleType

import pytest
import torch
from torch import Tensor

from blocks.conv import cuda as conv_cuda
from blocks.conv import reference as conv_reference
from blocks.errors import SuiteError
from blocks.scan import cuda, reference

CUDA = torch.device("cuda")


def fake_scan() -> ModuleType:
    """`selective_scan_cuda`: fwd and bwd as in csrc/selective_scan/selective_scan.cpp."""

    def check(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, *vectors: object) -> None:
        assert u.dim() == 3 and B.dim() == C.dim() == 4
        assert u.dtype == delta.dtype == B.dtype == C.dtype
        assert u.dtype in (torch.float32, torch.float16, torch.bfloat16)
        assert all(x.stride(-1) == 1 or x.shape[-1] == 1 for x in (u, delta, B, C))
        for x in (A, *vectors):
            assert x is None or x.dtype == torch.float32

    def ours(u, delta, A, B, C, D, bias, softplus):  # noqa: ANN001, ANN202
        one = (None if x is None else x[None] for x in (D, bias))
        skip, shift = one
        x = (u[:, None], delta[:, None], A[None], B[:, None], C[:, None], skip, None, shift)
        return (*x, None, softplus, ">", 0)

    def fwd(u, delta, A, B, C, D_, z_, delta_bias_, delta_softplus):  # noqa: ANN001, ANN202
        check(u, delta, A, B, C, D_, delta_bias_)
        assert z_ is None
        out, last, _ = reference.forward(*ours(u, delta, A, B, C, D_, delta_bias_, delta_softplus))
        x = torch.zeros(len(u), u.shape[1], -(-u.shape[2] // 2048), 2 * A.shape[1])
        x[:, :, -1, 1::2] = last[:, 0]
        return [out, x]

    def bwd(  # noqa: ANN202
        u, delta, A, B, C, D_, z_, delta_bias_, dout, x_, out_, dz_, delta_softplus,  # noqa: ANN001
        recompute_out_z,  # noqa: ANN001
    ):  # noqa: ANN202  # fmt: skip
        check(u, delta, A, B, C, D_, delta_bias_)
        assert z_ is out_ is dz_ is None and not recompute_out_z
        assert dout.dtype == u.dtype and dout.stride(-1) == 1 and x_.shape[-1] == 2 * A.shape[1]
        given = ours(u, delta, A, B, C, D_, delta_bias_, delta_softplus)
        kept = reference.forward(*given)[2]
        du, dd, dA, dB, dC, dD, _, db = reference.backward(dout, None, kept, *given)
        vectors = (None if x is None else x[0] for x in (dD, db))
        return [du[:, 0], dd[:, 0], dA[0], dB[:, 0], dC[:, 0], *vectors]

    module = ModuleType(cuda.EXTENSION)
    module.fwd, module.bwd = fwd, bwd
    return module


def fake_conv() -> ModuleType:
    """`causal_conv1d` with its public function."""

    def causal_conv1d_fn(  # noqa: ANN202
        x, weight, bias=None, seq_idx=None, initial_states=None, return_final_states=False,  # noqa: ANN001
        final_states_out=None, activation=None,  # noqa: ANN001
    ):  # fmt: skip
        assert weight.shape[1] in (2, 3, 4) and activation in (None, "silu", "swish")
        assert x.stride(2) == 1 or x.stride(1) == 1
        padded = torch.nn.functional.pad(x, (weight.shape[1] - 1, 0))
        y = torch.nn.functional.conv1d(padded, weight[:, None], bias, groups=len(weight))
        return torch.nn.functional.silu(y) if activation else y

    module = ModuleType("causal_conv1d")
    module.causal_conv1d_fn = causal_conv1d_fn
    return module


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both packages, as far as the adapters look."""
    monkeypatch.setitem(sys.modules, cuda.EXTENSION, fake_scan())
    monkeypatch.setitem(sys.modules, conv_cuda.EXTENSION, ModuleType(conv_cuda.EXTENSION))
    monkeypatch.setitem(sys.modules, "causal_conv1d", fake_conv())
    cuda.extension.cache_clear()
    yield
    cuda.extension.cache_clear()


def close(ours: Tensor | None, theirs: Tensor | None) -> None:
    assert (ours is None) == (theirs is None)
    if ours is not None and theirs is not None:
        assert ours.dtype == theirs.dtype and ours.shape == theirs.shape
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(
    ("paths", "width", "lengths", "softplus", "shared"),
    [(">", 0, None, True, False), ("><", 0, (6, 3), True, True), ("><", 0, (6, 0), False, False),
     (">v<^", 3, None, True, True)],
)  # fmt: skip
def test_every_path_equals_the_definition(
    paths: str, width: int, lengths: tuple[int, ...] | None, softplus: bool, shared: bool
) -> None:
    torch.manual_seed(0)
    B, K, D, L, N = 2, len(paths), 4, 6, 3
    x = [torch.randn(B, n, D, L) for n in (1 if shared else K, K)]
    x += [-torch.rand(K, D, N), torch.randn(B, K, 2, N, L), torch.randn(B, K, 2, N, L)]
    x += [torch.randn(K, D), torch.randn(B, D, L), torch.randn(K, D)]
    valid = None if lengths is None else torch.tensor(lengths)
    if not softplus:
        x[1].abs_(), x[7].abs_()
    given = (*x, valid, softplus, paths, width)
    out, last, kept = cuda.forward(*given)
    out_, last_, kept_ = reference.forward(*given)
    assert kept.shape == cuda.kept_shape(K, B, 2, D, L, N)
    close(out, out_)
    close(last, last_)
    grad = torch.randn_like(out)
    pairs = zip(
        cuda.backward(grad, None, kept, *given), reference.backward(grad, None, kept_, *given),
        strict=True,
    )  # fmt: skip
    for ours, theirs in pairs:
        close(ours, theirs)
    with pytest.raises(SuiteError, match="leave backend out"):
        cuda.backward(grad, last, kept, *given)


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("width", [3, 4, 5])
@pytest.mark.parametrize("lengths", [None, (6, 2)])
def test_the_convolution_equals_the_definition(width: int, lengths: tuple[int, ...] | None) -> None:
    torch.manual_seed(0)
    x, weight, bias = torch.randn(2, 8, 6), torch.randn(2, 8, width), torch.randn(2, 8)
    valid = None if lengths is None else torch.tensor(lengths)
    for b in (bias, None):
        given = (x, weight, b, valid, True, "><")
        y = conv_reference.forward(*given)
        close(conv_cuda.forward(*given), y)
        grad = torch.randn_like(y)
        for ours, theirs in zip(
            conv_cuda.backward(grad, *given), conv_reference.backward(grad, *given), strict=True
        ):
            close(ours, theirs)


@pytest.mark.usefixtures("installed")
def test_installed_kernels_are_named() -> None:
    assert cuda.available(CUDA) == (True, "selective_scan_cuda of memory")
    assert conv_cuda.available(CUDA)[0]
    assert not cuda.available(torch.device("cpu"))[0]


def test_a_parent_without_its_kernels_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mamba_ssm", ModuleType("mamba_ssm"))
    monkeypatch.setitem(sys.modules, cuda.EXTENSION, None)
    cuda.extension.cache_clear()
    usable, why = cuda.available(CUDA)
    cuda.extension.cache_clear()
    assert not usable and "selective_scan_cuda does not load" in why


def test_what_the_kernels_would_round_or_not_take_is_refused() -> None:
    A, B = torch.zeros(1, 2, 2), torch.zeros(1, 1, 1, 2, 3)
    assert cuda.refuses(A, B, B) is None
    assert "float64" in str(cuda.refuses(A.double(), B, B))
    assert "constant" in str(cuda.refuses(A, torch.zeros(1, 2, 2), B))
    assert "complex" in str(cuda.refuses(A.to(torch.complex64), B, B))
    assert "256" in str(cuda.refuses(torch.zeros(1, 1, 257), B, B))
