"""The compiled loops against the definition in plain torch, over everything a caller may pass."""

import math
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from blocks import path_scan
from blocks.cpu.compilation import compiler_state
from blocks.errors import SuiteError

pytestmark = pytest.mark.skipif(not compiler_state()[0], reason="numba does not work here")

Arguments = dict[str, Any]
STREAMS = ("u", "delta", "B", "C", "z")
# Of the largest number of each result: output and states, gradients. One rounding of float64 is
# 1e-16; float32 sums of some thousand terms lose three digits of their seven at most.
BOUNDS = {torch.float64: (1e-12, 1e-12), torch.float32: (5e-6, 1e-5)}
SINGLE_AND_DOUBLE = pytest.mark.parametrize("dtype", list(BOUNDS), ids=["single", "double"])


@pytest.fixture(autouse=True)
def _same_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def make(
    paths: str = "><",
    batch: int = 2,
    channels: int = 20,
    length: int = 40,
    states: int = 2,
    groups: int = 1,
    shared: bool = False,
    optional: str = "Dzb",
    softplus: bool = True,
    lengths: list[int] | None = None,
    width: int | None = None,
    dtype: torch.dtype = torch.float64,
    stream: torch.dtype | None = None,
) -> Arguments:
    """Arguments of `path_scan`; `optional` names those that are there, `stream` their type."""
    rng = torch.Generator().manual_seed(channels + 7 * length + 31 * states)
    K, stream = len(paths), stream or dtype

    def normal(*shape: int, dtype: torch.dtype = dtype) -> Tensor:
        return torch.randn(*shape, dtype=torch.float64, generator=rng).to(dtype).requires_grad_()

    delta = normal(batch, K, channels, length, dtype=stream)
    bias = normal(K, channels)
    if not softplus:  # Steps are positive; without the softplus only their maker sees to that.
        delta = (delta.detach().abs() / 2).requires_grad_()
        bias = (bias.detach().abs() / 4).requires_grad_()
    return {
        "u": normal(batch, 1 if shared else K, channels, length, dtype=stream),
        "delta": delta,
        "A": (-normal(K, channels, states).detach().exp()).requires_grad_(),
        "B": normal(batch, K, groups, states, length, dtype=stream),
        "C": normal(batch, K, groups, states, length, dtype=stream),
        "D": normal(K, channels) if "D" in optional else None,
        "z": normal(batch, channels, length, dtype=stream) if "z" in optional else None,
        "delta_bias": bias if "b" in optional else None,
        "delta_softplus": softplus,
        "paths": paths,
        "width": width,
        "lengths": None if lengths is None else torch.tensor(lengths, dtype=torch.long),
    }


def tensors(arguments: Arguments) -> dict[str, Tensor]:
    return {
        name: x for name, x in arguments.items() if isinstance(x, Tensor) and x.is_floating_point()
    }


def run(arguments: Arguments, backend: str, last_state: bool = True) -> dict[str, Tensor]:
    """Output, last states and the gradient of every tensor, each under its name."""
    out, last = path_scan(**arguments, backend=backend)
    total = (out * weights(out)).sum()
    if last_state:
        total = total + (last * weights(last)).sum()
    inputs = tensors(arguments)
    grads = torch.autograd.grad(total, list(inputs.values()))
    return {"out": out, "last": last} | dict(zip(inputs, grads, strict=True))


def weights(x: Tensor) -> Tensor:
    """Smooth and unequal, so that no two errors cancel."""
    return torch.linspace(-1, 2, x.numel(), dtype=torch.float64).cos().view(x.shape).to(x.dtype)


def assert_equals_the_definition(
    arguments: Arguments, bounds: tuple[float, float] | None = None, last_state: bool = True
) -> None:
    ours, theirs = (run(arguments, name, last_state) for name in ("numba", "reference"))
    forward, backward = bounds or BOUNDS[arguments["A"].dtype]
    for name, expected in theirs.items():
        assert ours[name].dtype == expected.dtype and ours[name].shape == expected.shape, name
        bound = forward if name in ("out", "last") else backward
        if expected.numel():
            error = (ours[name].double() - expected.double()).abs().max()
            assert error <= bound * expected.double().abs().max(), f"{name}: {error}"


@SINGLE_AND_DOUBLE
@pytest.mark.parametrize("paths", [">", "<", "><", "<>", ">v<^", "v", "^v", ">>>>"])
def test_every_word_of_paths(paths: str, dtype: torch.dtype) -> None:
    for shared in (False, True):
        assert_equals_the_definition(make(paths, width=8, shared=shared, dtype=dtype))


@pytest.mark.parametrize(("length", "width"), [(1, 1), (7, 1), (7, 7), (60, 5), (60, 12), (34, 17)])
def test_columns_of_any_grid(length: int, width: int) -> None:
    assert_equals_the_definition(make("v^>", length=length, width=width))


