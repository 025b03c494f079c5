"""A comparison as one table, and as the files that `bimamba compare --output` writes."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from bimamba.comparison.figures import draw_bars, draw_curves
from bimamba.comparison.formats import escape_markdown, write_table
from bimamba.comparison.rows import LAST, common_columns, group_row
from bimamba.comparison.table import Cell, Table
from bimamba.comparison.variants import SEED, differences
from bimamba.run_files import RunFiles
from blocks.files import write_text

Groups = Mapping[str, Sequence[RunFiles]]


def comparison_table(groups: Groups, metrics: Sequence[str] | None) -> Table:
    """A row per variant.

    Args:
        groups: Runs by the name of their variant.
        metrics: What to show; None for what the runs monitor, and everything else they log.

    Raises:
        SuiteError: No run logs one of the metrics.
    """
    runs = [run for group in groups.values() for run in group]
    columns = common_columns(runs, metrics)
    rows = tuple(group_row(label, group, columns) for label, group in groups.items())
    experiments = list(dict.fromkeys(run.experiment for run in runs))
    named = ", ".join(experiments) if len(experiments) < 5 else f"{len(experiments)} experiments"
    notes = [f"{run.summary['protocol']}." for run in runs[:1] if run.summary.get("protocol")]
    monitors = list(dict.fromkeys(run.monitor for run in runs if run.metrics("best")))
    if monitors:
        notes.append(
            f"Metrics as they were at the best {' or '.join(monitors)}; 'last': at the end."
        )
    cells = [cell for row in rows for cell in row.cells.values() if isinstance(cell, Cell)]
    if any(cell.half_width is not None for cell in cells):
        notes.append("Mean ± 95 % confidence interval of the mean (Student's t) over the runs.")
    counters = dict.fromkeys(run.summary.get("macs_counter") for run in runs if run.number("macs"))
    notes += [f"MACs: {counter}." for counter in counters if counter]
    return Table(named, columns, rows, tuple(notes))


def write_comparison(table: Table, groups: Groups, directory: Path) -> list[Path]:
    """Writes table, curves, intervals and differences.

    Args:
        table: From `comparison_table`.
        groups: The runs behind it.
        directory: Where to; made if it does not exist.

    Returns:
        `table.csv`, `table.md`, `table.tex`, `config_differences.md`; `curves.png` if a run has
        more than one point of a metric; `means.png` if a row stands for several runs.
    """
    written = write_table(table, directory)
    path = directory / "config_differences.md"
    write_text(path, differences_markdown(groups))
    written.append(path)
    runs = [run for group in groups.values() for run in group]
    metrics = [c.name for c in table.columns if not c.name.startswith(LAST)]
    curves = [m for m in metrics if any(len(run.curves.get(m, ())) > 1 for run in runs)]
    if curves:
        draw_curves(groups, curves, directory / "curves.png")
        written.append(directory / "curves.png")
    cells = [row.cells.get(metrics[0]) for row in table.rows]
    if any(isinstance(cell, Cell) and cell.count > 1 for cell in cells):
        draw_bars(table, metrics[0], directory / "means.png")
        written.append(directory / "means.png")
    return written


def differences_markdown(groups: Groups) -> str:
    """What the configurations of the variants differ in, a key a line, then who is who.

    Args:
        groups: Runs by the name of their variant.
    """
    owners = [(label, run) for label, group in groups.items() for run in group]
    table = differences([run for _, run in owners])
    lines = ["# What the configurations differ in", ""]
    if table:
        lines += [
            f"| key | {' | '.join(escape_markdown(label) for label in groups)} |",
            f"|---|{'---|' * len(groups)}",
        ]
    else:
        lines.append("Nothing but names and places.")
    for key, values in table.items():
        by_group: dict[str, dict[str, None]] = {label: {} for label in groups}
        for (label, _), text in zip(owners, values, strict=True):
            by_group[label][text] = None
        cells = (escape_markdown(", ".join(found)) for found in by_group.values())
        lines.append(f"| {escape_markdown(key)} | {' | '.join(cells)} |")
    lines += ["", "Names, places, loggers and progress bars are left out.", ""]
    for label, group in groups.items():
        ids = ", ".join(f"`{run.id}`" for run in group)
        lines.append(f"- {escape_markdown(label)}: {ids}")
    return "\n".join(lines) + "\n"


def mixed_keys(groups: Groups) -> list[str]:
    """Keys, apart from the seed, in which runs of one variant differ.

    Args:
        groups: Runs by the name of their variant.
    """
    found = dict.fromkeys(key for group in groups.values() for key in differences(group))
    return [key for key in found if key != SEED]
