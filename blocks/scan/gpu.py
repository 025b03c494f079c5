"""The selective scan on a GPU, by Triton kernels over all paths at once.

The functions are those of `blocks.scan.reference`, the definition; here the work is cut up, the
loops are in `blocks.scan.gpu_kernels`. Streams are read where they lie, in any layout and type;
best is one whose channels are neighbours. Results are the same bits from run to run.

With TRITON_INTERPRET=1 the kernels run on a CPU, slowly, for tests.
"""

import functools
import math
import os
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from blocks.conv.reference import cleared
from blocks.scan.paths import LETTERS, column_order
from blocks.scan.reference import Gradients

# The oldest that Triton supports: Ampere.
_CAPABILITY = (8, 0)
_WARP = 32
# Their numbers are packed into four bits each.
MAX_PATHS = 8
# Places of a chunk, a power of two. A thread holds its channel for all of them: compiled for
# Hopper, `gradients` has room for 8 in its 255 registers, while 16 spill several hundred bytes.
CHUNK = 8
# Chunks that `carry` reads at once.
_CARRIED = 8


def interpreted() -> bool:
    """Whether kernels run in Triton's interpreter."""
    return os.environ.get("TRITON_INTERPRET") == "1"


@functools.cache
def triton_state() -> tuple[bool, str]:
    """Whether Triton is installed, and which version (or why not)."""
    try:
        import triton

        # An old one imports well and fails at the kernels.
        from blocks.scan import gpu_kernels  # noqa: F401
    except Exception as error:
        return False, f"triton does not work: {type(error).__name__}: {error}"
    return True, f"triton {triton.__version__}"


def available(device: torch.device) -> tuple[bool, str]:
    """Whether the kernels serve a device, and why."""
    if device.type == "cpu" and interpreted():
        usable, why = triton_state()
        return usable, f"{why}, interpreted: for tests" if usable else why
    if device.type != "cuda":
        return False, f"the kernels are for CUDA and ROCm, not for {device.type}"
    if not torch.cuda.is_available():
        return False, f"torch {torch.__version__} sees no GPU"
    if torch.version.hip is None:
        capability = torch.cuda.get_device_capability(device)
        if capability < _CAPABILITY:
            found, needed = (".".join(map(str, c)) for c in (capability, _CAPABILITY))
            return False, f"compute capability {found} is below {needed}"
    usable, why = triton_state()
    return usable, f"{why} on {torch.cuda.get_device_name(device)}" if usable else why


def refuses(A: Tensor, B: Tensor, C: Tensor) -> str | None:
    """Why these arguments are beyond the kernels."""
    if A.is_complex():
        return "A is complex"
    if B.dim() == 3 or C.dim() == 3:
        return "B or C is constant in time"
    if len(A) > MAX_PATHS:
        return f"{len(A)} paths are more than {MAX_PATHS}"
    return None


