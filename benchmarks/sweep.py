"""Time per token and memory of a training step against the length of one sequence."""

import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from benchmarks.settings import Settings, Tell
from benchmarks.timing import Contender, Row, compare, interleave, reason, synchronise

LENGTHS = tuple(2**power for power in range(8, 15))
QUICK_LENGTHS = (16, 32)
# What nobody would wait or pay for; also keeps a machine of 8 GB from swapping.
MOST_SECONDS, MOST_BYTES = 60.0, 4e9


class Case(Protocol):
    """A training step on a sequence of some length."""

    def step(self) -> object:
        """Runs it."""

    def memory(self) -> Row:
        """`saved_bytes` and `peak_bytes` of it."""


def measure_sweep(
    contenders: Mapping[str, Callable[[int], Case]], settings: Settings, tell: Tell
) -> dict[str, Any]:
    """Measures every contender at every length it can afford.

    Times of all lengths are interleaved, so that even ratios between lengths share the weather.

    Args:
        contenders: Name to maker of a case from a length. The first is the reference.
        settings: How.
        tell: Hears what is being done.

    Returns:
        `lengths` and `mixers`: name to length to row, whose `ratio` is to the reference at the
        shortest length. Rows have `seconds_per_token` and the memory, or `skipped`.
    """
    lengths = QUICK_LENGTHS if settings.quick else LENGTHS
    rows: dict[str, dict[str, Row]] = {name: {} for name in contenders}
    steps: dict[tuple[str, int], Contender] = {}
    for name, case_of in contenders.items():
        known: list[Row] = []
        for length in lengths:
            tell(f"memory of {name} at {length:,} tokens")
            row = _afford(known) or _try(case_of, length, settings.device)
            rows[name][str(length)] = row
            if "skipped" in row:
                continue
            known.append(row)
            steps[name, length] = case_of(length).step
    tell("time of a step at every length")
    times = interleave(
        {f"{name} {length}": step for (name, length), step in steps.items()},
        settings,
        limit=MOST_SECONDS,
    )
    compared = compare(times, next(iter(times))) if times else {}
    for (name, length), row in zip(steps, compared.values(), strict=True):
        rows[name][str(length)] |= row
        if "median_seconds" in row:
            rows[name][str(length)]["seconds_per_token"] = row["median_seconds"] / length
    return {"lengths": list(lengths), "mixers": rows}


def _afford(known: list[Row]) -> Row | None:
    """A refusal if the next length, twice the last, would go beyond the limits.

    The growth from one length to the next is taken to go on; before two are known, as a square.
    """
    if not known:
        return None
    for key, most, text in (
        ("first_seconds", MOST_SECONDS, "{:.0f} s a step"),
        ("peak_bytes", MOST_BYTES, "{:.3g} bytes"),
    ):
        last = known[-1][key]
        growth = last / known[-2][key] if len(known) > 1 else 4.0
        if last * growth > most:
            expected, limit = (text.format(value) for value in (last * growth, most))
            return {"skipped": f"would need about {expected}, the limit is {limit}"}
    return None


def _try(case_of: Callable[[int], Case], length: int, device: str) -> Row:
    try:
        case = case_of(length)
        synchronise(device)
        start = time.perf_counter()
        case.step()
        synchronise(device)
        return {"first_seconds": time.perf_counter() - start, **case.memory()}
    except RuntimeError as error:  # Out of memory is one.
        return {"skipped": reason(error)}
