"""Every mixer is a citizen of PyTorch: copied, pickled, compiled, narrowed, forked and distributed.

One table of mixers, one test per right. All stand on the convolution along paths; `Hydra` and
`Mamba2` on matmuls over chunks of the sequence, the others on the scan.
"""

import copy
import pickle
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
import torch.multiprocessing
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from blocks import (
    SS2D,
    BidirectionalMambaBlock,
    BiMamba,
    CaduceusMixer,
    Hydra,
    Mamba,
    Mamba2,
    MambaVisionMixer,
)
from blocks.errors import SuiteError

DIM = 16
MAKERS: dict[str, Callable[[], nn.Module]] = {
    "Mamba": lambda: Mamba(DIM, d_state=2),
    "BiMamba v1": lambda: BiMamba(DIM, d_state=2, bimamba_type="v1"),
    "BiMamba v2": lambda: BiMamba(DIM, d_state=2, bimamba_type="v2"),
    "BiMamba none": lambda: BiMamba(DIM, d_state=2, bimamba_type="none"),
    "SS2D": lambda: SS2D(DIM, d_state=2),
    "MambaVisionMixer": lambda: MambaVisionMixer(DIM, d_state=2),
    "CaduceusMixer": lambda: CaduceusMixer(DIM, d_state=2),
    "BidirectionalMambaBlock": lambda: BidirectionalMambaBlock(DIM, d_state=2),
    "Hydra": lambda: Hydra(DIM, d_state=4, head_dim=8),
    "Mamba2": lambda: Mamba2(DIM, d_state=4, head_dim=8),
}
CHUNKED = ("Hydra", "Mamba2")
RAGGED = [name for name in MAKERS if name != "SS2D"]
each = pytest.mark.parametrize("name", MAKERS)


