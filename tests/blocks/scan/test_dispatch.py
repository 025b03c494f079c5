from dataclasses import replace

import pytest
import torch
from torch import Tensor

from blocks import active_backend, scan_backends, selective_scan, selective_scan_fn
from blocks.errors import SuiteError
from blocks.scan import backends, reference


def make(length: int = 9, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    """u, delta, A, B, C, D, z, delta_bias."""
    rng = torch.Generator().manual_seed(length)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=dtype, generator=rng).requires_grad_()

    A = (-torch.rand(4, 3, dtype=dtype, generator=rng)).requires_grad_()
    stream, factor = (2, 4, length), (2, 3, length)
    return [
        normal(*stream), normal(*stream), A, normal(*factor), normal(*factor),
        normal(4), normal(*stream), normal(4),
    ]  # fmt: skip


@pytest.mark.parametrize("backend", [name for name, runs, _ in scan_backends("cpu") if runs])
@pytest.mark.parametrize("paths", ["<", "><"])
def test_the_operator_passes_opcheck(backend: str, paths: str) -> None:
    u, delta, A, B, C, D, z, bias = make()
    per_sample = [x.detach()[:, None].expand(-1, len(paths), -1, -1) for x in (u, delta)]
    factors = [x.detach()[:, None, None].expand(-1, len(paths), -1, -1, -1) for x in (B, C)]
    A, D, bias = (x.detach().expand(len(paths), *x.shape) for x in (A, D, bias))
    streams = [x.clone().requires_grad_() for x in (*per_sample, A, *factors)]
    operator = torch.ops.bimamba.selective_scan.default
    vectors = (D.clone().requires_grad_(), z, bias.clone().requires_grad_(), torch.tensor([9, 4]))
    for rest in ((*vectors, True), (None, None, None, None, False)):
        results = torch.library.opcheck(operator, (*streams, *rest, paths, 0, backend))
        assert set(results.values()) == {"SUCCESS"}


def test_it_compiles_as_one_graph_for_any_length() -> None:
    torch._dynamo.reset()
    graphs = 0

    def count(module: torch.fx.GraphModule, _: list[Tensor]) -> torch.fx.GraphModule:
        nonlocal graphs
        graphs += 1
        return module

    def scan(*tensors: Tensor) -> tuple[Tensor, Tensor]:
        return selective_scan(*tensors, delta_softplus=True, return_last_state=True)

    compiled = torch.compile(scan, backend=count, fullgraph=True, dynamic=True)
    for length in (20, 33, 47):
        inputs = make(length)
        for ours, expected in zip(compiled(*inputs), scan(*inputs), strict=True):
            torch.testing.assert_close(ours, expected)
    assert graphs == 1


# Inductor builds C++ first, which takes 20 s on a cold machine.
@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_compiled_and_eager_gradients_agree(backend: str) -> None:
    torch._dynamo.reset()
    inputs = make(20)

    def loss(*tensors: Tensor) -> Tensor:
        return selective_scan(*tensors, delta_softplus=True).square().sum()

    compiled = torch.compile(loss, backend=backend, fullgraph=True)
    ours = torch.autograd.grad(compiled(*inputs), inputs)
    theirs = torch.autograd.grad(loss(*inputs), inputs)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b)


def test_autocast_keeps_state_and_types() -> None:
    inputs = make(20, torch.float32)
    exact, exact_last = selective_scan(*inputs, delta_softplus=True, return_last_state=True)
    with torch.autocast("cpu", torch.bfloat16):
        out, last = selective_scan(*inputs, delta_softplus=True, return_last_state=True)
        out.sum().backward()
    assert torch.equal(out, exact) and torch.equal(last, exact_last)

    # What a layer under autocast emits: some streams narrow, one of them float32.
    u = inputs[0].detach().bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        out, last = selective_scan(u, *inputs[1:], delta_softplus=True, return_last_state=True)
    assert out.dtype == torch.bfloat16 and last.dtype == torch.float32
    expected = selective_scan(u.float(), *inputs[1:], delta_softplus=True)
    assert torch.equal(out, expected.bfloat16())


