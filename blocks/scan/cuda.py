"""The selective scan by the CUDA kernels of mamba-ssm, where they are installed.

Source: state-spaces/mamba, `selective_scan_cuda`. Its parent package may import without its
kernels, or fail beside them, so that only the extension is touched. It knows one direction and
channels first: paths are scanned one after the other, turned round by copies. Its gradients of A,
B, C, D and the bias are summed by atomics and differ in the last bits from run to run, which is why
the suite's own kernels come first. The functions are those of `blocks.scan.reference`.
"""

import functools
import importlib
from types import ModuleType

import torch
import torch.nn.functional as F
from torch import Tensor

from blocks.conv.reference import cleared
from blocks.errors import SuiteError
from blocks.scan.paths import column_order
from blocks.scan.reference import Gradients

EXTENSION = "selective_scan_cuda"
# Limits of the kernels: states, and steps between the states they keep.
MAX_STATES, CHUNK = 256, 2048


@functools.cache
def extension(name: str) -> tuple[ModuleType | None, str]:
    """A compiled module and where it came from, or None and why not."""
    try:
        module = importlib.import_module(name)
    except Exception as error:  # Another torch raises ImportError: undefined symbol.
        return None, f"{name} does not load: {type(error).__name__}: {error}"
    return module, f"{name} of {getattr(module, '__file__', None) or 'memory'}"


def available(device: torch.device) -> tuple[bool, str]:
    """Whether the kernels serve a device, and why."""
    if device.type != "cuda":
        return False, f"mamba-ssm's kernels are for CUDA, not for {device.type}"
    module, why = extension(EXTENSION)
    return module is not None, why


def refuses(A: Tensor, B: Tensor, C: Tensor) -> str | None:
    """Why these arguments are beyond the kernels."""
    if A.is_complex():
        return "A is complex"
    if B.dim() == 3 or C.dim() == 3:
        return "B or C is constant in time"
    if A.dtype == torch.float64:
        return "float64 would be rounded to float32"
    if A.shape[-1] > MAX_STATES:
        return f"{A.shape[-1]} states per channel are more than {MAX_STATES}"
    return None


