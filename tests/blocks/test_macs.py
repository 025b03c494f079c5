"""MACs against counts by hand, and a network that is left as it was."""

import importlib
import pkgutil
import random

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import flop_registry

import blocks
from blocks import SS2D, BiMamba, Mamba, selective_scan
from blocks.causal_conv import causal_conv1d
from blocks.conv.operator import path_conv
from blocks.macs import COUNTER, count_macs
from blocks.scan.operator import path_scan

B, D, L, N, W = 2, 6, 10, 4, 3


class Scan(nn.Module):
    """One scan; A decides how many paths there are and whether states are complex."""

    def __init__(self, paths: str, *, skip: bool, gate: bool, is_complex: bool = False) -> None:
        super().__init__()
        self.paths, self.skip, self.gate = paths, skip, gate
        self.dtype = torch.complex64 if is_complex else torch.float32

    def forward(self, u: Tensor) -> Tensor:
        k = len(self.paths)
        A = torch.full((k, D, N), -1.0, dtype=self.dtype)
        weights = torch.ones(B, k, N, L * (2 if A.is_complex() else 1))
        out, _ = path_scan(
            u, torch.ones(B, k, D, L), A, weights, weights,
            torch.ones(k, D) if self.skip else None, torch.ones(B, D, L) if self.gate else None,
            paths=self.paths,
        )  # fmt: skip
        return out


@pytest.mark.parametrize("paths", [">", "><"])
@pytest.mark.parametrize(("skip", "gate"), [(False, False), (True, False), (True, True)])
def test_a_scan_counts_its_states_steps_and_paths(paths: str, skip: bool, gate: bool) -> None:
    found = count_macs(Scan(paths, skip=skip, gate=gate), torch.ones(B, 1, D, L))
    states = 9 * len(paths) * N / 2
    assert found.total == B * D * L * (states + len(paths) * skip + gate)
    assert found.counter == COUNTER and "4.5 MACs per (channel, state, step)" in COUNTER


def test_complex_states_count_four_times() -> None:
    u = torch.ones(B, 1, D, L)
    real = count_macs(Scan(">", skip=False, gate=False), u)
    double = count_macs(Scan(">", skip=False, gate=False, is_complex=True), u)
    assert double.total == 4 * real.total


def test_the_public_scan_is_the_counted_one() -> None:
    class Public(nn.Module):
        def forward(self, u: Tensor) -> Tensor:
            weights = torch.ones(B, N, L)
            out: Tensor = selective_scan(u, torch.ones_like(u), -torch.ones(D, N), weights, weights)
            return out

    assert count_macs(Public(), torch.ones(B, D, L)).total == 9 * B * D * L * N // 2