def test_a_backend_is_one_row_and_never_sees_autocast(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def forward(*arguments: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        seen.append(torch.is_autocast_enabled("cpu"))
        return reference.forward(*arguments)

    row = replace(backends.BACKENDS["reference"], forward=forward)
    monkeypatch.setattr(backends, "BACKENDS", {"spy": row} | backends.BACKENDS)
    with torch.autocast("cpu", torch.bfloat16):
        selective_scan(*make())
    assert seen == [False]
    assert active_backend("cpu")[0] == "spy"


def test_float16_streams_round_only_at_the_end() -> None:
    inputs = make(40, torch.float32)
    narrow = [x.detach().half() if x.dim() == 3 else x.detach() for x in inputs]
    wide = [x.float() for x in narrow]
    out, last = selective_scan(*narrow, delta_softplus=True, return_last_state=True)
    expected, expected_last = selective_scan(*wide, delta_softplus=True, return_last_state=True)
    assert out.dtype == torch.float16 and torch.equal(out, expected.half())
    assert torch.equal(last, expected_last)


def test_grouped_and_plain_factors_of_one_group_agree() -> None:
    u, delta, A, B, C, *rest = make()
    plain = selective_scan(u, delta, A, B, C, *rest)
    grouped = selective_scan(u, delta, A, B.unsqueeze(1), C.unsqueeze(1), *rest)
    assert torch.equal(plain, grouped)


def test_the_reference_serves_every_device_and_says_why() -> None:
    assert ("reference", True, "plain torch on cpu") in scan_backends("cpu")
    name, why = active_backend("meta")
    assert name == "reference" and "meta" in why
    assert selective_scan_fn is selective_scan


def test_naming_the_backend_changes_nothing() -> None:
    inputs = make()
    expected = selective_scan(*inputs)
    active, _ = active_backend("cpu")
    assert torch.equal(selective_scan(*inputs, backend=active), expected)


def test_an_unknown_backend_is_refused_by_naming_the_known_ones() -> None:
    with pytest.raises(SuiteError, match="(?s)reference.*'tpu'"):
        selective_scan(*make(), backend="tpu")


@pytest.mark.parametrize(
    ("position", "wrong", "message"),
    [
        (0, torch.zeros(2, 4), r"\(batch, channels, time\)"),
        (0, torch.zeros(2, 4, 9, dtype=torch.long), "real floating-point"),
        (1, torch.zeros(2, 4, 8), r"(?s)\(2, 4, 9\).*\(2, 4, 8\).*delta"),
        (2, torch.zeros(3, 4), "one row per channel"),
        (3, torch.zeros(2, 3, 3, 9), "groups dividing 4"),
        (3, torch.zeros(2, 3, 9, dtype=torch.complex128), "real numbers"),
        (4, torch.zeros(2, 9, 3), r"\(2, 3, 9\)"),
        (5, torch.zeros(3), r"(?s)\(4,\).*D="),
        (6, torch.zeros(2, 9, 4), "z="),
        (7, torch.zeros(4, 1), "delta_bias"),
        (6, torch.zeros(2, 4, 9, device="meta"), "a tensor on cpu"),
    ],
)
def test_a_wrong_argument_is_named_with_what_was_expected(
    position: int, wrong: Tensor, message: str
) -> None:
    inputs = make()
    inputs[position] = wrong
    with pytest.raises(SuiteError, match=message):
        selective_scan(*inputs)


def test_unequal_groups_and_real_factors_of_a_complex_scan_are_refused() -> None:
    u, delta, A, B, C, *_ = make()
    with pytest.raises(SuiteError, match="as many groups as B, 2"):
        selective_scan(u, delta, A, torch.zeros(2, 2, 3, 9), torch.zeros(2, 4, 3, 9))
    with pytest.raises(SuiteError, match="complex, as A is"):
        selective_scan(u, delta, A.to(torch.complex128), A, A)


def test_lengths_must_be_one_integer_per_sample() -> None:
    with pytest.raises(SuiteError, match=r"\(2,\)"):
        selective_scan(*make(), lengths=torch.tensor([3, 3, 3]))
    with pytest.raises(SuiteError, match="integers"):
        selective_scan(*make(), lengths=torch.tensor([3.0, 3.0]))