@SINGLE_AND_DOUBLE
@pytest.mark.parametrize("groups", [1, 2, 3, 4])
@pytest.mark.parametrize("per_group", [1, 3, 16, 17, 50])
def test_groups_of_any_width(groups: int, per_group: int, dtype: torch.dtype) -> None:
    arguments = make(channels=groups * per_group, groups=groups, length=21, dtype=dtype)
    assert_equals_the_definition(arguments)


@pytest.mark.parametrize(("batch", "groups", "per_group"), [(1, 1, 200), (2, 2, 200), (1, 3, 417)])
def test_groups_that_are_cut_into_several_tasks(batch: int, groups: int, per_group: int) -> None:
    arguments = make(batch=batch, channels=groups * per_group, groups=groups, length=19)
    assert_equals_the_definition(arguments)


@SINGLE_AND_DOUBLE
@pytest.mark.parametrize("states", [1, 2, 3, 5, 16])
def test_any_number_of_states(states: int, dtype: torch.dtype) -> None:
    assert_equals_the_definition(make(states=states, dtype=dtype))
    assert_equals_the_definition(make(">", states=states, length=100, channels=3, dtype=dtype))


# The compiler takes its time for such long loops.
@pytest.mark.slow
@SINGLE_AND_DOUBLE
@pytest.mark.parametrize("states", [33, 64])
def test_many_states(states: int, dtype: torch.dtype) -> None:
    assert_equals_the_definition(make(states=states, length=35, dtype=dtype))


@SINGLE_AND_DOUBLE
@pytest.mark.parametrize("length", [1, 2, 15, 16, 17, 63, 64, 65, 100, 300])
def test_any_length(length: int, dtype: torch.dtype) -> None:
    assert_equals_the_definition(make(length=length, channels=17, dtype=dtype))


@pytest.mark.parametrize("softplus", [False, True])
@pytest.mark.parametrize("optional", ["", "D", "z", "b", "Dz", "Db", "zb", "Dzb"])
def test_whatever_is_left_out(optional: str, softplus: bool) -> None:
    for last_state in (False, True):
        arguments = make(optional=optional, softplus=softplus)
        assert_equals_the_definition(arguments, last_state=last_state)


@pytest.mark.parametrize("paths", [">", "><"])
def test_the_gradient_through_the_last_states_alone(paths: str) -> None:
    arguments = make(paths, lengths=[40, 13])
    grads = []
    names = ("u", "delta", "A", "B", "delta_bias")
    for backend in ("numba", "reference"):
        _, last = path_scan(**arguments, backend=backend)
        total = (last * weights(last)).sum()
        grads.append(torch.autograd.grad(total, [arguments[name] for name in names]))
    for name, ours, expected in zip(names, *grads, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-11, atol=1e-12, msg=name)


@SINGLE_AND_DOUBLE
@pytest.mark.parametrize("paths", ["<", "><", ">>>>"])
def test_padding_of_any_content_and_length(paths: str, dtype: torch.dtype) -> None:
    arguments = make(paths, batch=6, length=70, lengths=[70, 0, 1, 16, 64, 65], dtype=dtype)
    for name in STREAMS:
        x = arguments[name].detach().clone()
        for sample, length in enumerate(arguments["lengths"].tolist()):
            x[sample, ..., length:] = math.nan
        arguments[name] = x.requires_grad_()
    assert_equals_the_definition(arguments)
    results = run(arguments, "numba")
    for name in ("out", *STREAMS):
        for sample, length in enumerate(arguments["lengths"].tolist()):
            assert (results[name][sample, ..., length:] == 0).all(), name


def channel_last(x: Tensor) -> Tensor:
    return x.mT.contiguous().mT


def time_major(x: Tensor) -> Tensor:
    """Positions in the outermost axis, as a recurrent network has them."""
    return x.movedim(-1, 0).contiguous().movedim(0, -1)


def batch_inside(x: Tensor) -> Tensor:
    return x.movedim(0, -1).contiguous().movedim(-1, 0)


def every_second(x: Tensor) -> Tensor:
    return x.repeat_interleave(2, -1)[..., ::2]


def middle_of_channels(x: Tensor) -> Tensor:
    """As `split` of a projection leaves it: channels last, rows longer than the channels."""
    wide = torch.cat([x, x, x], dim=-2)
    return channel_last(wide)[..., x.shape[-2] : 2 * x.shape[-2], :]


def first_of_two_samples(x: Tensor) -> Tensor:
    return x.repeat_interleave(2, 0)[::2]


