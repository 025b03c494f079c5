"""Who computes the scan: a table of backends and the choice among them.

A further backend is one file with the five functions of `blocks.scan.reference` and one row here.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from blocks.errors import SuiteError
from blocks.scan import cpu, cuda, gpu, reference


@dataclass(frozen=True)
class Backend:
    """One implementation of the scan. Signatures and shapes are those of `reference`.

    Args:
        available: Tells whether it runs on a device, and why (not).
        refuses: Tells why A, B and C are beyond it; None when they are not.
        forward: Output, last states, and whatever `backward` needs of the states.
        backward: Gradients of the eight tensors.
        kept_shape: Shape of those states for (paths, batch, groups, channels, length, states).
    """

    available: Callable[[torch.device], tuple[bool, str]]
    refuses: Callable[[Tensor, Tensor, Tensor], str | None]
    forward: Callable[..., tuple[Tensor, Tensor, Tensor]]
    backward: Callable[..., reference.Gradients]
    kept_shape: Callable[[int, int, int, int, int, int], tuple[int, ...]]


# In order of preference: the first that runs on the device and takes the arguments serves.
BACKENDS = {
    "numba": Backend(cpu.available, cpu.refuses, cpu.forward, cpu.backward, cpu.kept_shape),
    "triton": Backend(gpu.available, gpu.refuses, gpu.forward, gpu.backward, gpu.kept_shape),
    "mamba_ssm": Backend(
        cuda.available, cuda.refuses, cuda.forward, cuda.backward, cuda.kept_shape
    ),
    "reference": Backend(
        reference.available,
        reference.refuses,
        reference.forward,
        reference.backward,
        reference.kept_shape,
    ),
}


def scan_backends(device: torch.device | str) -> list[tuple[str, bool, str]]:
    """All backends as (name, usable on this device, why), best first."""
    device = torch.device(device)
    return [(name, *backend.available(device)) for name, backend in BACKENDS.items()]


def active_backend(device: torch.device | str) -> tuple[str, str]:
    """The backend that serves a device when none is asked for, and why it is usable."""
    return next((name, why) for name, usable, why in scan_backends(device) if usable)


def choose_backend(name: str, A: Tensor, B: Tensor, C: Tensor) -> Backend:
    """The backend that serves a call. Asked again for the same call, it answers the same.

    Args:
        name: One of `scan_backends`, or "" for the best that fits.
        A: Decay of the call; its device decides.
        B: Input weights of the call.
        C: Output weights of the call.

    Raises:
        SuiteError: The asked one does not exist, does not run here or does not take the arguments.
    """
    if name:
        return _named(name, A, B, C)
    for candidate_name, candidate in BACKENDS.items():
        if not candidate.available(A.device)[0]:
            continue
        reason = candidate.refuses(A, B, C)
        if reason is None:
            return candidate
        _say_once(f"selective_scan leaves the {candidate_name} backend for a slower one: {reason}")
    raise AssertionError("the reference takes everything")


def _say_once(message: str) -> None:
    """One place for forward and backward: Python shows a warning once per place and text."""
    warnings.warn(message, stacklevel=1)


def _named(name: str, A: Tensor, B: Tensor, C: Tensor) -> Backend:
    if name not in BACKENDS:
        raise _unusable("one of " + ", ".join(BACKENDS), repr(name))
    usable, why = BACKENDS[name].available(A.device)
    if not usable:
        raise _unusable(f"a backend that runs on {A.device}", f"{name}: {why}")
    reason = BACKENDS[name].refuses(A, B, C)
    if reason is not None:
        raise _unusable("a backend that takes these arguments", f"{name}: {reason}")
    return BACKENDS[name]


def _unusable(expected: str, found: str) -> SuiteError:
    return SuiteError(
        expected=expected,
        found=found,
        where="selective_scan(backend=...)",
        cure="leave it out to get the best backend for the device and the arguments",
    )