@pytest.fixture(autouse=True)
def _same_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def make(name: str, seed: int = 0) -> nn.Module:
    """A mixer whose weights depend on the seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return MAKERS[name]()


def example(name: str, length: int = 12, seed: int = 1, batch: int = 2) -> Tensor:
    rng = torch.Generator().manual_seed(seed)
    shape = (batch, 3, length // 3, DIM) if name == "SS2D" else (batch, length, DIM)
    return torch.randn(shape, generator=rng)


def gradients(module: nn.Module, x: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(module(x).square().sum(), list(module.parameters())))


def assert_equal(ours: list[Tensor], expected: list[Tensor]) -> None:
    assert len(ours) == len(expected)
    assert all(torch.equal(a, b) for a, b in zip(ours, expected, strict=True))


@each
def test_copies_and_pickles_compute_the_same_and_share_nothing(name: str) -> None:
    module, x = make(name), example(name)
    expected, grads = module(x), gradients(module, x)  # Used once, so that no cache is in the way.
    twins = [copy.deepcopy(module), pickle.loads(pickle.dumps(module))]
    for twin in twins:
        assert torch.equal(twin(x), expected)
        assert_equal(gradients(twin, x), grads)
        with torch.no_grad():
            for parameter in twin.parameters():
                parameter.zero_()
    assert torch.equal(module(x), expected)


def graphs_per_length(module: nn.Module, inputs: list[Tensor]) -> list[bool]:
    """Whether each input was compiled anew; compares results and gradients on the way."""
    torch._dynamo.reset()
    plain, made = torch._dynamo.lookup_backend("aot_eager"), 0

    def counted(graph: torch.fx.GraphModule, examples: list[Tensor]) -> Callable[..., Tensor]:
        nonlocal made
        made += 1  # torch may hand over a graph twice while it makes one.
        return plain(graph, examples)

    compiled = torch.compile(module, backend=counted, fullgraph=True, dynamic=True)
    anew = []
    for x in inputs:
        before = made
        for ours, theirs in zip(gradients(compiled, x), gradients(module, x), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(compiled(x), module(x))
        anew.append(made > before)
    return anew


# Much algebra of sizes: the chunked mixers take 10 seconds to compile.
@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] * (n in CHUNKED)) for n in MAKERS]
)
def test_it_trains_as_one_compiled_graph_for_all_lengths(name: str) -> None:
    inputs = [example(name, length) for length in (12, 15, 27)]
    assert graphs_per_length(make(name), inputs) == [True, False, False]


@pytest.mark.slow
def test_as_many_chunks_of_another_length_are_the_same_graph() -> None:
    # The loop over chunks is unrolled; another number of them, or a last one to be filled up, is
    # another graph.
    mamba2 = Mamba2(DIM, d_state=4, head_dim=8, chunk_size=8)
    inputs = [example("Mamba2", length) for length in (12, 14)]
    assert graphs_per_length(mamba2, inputs) == [True, False]


@each
def test_autocast_keeps_gradients_in_float32_and_results_near(name: str) -> None:
    module, x = make(name), example(name).requires_grad_()
    exact = module(x)
    with torch.autocast("cpu", torch.bfloat16):
        out = module(x)
    assert (out.float() - exact).abs().max() < 0.05 * exact.abs().max()
    out.float().square().sum().backward()
    grads = [x.grad, *(p.grad for p in module.parameters())]
    assert all(grad.dtype == torch.float32 and grad.isfinite().all() for grad in grads)


@each
def test_a_second_derivative_is_refused_with_what_to_do(name: str) -> None:
    module, x = make(name), example(name).requires_grad_()
    (grad,) = torch.autograd.grad(module(x).square().sum(), x, create_graph=True)
    advice = "(?s)create_graph=True.*cure: (use torch.nn.functional|differentiate a plain loop)"
    with pytest.raises(SuiteError, match=advice):
        torch.autograd.grad(grad.square().sum(), x)
    # Making the graph does no harm where nobody uses it.
    (plain,) = torch.autograd.grad(module(x).square().sum(), x)
    torch.testing.assert_close(grad, plain, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", RAGGED)
def test_a_sample_does_not_depend_on_its_padding(name: str) -> None:
    module, lengths = make(name).double(), torch.tensor([12, 5, 1])
    x = example(name, batch=3).double()
    alone = [module(x[i : i + 1, :length]) for i, length in enumerate(lengths.tolist())]
    for i, length in enumerate(lengths.tolist()):
        x[i, length:] = float("nan")
    x.requires_grad_()
    ragged = lengths
    if name == "BidirectionalMambaBlock":
        ragged = torch.arange(12) >= lengths.unsqueeze(-1)
    out = module(x, ragged)
    for i, length in enumerate(lengths.tolist()):
        torch.testing.assert_close(out[i, :length], alone[i][0], rtol=0, atol=1e-12)
        assert (out[i, length:] == 0).all()
    out.square().sum().backward()
    assert all(p.grad.isfinite().all() for p in (x, *module.parameters()))


@each
def test_two_threads_that_train_at_once_do_not_disturb_each_other(name: str) -> None:
    torch.set_num_threads(2)
    modules, batches = [make(name, i) for i in range(2)], [example(name, 24, i) for i in range(2)]
    expected = [gradients(m, x) for m, x in zip(modules, batches, strict=True)]
    start, results = threading.Barrier(2, timeout=20), {}

    def train(i: int) -> None:
        start.wait()
        results[i] = [gradients(modules[i], batches[i]) for _ in range(5)]

    workers = [threading.Thread(target=train, args=(i,), daemon=True) for i in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    for i in range(2):
        for repeated in results[i]:
            for ours, theirs in zip(repeated, expected[i], strict=True):
                # Sums inside torch's own matmuls may be split differently over threads.
                torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


class Gradients(Dataset[list[Tensor]]):
    """Item i: the gradients of mixer i, computed wherever the item is asked for."""

    def __len__(self) -> int:
        return len(MAKERS)

    def __getitem__(self, i: int) -> list[Tensor]:
        name = list(MAKERS)[i]
        return gradients(make(name), example(name))


@pytest.mark.slow
@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_a_worker_of_a_loader_computes_gradients_after_its_parent_has(start: str) -> None:
    if start not in torch.multiprocessing.get_all_start_methods():
        pytest.skip("not on this system")
    torch.set_num_threads(2)
    here = [Gradients()[i] for i in range(len(MAKERS))]
    options = {"multiprocessing_context": start, "timeout": 60}
    loader = DataLoader(Gradients(), batch_size=None, num_workers=2, **options)
    for ours, expected in zip(loader, here, strict=True):
        for a, b in zip(ours, expected, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def train_distributed(rank: int, folder: Path) -> None:
    """One of two processes: the averaged gradients of its share of each batch, into a file."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2
    )
    results = {}
    for name in MAKERS:
        module = make(name)
        parallel = nn.parallel.DistributedDataParallel(module)
        x = example(name, batch=4)[2 * rank : 2 * rank + 2]
        parallel(x).square().mean().backward()
        results[name] = [p.grad for p in module.parameters()]
    torch.save(results, folder / f"{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_two_processes_average_their_gradients(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(train_distributed, args=(tmp_path,), nprocs=2)
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    for name in MAKERS:
        assert_equal(first[name], second[name])
        module = make(name)
        module(example(name, batch=4)).square().mean().backward()
        expected = [p.grad for p in module.parameters()]
        for ours, whole in zip(first[name], expected, strict=True):
            torch.testing.assert_close(ours, whole, rtol=1e-4, atol=1e-6)