def test_a_convolution_counts_its_taps() -> None:
    class Paths(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return path_conv(x, torch.ones(2, D, W), None, paths="><", silu=True)

    class Causal(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return causal_conv1d(x, torch.ones(D, W))

    x = torch.ones(B, D, L)
    assert count_macs(Paths(), x).total == 2 * B * D * L * W
    # torch's own convolution pads, and computes what is then cut off.
    assert B * D * L * W <= count_macs(Causal(), x).total <= B * D * (L + W - 1) * W


def test_products_count_as_torch_counts_them() -> None:
    assert count_macs(nn.Linear(8, 5), torch.ones(3, 8)).total == 3 * 8 * 5
    conv = nn.Conv2d(3, 4, 2, stride=2)
    assert count_macs(conv, torch.ones(1, 3, 8, 8)).total == 4 * 4 * 4 * 3 * 2 * 2


def test_a_transformer_layer_of_torch_counts_all_its_products() -> None:
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    weights = 8 * 24 + 8 * 8 + 2 * 8 * 16
    assert count_macs(layer, torch.randn(3, 5, 8)).total == 3 * (5 * weights + 2 * 5 * 5 * 8)
    assert torch.backends.mha.get_fastpath_enabled()


def test_a_bidirectional_mixer_by_hand() -> None:
    dim, inner, rank = 16, 32, 1
    mixer = BiMamba(dim, d_state=N, bimamba_type="v2")
    per_token = dim * 2 * inner + inner * dim
    per_path = inner * 4 + inner * (rank + 2 * N) + rank * inner + 9 * inner * N // 2 + inner
    gate = inner
    total = count_macs(mixer, torch.randn(1, L, dim)).total
    assert total == L * (per_token + 2 * per_path + gate)


def test_a_mixer_in_one_operator_counts_its_samples_alike() -> None:
    mixer, x = BiMamba(16, d_state=N), torch.randn(2, L, 16)
    one = count_macs(mixer, x[:1]).total
    assert count_macs(mixer, x).total == 2 * one
    assert count_macs(mixer, x, lengths=torch.tensor([L, L - 2])).total == 2 * one


def test_every_operator_of_ours_has_a_formula() -> None:
    """One without counts nothing, and nobody would notice."""
    for found in pkgutil.walk_packages(blocks.__path__, "blocks."):
        importlib.import_module(found.name)
    names = (schema.name for schema in torch._C._jit_get_all_schemas())
    ours = {name.removeprefix("bimamba::") for name in names if name.startswith("bimamba::")}
    forward = {name for name in ours if not name.endswith("_backward")}
    assert {"selective_scan", "path_conv"} <= forward
    for name in forward:
        assert getattr(torch.ops.bimamba, name) in flop_registry, name


@pytest.mark.parametrize("mixer", [Mamba(16), SS2D(16)], ids=lambda m: type(m).__name__)
def test_the_count_needs_no_numbers_only_shapes(mixer: nn.Module) -> None:
    shape = (1, 4, 4, 16) if isinstance(mixer, SS2D) else (1, L, 16)
    here = count_macs(mixer, torch.randn(shape)).total
    assert here > 0
    assert count_macs(mixer.to("meta"), torch.empty(shape, device="meta")).total == here


class Restless(nn.Module):
    """Changes everything that a forward pass can change."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.norm = nn.Linear(4, 4), nn.BatchNorm1d(4)
        self.dropout = nn.Dropout(0.5)
        self.calls: torch.Tensor
        self.register_buffer("calls", torch.zeros(()))
        self.seen: list[bool] = []

    def forward(self, x: Tensor, *, scale: float = 1.0) -> Tensor:
        self.calls += 1
        self.seen.append(self.training or self.linear.training or torch.is_grad_enabled())
        noise = torch.randn_like(x) + random.random() + float(np.random.rand())
        out: Tensor = self.dropout(self.norm(self.linear(x + noise))) * scale
        if scale == 0:
            raise RuntimeError("out of luck")
        return out


@pytest.mark.parametrize("scale", [1.0, 0.0], ids=["well", "failing"])
def test_leaves_the_network_and_all_randomness_as_they_were(scale: float) -> None:
    network = Restless()
    network.norm.eval()
    before = {name: x.clone() for name, x in network.state_dict().items()}
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()
    if scale:
        assert count_macs(network, torch.randn(1, 4), scale=scale).total == 16
        torch.set_rng_state(states[0])
        torch.randn(1, 4)
        states = torch.get_rng_state(), *states[1:]
    else:
        x = torch.ones(1, 4)
        with pytest.raises(RuntimeError, match="out of luck"):
            count_macs(network, x, scale=scale)
    assert network.seen == [False]
    assert (network.training, network.linear.training, network.norm.training) == (True, True, False)
    assert all(torch.equal(x, before[name]) for name, x in network.state_dict().items())
    assert torch.equal(torch.get_rng_state(), states[0])
    assert random.getstate() == states[1]
    assert np.array_equal(np.random.get_state()[1], states[2])


def test_a_compiled_network_is_counted_by_its_eager_forward() -> None:
    network = nn.Linear(8, 5)

    def refuse(*_: object) -> None:
        raise AssertionError("compiled")

    network.compile(backend=refuse)
    assert count_macs(network, torch.ones(3, 8)).total == 120