def kept_shape(
    paths: int, batch: int, groups: int, channels: int, length: int, states: int
) -> tuple[int, ...]:
    """Shape of the kept pairs of decay and state after each of the kernels' chunks."""
    return (paths, batch, channels, -(-length // CHUNK), 2 * states)


def forward(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    lengths: Tensor | None,
    delta_softplus: bool,
    paths: str,
    width: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """See `blocks.scan.reference.forward`."""
    ys, kept = [], []
    for k, path in enumerate(paths):
        arguments = _path(k, path, u, delta, A, B, C, D, delta_bias, lengths, delta_softplus, width)
        y, states, *_ = _module().fwd(*arguments, delta_softplus)
        ys.append(_memory_order(y, path, width))
        kept.append(states)
    total = torch.stack(ys).sum(0, dtype=torch.float32)
    if z is not None:
        total = total * F.silu(cleared(z, lengths).float())
    total = cleared(total, lengths)
    states = torch.stack(kept)
    last = states[:, :, :, -1, 1::2].transpose(0, 1).contiguous()
    return torch.empty_like(u[:, 0]).copy_(total), last, states


def backward(
    grad_out: Tensor,
    grad_last: Tensor | None,
    kept: Tensor,
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    lengths: Tensor | None,
    delta_softplus: bool,
    paths: str,
    width: int,
    overwrite: bool = False,
) -> Gradients:
    """See `blocks.scan.reference.backward`.

    Raises:
        SuiteError: A gradient comes through the last state, which the kernels do not take.
    """
    if grad_last is not None:
        raise SuiteError(
            expected="no gradient through the last state",
            found="one, and mamba-ssm's kernels cannot take it",
            where="backward of selective_scan(backend='mamba_ssm')",
            cure="leave backend out: the suite's own kernels pass it on",
        )
    g, gate = cleared(grad_out, lengths).float(), None
    if z is not None:
        gate = cleared(z, lengths).float()
    g_y = (g if gate is None else g * F.silu(gate)).to(u.dtype)
    total, found = torch.zeros_like(g), []
    for k, path in enumerate(paths):
        arguments = _path(k, path, u, delta, A, B, C, D, delta_bias, lengths, delta_softplus, width)
        if z is not None:
            y = _module().fwd(*arguments, delta_softplus)[0]
            total += _memory_order(y, path, width)
        du, ddelta, dA, dB, dC, dD, dbias, *_ = _module().bwd(
            *arguments, _walk_order(g_y, path, width), kept[k], None, None, delta_softplus, False
        )
        streams = (_memory_order(x, path, width) for x in (du, ddelta, dB, dC))
        found.append((*streams, dA, dD, dbias))
    dus, ddeltas, dBs, dCs, dAs, dDs, dbiases = zip(*found, strict=True)
    dz = None
    if z is not None and gate is not None:
        half = gate.sigmoid()
        slope = half * (1 + gate * (1 - half))
        dz = torch.empty_like(z).copy_(cleared(slope * g * total, lengths))
    du = torch.stack(dus, 1)
    du = du if u.shape[1] == len(paths) else du.sum(1, keepdim=True, dtype=torch.float32)
    return (
        torch.empty_like(u).copy_(cleared(du, lengths)),
        torch.empty_like(delta).copy_(cleared(torch.stack(ddeltas, 1), lengths)),
        torch.stack(dAs).to(A.dtype),
        torch.empty_like(B).copy_(cleared(torch.stack(dBs, 1), lengths)),
        torch.empty_like(C).copy_(cleared(torch.stack(dCs, 1), lengths)),
        None if D is None else torch.stack(dDs).to(D.dtype),
        dz,
        None if delta_bias is None else torch.stack(dbiases).to(delta_bias.dtype),
    )


def _module() -> ModuleType:
    module, why = extension(EXTENSION)
    assert module is not None, why
    return module


def _path(
    k: int,
    path: str,
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    delta_bias: Tensor | None,
    lengths: Tensor | None,
    delta_softplus: bool,
    width: int,
) -> tuple[Tensor | None, ...]:
    """What the kernels take for one path: u, delta, A, B, C, D, no gate, bias."""
    skip, bias = (None if x is None else x[k].float().contiguous() for x in (D, delta_bias))
    steps = delta[:, k]
    if lengths is not None:
        # A step of size 0 is the identity; softplus is 0 far below 0.
        nothing = torch.zeros_like(A[k, :, 0]) if bias is None else -bias
        nothing = nothing - 1e4 if delta_softplus else nothing
        beyond = _beyond(lengths, u.shape[-1])
        steps = torch.where(beyond.unsqueeze(1), nothing.to(steps.dtype).view(1, -1, 1), steps)
    x = cleared(u[:, min(k, u.shape[1] - 1)], lengths)
    streams = (x, steps, cleared(B[:, k], lengths), cleared(C[:, k], lengths))
    x, steps, B_k, C_k = (_walk_order(v.to(u.dtype), path, width) for v in streams)
    return x, steps, A[k].float().contiguous(), B_k, C_k, skip, None, bias


def _walk_order(x: Tensor, path: str, width: int) -> Tensor:
    if path in "v^":
        x = x[..., column_order(x.shape[-1], width, x.device)]
    return x.flip(-1) if path in "<^" else x.contiguous()


def _memory_order(x: Tensor, path: str, width: int) -> Tensor:
    x = x.flip(-1) if path in "<^" else x
    if path in "v^":
        x = x[..., column_order(x.shape[-1], x.shape[-1] // width, x.device)]
    return x


def _beyond(lengths: Tensor, length: int) -> Tensor:
    return torch.arange(length, device=lengths.device) >= lengths.unsqueeze(-1)
