"""The least time a selective scan can take here, from what the machine does at best.

A forward scan needs B*D*L*N exponentials, one for each decay, and moves its streams once: u, delta,
z and the output, B*D*L values each, and B and C, B*N*L each. Neither the recurrence itself nor
softplus and gate are counted, so nothing reaches a ratio of 1.
"""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

import torch

from benchmarks.timing import synchronise

# Elements: from buffers that fit a core's first cache to those that fill the last one.
_EXP_SIZES = tuple(2**power for power in range(13, 22))
_STREAM_SIZE = 2**25


@dataclass(frozen=True)
class Roofline:
    """Measured limits of a device.

    Args:
        bytes_per_second: Best of a copy and a triad on tensors far larger than the caches.
        exps_per_second: Best of torch.exp on float32 buffers of several sizes within them.
    """

    bytes_per_second: float
    exps_per_second: float

    def least_seconds(self, shape: tuple[int, int, int, int], width: int) -> dict[str, float]:
        """Least time of a forward scan.

        Args:
            shape: (B, D, L, N).
            width: Bytes of a stream's value.

        Returns:
            Seconds for the exponentials, for the streams, and the larger one as `least`.
        """
        batch, channels, length, states = shape
        values = batch * length * (4 * channels + 2 * states)
        exps = batch * channels * length * states / self.exps_per_second
        streams = values * width / self.bytes_per_second
        return {"exp": exps, "streams": streams, "least": max(exps, streams)}

    def as_dict(self) -> dict[str, float]:
        """For JSON."""
        return asdict(self)


def measure_roofline(device: str, quick: bool = False) -> Roofline:
    """Measures both limits with the threads torch has now.

    Args:
        device: Where to measure.
        quick: Small buffers, few trials.
    """
    trials = 3 if quick else 15
    return Roofline(_bandwidth(device, trials, quick), _exps(device, trials, quick))


def _bandwidth(device: str, trials: int, quick: bool) -> float:
    size = _STREAM_SIZE // 16 if quick else _STREAM_SIZE
    a, b, c = (torch.ones(size, device=device) for _ in range(3))
    copy = 2 * a.nbytes / _best(lambda: a.copy_(b), device, trials)
    triad = 3 * a.nbytes / _best(lambda: torch.add(b, c, alpha=2.0, out=a), device, trials)
    return max(copy, triad)


def _exps(device: str, trials: int, quick: bool) -> float:
    rates: list[float] = []
    # A GPU is filled by large buffers only.
    sizes = _EXP_SIZES if torch.device(device).type == "cpu" else (2**22, 2**24, 2**26)
    for size in sizes[2:5] if quick else sizes:
        x = torch.linspace(-5, 0, size, device=device)
        out = torch.empty_like(x)
        repeats = max(1, 2**20 // size)

        def run(x: torch.Tensor = x, out: torch.Tensor = out, repeats: int = repeats) -> None:
            for _ in range(repeats):
                torch.exp(x, out=out)

        rates.append(size * repeats / _best(run, device, trials))
    return float(max(rates))


def _best(function: Callable[[], object], device: str, trials: int) -> float:
    """Fewest seconds of several calls: a limit is what was reached once."""
    found = []
    for _ in range(trials + 1):
        synchronise(device)
        start = time.perf_counter()
        function()
        synchronise(device)
        found.append(time.perf_counter() - start)
    return min(found[1:])