LAYOUTS = [
    channel_last, time_major, batch_inside, every_second, middle_of_channels, first_of_two_samples,
]  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("channels", [5, 16, 20, 32])
def test_any_layout_of_every_stream(layout: Callable[[Tensor], Tensor], channels: int) -> None:
    arguments = make(channels=channels, length=37, states=3)
    expected = run(arguments, "reference")
    for which in ((name,) for name in STREAMS), (STREAMS,):
        for names in which:
            moved = {name: layout(arguments[name].detach()).requires_grad_() for name in names}
            assert all(not x.is_contiguous() for x in moved.values())
            results = run(arguments | moved, "numba")
            for name, value in expected.items():
                close = {"rtol": 1e-11, "atol": 1e-11, "msg": f"{names}: {name}"}
                torch.testing.assert_close(results[name], value, **close)


@pytest.mark.parametrize("axis", [0, 1, 2, 3])
def test_streams_that_are_expanded_over_an_axis(axis: int) -> None:
    arguments = make()
    for name in ("u", "delta", "B", "C"):
        x = arguments[name].detach()
        axis_of_x = axis + (x.dim() - 4 if axis > 1 else 0)
        one = x.narrow(axis_of_x, 0, 1).clone()
        arguments[name] = one.expand(x.shape).requires_grad_()
        assert 0 in arguments[name].stride()
    assert_equals_the_definition(arguments)