def kept_shape(
    paths: int, batch: int, groups: int, channels: int, length: int, states: int
) -> tuple[int, ...]:
    """Shape of the kept states: after each chunk, in the order of the walk."""
    return (batch, paths, -(-length // CHUNK), states, channels)


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
    call = _Call(u, delta, A, B, C, D, z, delta_bias, lengths, delta_softplus, paths, width)
    out = torch.empty_like(u[:, 0])
    kept = call.new(call.kept_shape)
    if call.is_empty:
        return out.zero_(), kept.new_zeros((len(u), *A.shape)), kept
    call.states(u, None, call.B, None, kept)
    apart = call.families > 1
    target = call.apart(out) if apart else out.unsqueeze(0)
    for first, options in call.launches():
        own = target[first:]
        call.launch(
            "outputs",
            (*call.streams, *call.vectors, kept, own, *own.stride()),
            **options, HAS_SKIP=D is not None, HAS_Z=z is not None and not apart,
        )  # fmt: skip
    if apart:
        y = target.sum(0)
        out.copy_(y if z is None else y * F.silu(call.cleared(z)))
    return out, kept[:, :, -1].mT.clone(memory_format=torch.contiguous_format), kept


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
    """See `blocks.scan.reference.backward`."""
    call = _Call(u, delta, A, B, C, D, z, delta_bias, lengths, delta_softplus, paths, width)
    if call.is_empty:
        full = [torch.zeros_like(x) for x in (u, delta, A, B, C)]
        dD, dz, dbias = (None if x is None else torch.zeros_like(x) for x in (D, z, delta_bias))
        return full[0], full[1], full[2], full[3], full[4], dD, dz, dbias
    last = None if grad_last is None else grad_last.mT.to(call.real).contiguous()
    adjoint = call.new(call.kept_shape)
    call.states(grad_out, z, call.C, last, adjoint)

    apart, shared = call.families > 1, u.shape[1] != len(A)
    # A program reads a tile of u and delta before it writes their gradients there.
    du = u if overwrite and not shared else torch.empty_like(u)
    ddelta = delta if overwrite else torch.empty_like(delta)
    dz = None if z is None else torch.empty_like(z)
    du_ = call.apart(u) if apart and shared else du.unsqueeze(0)
    dz_ = None if dz is None else call.apart(dz) if apart else dz.unsqueeze(0)
    parts = (call.blocks, *call.B.shape)
    dB, dC = call.new(parts), call.new(parts)
    vectors = (len(u), call.kept_shape[2], *A.shape[:2])
    dD, dbias = (None if x is None else call.new(vectors) for x in (D, delta_bias))
    for first, options in call.launches():
        own_du, own_dz = du_[first:] if apart and shared else du_, dz_
        if dz_ is not None and apart:
            own_dz = dz_[first:]
        call.launch(
            "gradients",
            (
                *call.streams, *call.vectors, kept, grad_out, *grad_out.stride(), adjoint, last,
                own_du, *own_du.stride(), ddelta, *ddelta.stride(),
                own_dz, *((0, 0, 0, 0) if own_dz is None else own_dz.stride()), dB, dC, dD, dbias,
            ),
            **options, HAS_SKIP=D is not None, HAS_Z=z is not None, MERGED=not apart,
            SHARED=shared, HAS_LAST=last is not None,
        )  # fmt: skip
    if apart and shared:
        du.copy_(du_.sum(0))
    if apart and z is not None and dz is not None and dz_ is not None:
        gate = call.cleared(z)
        half = gate.sigmoid()
        slope = half * (1 + gate * (1 - half))
        dz.copy_(slope * call.cleared(grad_out) * dz_.sum(0))
    return (
        du,
        ddelta,
        adjoint.sum((0, 2)).mT.to(A.dtype).contiguous(),
        call.factor_like(dB, B),
        call.factor_like(dC, C),
        None if D is None or dD is None else dD.sum((0, 1)).to(D.dtype),
        dz,
        None if delta_bias is None or dbias is None else dbias.sum((0, 1)).to(delta_bias.dtype),
    )


class _Call:
    """One scan in the form the kernels take.

    Args: those of `forward`.
    """

    def __init__(
        self,
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
    ) -> None:
        self.batch, _, self.channels, self.length = u.shape
        self.states_each, self.groups = A.shape[-1], B.shape[2]
        self.real = torch.float64 if torch.float64 in (u.dtype, A.dtype) else torch.float32
        self.device, self.lengths, self.softplus = u.device, lengths, delta_softplus
        self.kept_shape = kept_shape(
            len(A), self.batch, self.groups, self.channels, self.length, self.states_each
        )
        self.is_empty = 0 in self.kept_shape
        per_group = self.channels // self.groups
        self.BLOCK = min(_WARP, max(2, 1 << max(per_group - 1, 0).bit_length()))
        self.blocks = -(-per_group // self.BLOCK)
        self.codes = [LETTERS.index(path) for path in paths]
        self.families = len({code >> 1 for code in self.codes})
        self.width = max(width, 1)
        self.B, self.C = self._factor(B), self._factor(C)
        self.rates = (A.mT.to(self.real) * math.log2(math.e)).contiguous()
        skip = None if D is None else D.contiguous()
        self.bias = None if delta_bias is None else delta_bias.contiguous()
        self.delta = delta
        self.vectors = (self.B, self.C, self.rates, skip, self.bias, lengths)
        gate = (z, *((0, 0, 0) if z is None else z.stride()))
        self.streams = (u, *_stride(u), delta, *_stride(delta), *gate)

    def new(self, shape: tuple[int, ...]) -> Tensor:
        """Room in the precision of the state."""
        return torch.empty(shape, dtype=self.real, device=self.device)

    def apart(self, x: Tensor) -> Tensor:
        """Room for what each family writes to a stream (..., D, L), channels last."""
        *outer, channels, length = x.shape
        return self.new((self.families, *outer, length, channels)).mT

    def cleared(self, x: Tensor) -> Tensor:
        """(B, ..., L) with zeros beyond each sample's length, in the precision of the state."""
        return cleared(x, self.lengths).to(self.real)

    def states(
        self, x: Tensor, z: Tensor | None, V: Tensor, first: Tensor | None, ends: Tensor
    ) -> None:
        """Fills `ends` with the states after each chunk: of the scan, or of its adjoint.

        Args:
            x: u (B, K or 1, D, L), or the gradient of the output (B, D, L) for the adjoint.
            z: Gate, for the adjoint.
            V: B, or C for the adjoint, as prepared.
            first: State before the first chunk, (B, K, N, D).
            ends: Room of `kept_shape`.
        """
        adjoint = x.dim() == 3
        sums = self.new((*self.kept_shape[:3], self.channels))
        x_stride = (x.stride(0), 0, *x.stride()[1:]) if adjoint else _stride(x)
        z_stride = (0, 0, 0) if z is None else z.stride()
        for _, options in self.launches():
            self.launch(
                "chunk_ends",
                (
                    x, *x_stride, self.delta, *_stride(self.delta), z, *z_stride, V, self.rates,
                    self.bias, self.lengths, ends, sums,
                ),
                each_path=True, **options, ADJOINT=adjoint, HAS_Z=z is not None,
            )  # fmt: skip
        paths, blocks = self.kept_shape[1], -(-self.channels // _WARP)
        _start(
            "carry", self.batch * paths * self.states_each * blocks, self.device,
            ends, sums, self.rates, first, self.channels, self.states_each, paths,
            self.kept_shape[2], blocks, ADJOINT=adjoint, HAS_FIRST=first is not None,
            REAL=self.real, T=_CARRIED, BLOCK=_WARP,
        )  # fmt: skip

    def launches(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """The families of paths that one launch can take, from the number of the first on.

        Both do if their paths go forwards and backwards in the same order, as those of VMamba.
        """
        own = [
            [k for k, code in enumerate(self.codes) if code >> 1 == columns] for columns in (0, 1)
        ]
        patterns = [sum((self.codes[k] & 1) << j for j, k in enumerate(ks)) for ks in own]
        together = len(own[0]) == len(own[1]) and patterns[0] == patterns[1]
        groups = [[0, 1]] if together else [[c] for c in (0, 1) if own[c]]
        for first, columns in enumerate(groups):
            index = [k for c in columns for k in own[c]]
            yield (
                first,
                {
                    "families": len(columns),
                    "index": sum(k << 4 * i for i, k in enumerate(index)),
                    "column_family": columns.index(1) if 1 in columns else -1,
                    "J": len(own[columns[0]]),
                    "PATTERN": patterns[columns[0]],
                    "COLUMNS": 1 in columns,
                },
            )

    def launch(
        self,
        name: str,
        tensors: tuple[Any, ...],
        families: int,
        index: int,
        column_family: int,
        each_path: bool = False,
        **options: int,
    ) -> None:
        """Starts a kernel: a program for each chunk, block of channels and family (or path)."""
        chunks, paths = self.kept_shape[2], self.kept_shape[1]
        programs = self.batch * families * chunks * self.groups * self.blocks
        _start(
            name, programs * (options["J"] if each_path else 1), self.device, *tensors,
            self.channels, self.length, self.states_each, paths, self.batch, self.groups, chunks,
            self.blocks, self.length // self.width, self.width, families, index, column_family,
            HAS_BIAS=self.bias is not None, SOFTPLUS=self.softplus,
            RAGGED=self.lengths is not None, REAL=self.real, T=CHUNK, BLOCK=self.BLOCK,
            **options,
        )  # fmt: skip

    def factor_like(self, parts: Tensor, model: Tensor) -> Tensor:
        """The gradient of B or C from its parts: summed, and back in the order of memory."""
        total = parts.sum(0) if len(parts) > 1 else parts[0]
        result = torch.empty_like(model).copy_(total[..., : self.length])
        for k in self._columns():
            order = column_order(self.length, self.width, self.device)
            result[:, k] = torch.empty_like(total[:, k, ..., : self.length]).index_copy_(
                -1, order, total[:, k, ..., : self.length]
            ).to(result.dtype)  # fmt: skip
        return result

    def _factor(self, x: Tensor) -> Tensor:
        """B or C in the order of each path's family, filled up to whole chunks with zeros."""
        room = self.kept_shape[2] * CHUNK
        x = cleared(x, self.lengths)
        if x.is_contiguous() and room == self.length and self.families == 1 and not self._columns():
            return x
        found = x.new_zeros((*x.shape[:-1], room))
        found[..., : self.length] = x
        for k in self._columns():
            order = column_order(self.length, self.width, self.device)
            found[:, k, ..., : self.length] = x[:, k].index_select(-1, order)
        return found

    def _columns(self) -> list[int]:
        return [k for k, code in enumerate(self.codes) if code >> 1]


def _start(
    name: str,
    programs: int,
    device: torch.device,
    *arguments: Any,
    REAL: torch.dtype,
    **options: Any,
) -> None:
    import triton.language as tl

    from blocks.scan import gpu_kernels

    kernel = getattr(gpu_kernels, name)[(programs,)]
    options["REAL"] = tl.float64 if torch.float64 == REAL else tl.float32
    if device.type == "cpu":
        kernel(*arguments, **options)
        return
    with torch.cuda.device(device):
        kernel(*arguments, **options, num_warps=1, num_stages=1)


def _stride(x: Tensor) -> tuple[int, ...]:
    """(batch, path, channel, position); the path's is 0 where all paths share one stream."""
    batch, path, *rest = x.stride()
    return (batch, 0 if x.shape[1] == 1 else path, *rest)
