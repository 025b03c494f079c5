"""A table as CSV, Markdown, LaTeX and on the terminal.

Markdown, LaTeX and the terminal round for readers and mark the best; CSV holds the numbers as they
are, in the units of `summary.json`, for programs. Every row ends with the runs it comes from.
"""

import csv
import io
import math
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import rich.table
from rich.markup import escape as escape_markup

from bimamba.comparison.table import Cell, Column, Table
from blocks.files import write_text

# Larger units, by the unit of the values: the largest that leaves no value below one.
_LARGER = {
    "bytes": ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")),
    "count": ((10**9, "G"), (10**6, "M"), (10**3, "k")),
    "s": ((3600, "h"), (60, "min")),
}
# Characters on a terminal for a name; a longer one goes on in the next line.
_WIDEST = 28
_LATEX = {
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", "±": r"$\pm$", "–": "--",
    **{character: f"\\{character}" for character in "&%$#_{}"},
}  # fmt: skip


def to_csv(table: Table) -> str:
    """Means, `NAME_ci95` (half width) and `NAME_n` in full precision, then the runs.

    The last two stand beside columns in which some row has an interval. Units are those of
    `summary.json`: bytes, seconds, counts.

    Args:
        table: What to write.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    spread = {c.name for c in table.columns if _has_intervals(table, c)}
    heading = ["variant"]
    for column in table.columns:
        heading.append(column.name)
        if column.name in spread:
            heading += [f"{column.name}_ci95", f"{column.name}_n"]
    writer.writerow([*heading, "runs"])
    for row in table.rows:
        line = [row.label]
        for column in table.columns:
            cell = row.cells.get(column.name)
            number = cell if isinstance(cell, Cell) else Cell(None, count=0)
            line.append(cell if isinstance(cell, str) else _plain(number.mean, column))
            if column.name in spread:
                line += [
                    _plain(number.half_width, column),
                    str(number.count) if number.count else "",
                ]
        writer.writerow([*line, " ".join(row.runs)])
    return text.getvalue()


def to_markdown(table: Table) -> str:
    """A table of GitHub's Markdown with its title and notes; the best values are bold.

    Args:
        table: What to write.
    """
    heading, rows = _texts(table, escape_markdown, lambda text: f"**{text}**", " ± ")
    heading.append("runs")
    lines = [f"**{escape_markdown(table.title)}**", ""] if table.title else []
    lines.append(f"| {' | '.join(heading)} |")
    lines.append(f"|---|{'--:|' * len(table.columns)}---|")
    for row, cells in zip(table.rows, rows, strict=True):
        runs = "<br>".join(f"`{run.replace('|', '&#124;')}`" for run in row.runs)
        lines.append(f"| {' | '.join([*cells, runs])} |")
    lines += [""] * bool(table.notes) + [f"- {escape_markdown(note)}" for note in table.notes]
    return "\n".join(lines) + "\n"


def to_latex(table: Table) -> str:
    r"""A `table` environment for the package booktabs; the best values are bold.

    Args:
        table: What to write.
    """
    heading, rows = _texts(table, escape_latex, lambda text: rf"\textbf{{{text}}}", r" $\pm$ ")
    heading.append("runs")
    lines = [
        r"% Needs \usepackage{booktabs}.",
        r"\begin{table}",
        r"  \centering",
        rf"  \caption{{{escape_latex(_sentences(table))}}}",
        rf"  \begin{{tabular}}{{l{'r' * len(table.columns)}l}}",
        r"    \toprule",
        f"    {' & '.join(heading)} \\\\",
        r"    \midrule",
    ]
    for row, cells in zip(table.rows, rows, strict=True):
        names = r" \\ ".join(escape_latex(run) for run in row.runs)
        runs = rf"\scriptsize\ttfamily\begin{{tabular}}[t]{{@{{}}l@{{}}}}{names}\end{{tabular}}"
        lines.append(f"    {' & '.join([*cells, runs])} \\\\")
    lines += [r"    \bottomrule", r"  \end{tabular}", r"\end{table}"]
    return "\n".join(lines) + "\n"


def to_rich(table: Table) -> rich.table.Table:
    """The table for a terminal; the best values are bold and green.

    Args:
        table: What to show.
    """
    heading, rows = _texts(table, escape_markup, lambda text: f"[bold green]{text}[/]", " ± ")
    shown = rich.table.Table(title=escape_markup(table.title) or None, title_justify="left")
    label, *numbers = heading
    shown.add_column(label, overflow="fold", max_width=_WIDEST)
    for text in numbers:
        shown.add_column(text.replace(" ", "\n"), justify="right", no_wrap=True)
    shown.add_column("runs", style="dim", overflow="fold", max_width=_WIDEST)
    for row, cells in zip(table.rows, rows, strict=True):
        shown.add_row(*cells, escape_markup("\n".join(row.runs)))
    return shown


def to_texts(table: Table) -> tuple[list[str], list[list[str]]]:
    """Heading and rows as plain text, from the label to the last column.

    Args:
        table: What to show.
    """
    return _texts(table, str, str, " ± ")


def write_table(table: Table, directory: Path, name: str = "table") -> list[Path]:
    """Writes `NAME.csv`, `NAME.md` and `NAME.tex`.

    Args:
        table: What to write.
        directory: Where to; made if it does not exist.
        name: File name without its ending.

    Returns:
        The three files.
    """
    written = []
    formats = {".csv": to_csv, ".md": to_markdown, ".tex": to_latex}
    for ending, form in formats.items():
        path = directory / f"{name}{ending}"
        write_text(path, form(table))
        written.append(path)
    return written


def escape_latex(text: str) -> str:
    """Text as LaTeX prints it: every character with a meaning of its own is defused.

    Args:
        text: Any text.
    """
    return "".join(_LATEX.get(character, character) for character in text.replace("\n", " "))


def escape_markdown(text: str) -> str:
    """Text as GitHub's Markdown shows it, inside a cell of a table as well.

    Args:
        text: Any text.
    """
    text = re.sub(r"([\\`*|~])", r"\\\1", text.replace("\n", " "))
    text = re.sub(r"(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])|^#|(?<=])[(:]", r"\\\g<0>", text)
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _texts(
    table: Table, escape: Callable[[str], str], strong: Callable[[str], str], plus_minus: str
) -> tuple[list[str], list[list[str]]]:
    """Heading and rows as escaped text, from the label to the last column."""
    heading, rows = [""], [[escape(row.label)] for row in table.rows]
    for column in table.columns:
        factor, unit = _scale(table, column)
        heading.append(escape(f"{column.title} ({unit})" if unit else column.title))
        best = table.best(column)
        for i, row in enumerate(table.rows):
            cell = row.cells.get(column.name)
            if isinstance(cell, Cell):
                text = _number(cell, column, factor, plus_minus) or escape("–")
                if cell.half_width is not None and cell.count != len(row.runs):
                    text += escape(f" (n = {cell.count})")
            else:
                text = escape(cell or "")
            rows[i].append(strong(text) if i in best else text)
    return heading, rows


def _sentences(table: Table) -> str:
    return " ".join([f"{table.title}."] * bool(table.title) + [*table.notes])


def _number(cell: Cell, column: Column, factor: float, plus_minus: str) -> str:
    if cell.mean is None:
        return ""
    mean = cell.mean / factor
    half_width = None if cell.half_width is None else cell.half_width / factor
    digits = _digits(mean, half_width) if column.digits is None else column.digits
    text = f"{mean:,.{digits}f}"
    # Parameters are counted, not drawn: that seeds agree on them is no finding.
    counted = column.unit == "count" and not half_width
    return text if half_width is None or counted else f"{text}{plus_minus}{half_width:,.{digits}f}"


def _digits(mean: float, half_width: float | None) -> int:
    """Digits after the point: two that the interval leaves meaning, or four in all."""
    if half_width:
        return max(0, min(8, 1 - math.floor(math.log10(half_width))))
    if mean == int(mean):
        return 0
    return max(0, min(8, 3 - math.floor(math.log10(abs(mean)))))


def _scale(table: Table, column: Column) -> tuple[float, str]:
    sizes = [abs(cell.mean) for cell in _cells(table, column) if cell.mean]
    for factor, unit in _LARGER.get(column.unit, ()):
        if sizes and min(sizes) >= factor:
            return factor, unit
    return 1, "" if column.unit == "count" else column.unit


def _has_intervals(table: Table, column: Column) -> bool:
    return any(cell.half_width is not None for cell in _cells(table, column))


def _cells(table: Table, column: Column) -> Iterator[Cell]:
    found = (row.cells.get(column.name) for row in table.rows)
    return (cell for cell in found if isinstance(cell, Cell))


def _plain(value: float | None, column: Column) -> str:
    if value is None:
        return ""
    whole = column.unit in ("count", "bytes") and value == int(value)
    return str(int(value)) if whole else repr(value)
