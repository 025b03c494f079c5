"""The bidirectional mixer of Vim-Tiny beside its peers: time and memory, at 197 tokens and beyond.

A step is a forward and a backward pass to the input and every parameter. Memory is what the step
needs beyond input and parameters, their gradients included.
"""

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.agreement import disagreement, gradients, largest_difference
from benchmarks.first_call import measure_first_call
from benchmarks.memory import peak_bytes, saved_bytes
from benchmarks.mixer_peers import CUDA_MIXER_PEERS, MIXER_PEERS, SAME_FUNCTION
from benchmarks.settings import DTYPES, Settings, Tell, chosen
from benchmarks.sweep import measure_sweep
from benchmarks.timing import Row, compare, interleave, reason
from blocks import BiMamba

DIM, BATCH, LENGTH = 192, 8, 197  # Vim-Tiny: 14 x 14 patches and a class token.
CUDA_BATCH = 128  # A GPU is filled by a training batch.
OURS = "bimamba"
_PEERS = MIXER_PEERS | CUDA_MIXER_PEERS


def measure_mixer(settings: Settings, tell: Tell) -> dict[str, Any]:
    """Measures everything about the mixer.

    Args:
        settings: How.
        tell: Hears what is being done.

    Returns:
        `table` (at 197 tokens), `sweep` (over lengths) and `first_call`, ready for JSON.
    """
    on_cuda = torch.device(settings.device).type == "cuda"
    names = chosen(settings, _PEERS if on_cuda else MIXER_PEERS)
    torch.manual_seed(0)
    full = (DIM, CUDA_BATCH if on_cuda else BATCH, LENGTH)
    dim, batch, length = (64, 2, 21) if settings.quick else full
    mixers, excluded = _build(dim, names, settings)
    tell(f"mixers, (B, L, E) = {(batch, length, dim)}")
    table = _measure_table(mixers, excluded, (batch, length, dim), settings)
    swept = {n: m for n, m in mixers.items() if n not in {"frozen_mixer", "mambapy"}}
    sweep = measure_sweep(
        {n: partial(_case, m, dim, settings) for n, m in swept.items()}, settings, tell
    )
    tell("first call in a fresh process")
    return {
        "table": table,
        "sweep": sweep,
        "first_call": measure_first_call("mixer", settings),
    }


def _build(
    dim: int, names: list[str], settings: Settings
) -> tuple[dict[str, nn.Module], dict[str, str]]:
    """Modules by name, ours first; and why others are missing."""
    ours = BiMamba(dim).to(settings.device)
    mixers: dict[str, nn.Module] = {OURS: ours}
    excluded: dict[str, str] = {}
    for name in names:
        try:
            mixers[name] = _PEERS[name](ours).to(settings.device)
            _try(mixers[name], dim, settings)
        except Exception as error:  # A package that is missing, or too new.
            mixers.pop(name, None)
            excluded[name] = reason(error)
    return mixers, excluded


def _try(mixer: nn.Module, dim: int, settings: Settings) -> None:
    """Raises what a call would: a kernel that was not built is missed no earlier."""
    MixerCase(mixer, (1, 4, dim), settings).step()


def _measure_table(
    mixers: dict[str, nn.Module],
    excluded: dict[str, str],
    shape: tuple[int, int, int],
    settings: Settings,
) -> dict[str, Any]:
    """Rows by name for `forward` and `forward_backward`, `memory` and `agreement`."""
    cases = {name: MixerCase(mixer, shape, settings) for name, mixer in mixers.items()}
    agreement: dict[str, float] = {}
    for name in [name for name in SAME_FUNCTION if name in cases]:
        agreement[name] = largest_difference(cases[name].results(), cases[OURS].results())
        if why := disagreement(agreement[name], settings.dtype):
            excluded[name] = why
            del cases[name]
    missing: dict[str, Row] = {name: {"skipped": why} for name, why in excluded.items()}
    runs = {"forward": "forward_only", "forward_backward": "step"}
    found: dict[str, Any] = {"shape": shape}
    for title, method in runs.items():
        contenders = {name: getattr(case, method) for name, case in cases.items()}
        times = interleave(contenders, settings)
        rows = compare(times, OURS) | missing
        found[title] = {name: rows[name] for name in (OURS, *_PEERS) if name in rows}
    found["memory"] = {name: case.memory() for name, case in cases.items()} | missing
    return found | {"agreement": agreement}


class MixerCase:
    """A mixer with one input and one gradient of its output.

    Args:
        mixer: The module.
        shape: (B, L, E).
        settings: Device and type; bfloat16 is an autocast region, as in training.
    """

    def __init__(self, mixer: nn.Module, shape: tuple[int, int, int], settings: Settings) -> None:
        draw = partial(torch.randn, *shape, generator=torch.Generator().manual_seed(0))
        self.mixer, self.settings = mixer, settings
        self.x = draw().to(settings.device).requires_grad_()
        self.grad = draw().to(settings.device)
        self.parameters = list(mixer.parameters())

    def forward(self) -> Tensor:
        """The output, with its graph."""
        device = torch.device(self.settings.device).type
        dtype = DTYPES[self.settings.dtype]
        with torch.autocast(device, dtype, enabled=dtype != torch.float32):
            out: Tensor = self.mixer(self.x)
        return out

    @torch.no_grad()
    def forward_only(self) -> Tensor:
        """The output, as in evaluation."""
        return self.forward()

    def step(self) -> tuple[Tensor, ...]:
        """Gradients of the input and of every parameter."""
        y = self.forward()
        return gradients(y, [self.x, *self.parameters], self.grad.to(y.dtype))

    def results(self) -> list[Tensor]:
        """Output and gradient of the input, to compare mixers."""
        y = self.forward()
        return [y, *gradients(y, [self.x], self.grad.to(y.dtype))]

    def memory(self) -> Row:
        """`saved_bytes` and `peak_bytes` of a step."""
        return {
            "saved_bytes": saved_bytes(self.forward, self.parameters),
            "peak_bytes": peak_bytes(self.step, self.settings.device),
        }


def _case(mixer: nn.Module, dim: int, settings: Settings, length: int) -> MixerCase:
    """A mixer on one sequence of some length."""
    return MixerCase(mixer, (1, length, dim), settings)
