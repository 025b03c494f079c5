"""Numbers as people read them: four digits, a unit, and words where there is no number."""

import math

# Units of metrics by the last part of their names; what is not here is a pure number.
_UNITS = {
    "top1": "%",
    "top5": "%",
    "samples_per_second": "samples/s",
    "peak_memory": "bytes",
}


def unit(metric: str) -> str:
    """Unit of a metric such as `val/top1`; empty for a pure number."""
    return _UNITS.get(metric.rpartition("/")[2], "")


def short(value: float | None) -> str:
    """Four digits, whole numbers in full with thousands apart."""
    if value is None or not math.isfinite(value):
        return "not finite"
    if value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}"
    return f"{value:,.0f}" if 1e4 <= abs(value) < 1e15 else f"{value:.4g}"


def with_unit(metric: str, value: float | None) -> str:
    """Value of a metric with its unit."""
    return f"{short(value)} {unit(metric)}".rstrip()


def memory(size: float) -> str:
    """Bytes as GiB or MiB."""
    return f"{size / 2**30:.2f} GiB" if size >= 2**30 else f"{size / 2**20:.0f} MiB"


def duration(seconds: float) -> str:
    """Seconds as hours, minutes and seconds."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{seconds:.1f} s"
