"""Our selective scan against the plain PyTorch loop one would write: forward and backward.

Run by `make bench`. The peer materialises nothing over time and reads each step from `unbind`, so
that its backward is linear in L; indexing `x[:, :, t]` instead would make it quadratic.
"""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.timing import interleave, save
from blocks import selective_scan

SHAPES = ((2, 384, 197, 16), (8, 192, 64, 16), (1, 384, 1024, 16))
ROUNDS = 7


def torch_loop(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, z: Tensor, bias: Tensor
) -> Tensor:
    """The scan as a loop under autograd; shapes as in `blocks.selective_scan`."""
    s = F.softplus(delta + bias[:, None])
    h = u.new_zeros(*u.shape[:2], A.shape[1])
    ys = []
    steps = zip(u.unbind(2), s.unbind(2), B.unbind(2), C.unbind(2), strict=True)
    for u_t, s_t, B_t, C_t in steps:
        decay = torch.exp(s_t[..., None] * A)
        h = decay * h + (s_t * u_t)[..., None] * B_t[:, None]
        ys.append((h * C_t[:, None]).sum(-1))
    return (torch.stack(ys, 2) + D[:, None] * u) * F.silu(z)


def ours(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, z: Tensor, bias: Tensor
) -> Tensor:
    """The operator of this suite, on the backend it chooses itself."""
    return selective_scan(u, delta, A, B, C, D, z, bias, delta_softplus=True)


def main() -> None:
    """Checks that both compute the same, then times them."""
    results = {}
    for shape in SHAPES:
        inputs = _inputs(*shape)
        torch.testing.assert_close(ours(*inputs), torch_loop(*inputs), rtol=1e-4, atol=1e-4)
        contenders = {f.__name__: partial(_forward_backward, f, inputs) for f in (ours, torch_loop)}
        results["x".join(map(str, shape))] = interleave(contenders, ROUNDS)
    save("scan_cpu", {"(B, D, L, N), forward + backward": results})


def _inputs(batch: int, channels: int, length: int, states: int) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    draw = partial(torch.randn, generator=generator)
    tensors = (
        draw(batch, channels, length),
        draw(batch, channels, length) * 0.5,
        -torch.arange(1.0, states + 1).repeat(channels, 1),
        draw(batch, states, length),
        draw(batch, states, length),
        torch.ones(channels),
        draw(batch, channels, length),
        draw(channels) - 4,
    )
    return tuple(t.requires_grad_() for t in tensors)


def _forward_backward(scan: Callable[..., Tensor], inputs: tuple[Tensor, ...]) -> None:
    scan(*inputs).sum().backward()
    for tensor in inputs:
        tensor.grad = None


if __name__ == "__main__":
    main()
