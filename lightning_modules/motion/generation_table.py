"""Figures of generated motion as a table: ground truth first, each with its interval."""

import csv
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from blocks.files import atomic_path
from lightning_modules.motion.generation_metrics import ProtocolRecord

Rows = Mapping[str, Mapping[str, tuple[float, float]]]

_TITLES = {
    "r_precision_1": "R@1", "r_precision_2": "R@2", "r_precision_3": "R@3", "fid": "FID",
    "mm_dist": "MM-Dist", "diversity": "Diversity", "multimodality": "MultiModality",
}  # fmt: skip


def write_scores(path: Path, rows: Rows, record: ProtocolRecord) -> None:
    """Writes a CSV: a row for each kind of motion, its figures, their intervals, the protocol.

    Args:
        path: The file.
        rows: Mean and half width of the 95 % interval, by kind and name.
        record: What they were measured with.
    """
    names = list(dict.fromkeys(name for row in rows.values() for name in row))
    facts = {key: _cell(value) for key, value in asdict(record).items()}
    with atomic_path(path) as temporary, temporary.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["motion", *(x for n in names for x in (n, f"{n}_ci95")), *facts])
        for kind, row in rows.items():
            cells = (row.get(name) for name in names)
            numbers = (("", "") if c is None else (f"{c[0]:.6f}", f"{c[1]:.6f}") for c in cells)
            writer.writerow([kind, *(x for pair in numbers for x in pair), *facts.values()])


def score_lines(rows: Rows) -> list[str]:
    """The figures of the literature as aligned lines."""
    shown = [name for name in _TITLES if any(name in row for row in rows.values())]
    lines = [["", *(_TITLES[name] for name in shown)]]
    for kind, row in rows.items():
        lines.append([kind, *(_with_interval(row.get(name)) for name in shown)])
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    return [
        "  ".join(
            [
                line[0].ljust(widths[0]),
                *(c.rjust(w) for c, w in zip(line[1:], widths[1:], strict=True)),
            ]
        )
        for line in lines
    ]


def _with_interval(value: tuple[float, float] | None) -> str:
    if value is None:
        return ""
    mean, half = value
    return f"{mean:.3f} ±{half:.3f}" if half else f"{mean:.3f}"


def _cell(value: object) -> str:
    return "x".join(map(str, value)) if isinstance(value, tuple) else str(value)