def test_vectors_and_gradients_of_any_layout() -> None:
    arguments = make(states=3)
    for name in ("A", "D", "delta_bias"):
        arguments[name] = every_second(arguments[name].detach()).requires_grad_()
    arguments["A"] = channel_last(arguments["A"].detach()).requires_grad_()
    results = []
    for backend in ("numba", "reference"):
        out, last = path_scan(**arguments, backend=backend)
        # sum() sends back one number, expanded with stride 0.
        inputs = list(tensors(arguments).values())
        results.append(torch.autograd.grad(out.mT.sum() + last.mT.sum(), inputs))
    for ours, expected in zip(*results, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("empty", ["batch", "length", "channels", "states"])
@pytest.mark.parametrize("lengths", [False, True])
def test_nothing_gives_nothing(empty: str, lengths: bool) -> None:
    sizes = {empty: 0}
    ragged = [0] * sizes.get("batch", 2) if lengths else None
    arguments = make(**sizes, lengths=ragged)
    assert_equals_the_definition(arguments)


@SINGLE_AND_DOUBLE
@pytest.mark.parametrize(
    "sizes",
    [
        {"batch": 3, "channels": 64, "length": 40, "states": 16},
        {"batch": 1, "channels": 300, "length": 70, "groups": 2},
        {"batch": 5, "channels": 48, "length": 33, "lengths": [33, 1, 0, 20, 17]},
        {"batch": 2, "channels": 40, "length": 36, "paths": ">v<^", "width": 6, "shared": True},
    ],
    ids=str,
)
def test_threads_change_no_bit(sizes: Arguments, dtype: torch.dtype) -> None:
    arguments = make(**sizes, dtype=dtype)
    results = []
    for threads in (1, 2, 3, 8):
        torch.set_num_threads(threads)
        results.append(run(arguments, "numba"))
    for other in results[1:]:
        for name, value in results[0].items():
            assert torch.equal(value, other[name]), name


def test_a_sample_does_not_depend_on_its_batch() -> None:
    arguments = make(batch=3, channels=40, dtype=torch.float32)
    whole, _ = path_scan(**arguments, backend="numba")
    for i in range(3):
        alone = {name: arguments[name][i : i + 1] for name in STREAMS}
        out, _ = path_scan(**arguments | alone, backend="numba")
        assert torch.equal(out, whole[i : i + 1])


@pytest.mark.parametrize(
    ("stream", "bound"), [(torch.bfloat16, 2**-7), (torch.float16, 2**-9)], ids=["bf16", "fp16"]
)
def test_narrow_streams_are_rounded_only_where_they_leave(
    stream: torch.dtype, bound: float
) -> None:
    arguments = make(dtype=torch.float32, stream=stream, states=16)
    # One rounding at the end, which float32 sums in another order may take to the other side.
    assert_equals_the_definition(arguments, bounds=(bound, bound))
    wide = {name: arguments[name].detach().float().requires_grad_() for name in STREAMS}
    ours, exact = run(arguments, "numba"), run(arguments | wide, "numba")
    for name in ("last", "A", "D", "delta_bias"):
        assert ours[name].dtype == torch.float32
    assert torch.equal(ours["last"], exact["last"])
    out, _ = path_scan(**arguments, backend="numba")
    assert out.dtype == stream and torch.equal(out, exact["out"].to(stream))


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", ["u", "delta", "B", "C", "z", "A", "D", "delta_bias"])
def test_what_is_not_finite_shows_up_just_where_the_definition_has_it(
    bad: float, name: str
) -> None:
    arguments = make(channels=18, states=2, length=35)
    x = arguments[name].detach().clone()
    x.view(-1)[x.numel() // 2] = bad
    arguments[name] = x.requires_grad_()
    ours, theirs = (run(arguments, backend) for backend in ("numba", "reference"))
    for key, expected in theirs.items():
        assert torch.equal(ours[key].isfinite(), expected.isfinite()), key
    for key in ("out", "last"):
        assert torch.equal(ours[key].isnan(), theirs[key].isnan()), key
    assert not math.isnan(bad) or ours["out"].isnan().any()


@SINGLE_AND_DOUBLE
@pytest.mark.parametrize("scale", [1e-30, 1e-3, 30.0, 1e4, 1e30])
def test_decay_of_any_strength(scale: float, dtype: torch.dtype) -> None:
    arguments = make(dtype=dtype)
    A = arguments["A"].detach() * scale
    assert_equals_the_definition(arguments | {"A": A.requires_grad_()})


@pytest.mark.parametrize("shift", [-1e4, -200.0, -50.0, 19.0, 25.0, 1e4])
@pytest.mark.parametrize("softplus", [True, False])
def test_steps_of_any_size(shift: float, softplus: bool) -> None:
    arguments = make(softplus=softplus, optional="Dz", length=20)
    delta = arguments["delta"].detach() + (shift if softplus else abs(shift))
    assert_equals_the_definition(arguments | {"delta": delta.requires_grad_()})


def test_a_growing_state_grows_as_in_the_definition() -> None:
    arguments = make(length=30)
    A = -arguments["A"].detach() / 10
    assert_equals_the_definition(arguments | {"A": A.requires_grad_()})


@pytest.mark.parametrize("lengths", [[-1, 40], [-100, 3], [41, 40], [1000, 5]])
def test_lengths_out_of_range_are_refused(lengths: list[int]) -> None:
    with pytest.raises(SuiteError, match="lengths from 0 to the 40 steps"):
        run(make(lengths=lengths), "numba")


@pytest.mark.parametrize("kind", [torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64])
def test_lengths_of_any_integer_type(kind: torch.dtype) -> None:
    arguments = make(lengths=[40, 7])
    expected = run(arguments, "numba")
    ours = run(arguments | {"lengths": arguments["lengths"].to(kind)}, "numba")
    assert all(torch.equal(ours[name], value) for name, value in expected.items())


def complex_decay() -> Arguments:
    arguments = make(states=2, length=10, optional="")
    return arguments | {
        "A": torch.complex(arguments["A"].detach(), arguments["A"].detach()).requires_grad_(),
        "B": torch.randn(2, 2, 1, 2, 20, dtype=torch.float64, requires_grad=True),
        "C": torch.randn(2, 2, 1, 2, 20, dtype=torch.float64, requires_grad=True),
    }


def constant_factor() -> Arguments:
    arguments = make(length=10)
    return arguments | {"B": torch.randn(2, 20, 2, dtype=torch.float64, requires_grad=True)}


BEYOND = {
    "65 states": lambda: make(states=65, length=10, channels=4),
    "A is complex": complex_decay,
    "constant in time": constant_factor,
}


@pytest.mark.parametrize("reason", BEYOND)
def test_what_is_beyond_the_loops_goes_to_the_definition_and_is_said_once(reason: str) -> None:
    arguments = BEYOND[reason]()
    # The default filter, which a user has: one warning per place and text.
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        for _ in range(3):
            out, last = path_scan(**arguments)
            (out.sum() + last.abs().sum()).backward()
    said = [str(w.message) for w in caught]
    assert len(said) == 1 and "leaves the numba backend" in said[0] and reason in said[0], said
    expected, expected_last = path_scan(**arguments, backend="reference")
    assert torch.equal(out, expected) and torch.equal(last, expected_last)


@pytest.mark.parametrize("reason", BEYOND)
def test_numba_asked_by_name_refuses_what_is_beyond_it(reason: str) -> None:
    with pytest.raises(SuiteError, match=f"(?s)numba: .*{reason}.*leave it out"):
        path_scan(**BEYOND[reason](), backend="numba")


def test_numba_asked_on_another_device_is_refused() -> None:
    arguments = make()
    moved = {name: x.to("meta") for name, x in tensors(arguments).items()}
    with pytest.raises(SuiteError, match="(?s)runs on meta.*for the CPU"):
        path_scan(**arguments | moved, backend="numba")


def test_mixed_precisions_follow_the_definition() -> None:
    arguments = make(dtype=torch.float32)
    assert_equals_the_definition(arguments | {"A": arguments["A"].detach().requires_grad_()})
    double_A = arguments["A"].detach().double().requires_grad_()
    assert_equals_the_definition(arguments | {"A": double_A}, bounds=(5e-6, 1e-5))
    narrow_u = arguments["u"].detach().bfloat16().requires_grad_()
    assert_equals_the_definition(arguments | {"u": narrow_u}, bounds=(2**-7, 2**-7))
