"""When a step of a stream may be one compiled pass, and how it is run.

A step is little work in many small operations; their number is what it costs.
"""

from typing import Any

import torch
from torch import Tensor

from blocks.cpu.compilation import available
from blocks.cpu.threads import run_parallel

# Numbers of a state worth waking the other threads for.
_MANY = 1 << 18


def serves(state: Tensor, *inputs: Tensor | None) -> bool:
    """Whether a compiled step may write to `state`: real memory of a CPU, and no gradient."""
    return (
        type(state) is Tensor
        and state.dtype in (torch.float32, torch.float64)
        and state.is_contiguous()
        and not (torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in inputs))
        and not torch.compiler.is_compiling()
        and available(state.device)[0]
    )


def rows(x: Tensor, real: torch.dtype) -> Tensor:
    """In the type of a state, with the numbers of a row next to each other."""
    x = x.to(real)
    return x if x.stride(-1) == 1 else x.contiguous()


def run_step(kernel: Any, state: Tensor, *arguments: Any) -> None:
    """Runs a kernel over the sequences of a state, on several threads if that is worth it."""
    if state.numel() < _MANY:
        kernel(0, len(state), *arguments)
    else:
        run_parallel(lambda begin, end: kernel(begin, end, *arguments), len(state))
