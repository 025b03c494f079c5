"""The report as one HTML page: set-up, tables, curves, pictures, cost, and what failed."""

import tempfile
import time
from collections.abc import Sequence
from html import escape
from pathlib import Path

from bimamba.comparison.figures import draw_bars, draw_curves
from bimamba.comparison.formats import to_texts
from bimamba.comparison.table import Cell, Table
from bimamba.html import document, link, picture, table_html
from bimamba.page import pages, pictures, tables
from bimamba.reporting.contents import Contents, Experiment, Group
from bimamba.reporting.diagram import diagram
from bimamba.reporting.facts import cost_rows, setup_rows
from bimamba.run_files import RunFiles
from blocks.errors import SuiteError

_MOST_ROWS = 60


def report_page(contents: Contents, title: str, start: Path) -> str:
    """The page.

    Args:
        contents: What it says.
        title: Of the report.
        start: Folder that it will lie in, from which files are linked.
    """
    runs = [run for group in contents.groups for run in group.runs]
    synthetic = any(run.section("data").get("synthetic") for run in runs)
    note = "Numbers of embedded synthetic data say nothing about real data. " if synthetic else ""
    body = [
        f'<header><h1>{escape(title)}</h1><p class="soft">{len(runs)} runs with results, '
        f"{len(contents.left_out)} without. {note}Every number names its runs.</p></header>",
        _contents_list(contents),
    ]
    body += [_experiment(experiment, start) for experiment in contents.experiments]
    for number, group in enumerate(contents.groups):
        body += _group(group, number, start)
    body += [_remarks("What failed or is missing", contents.left_out, "failures")]
    body += [_remarks("To be read with care", contents.doubtful, "doubts")]
    written = time.strftime("%Y-%m-%d %H:%M:%S %z")
    body.append(f'<p class="soft">Written {written} by bimamba report.</p>')
    return document(title, body)


def _contents_list(contents: Contents) -> str:
    titles = [escape(group.title) for group in contents.groups]
    links = [f'<li><a href="#group{i}">{title}</a></li>' for i, title in enumerate(titles)]
    if contents.left_out:
        links.append('<li><a href="#failures">What failed or is missing</a></li>')
    return f'<ul class="card">{"".join(links)}</ul>'


def _experiment(experiment: Experiment, start: Path) -> str:
    rows = table_html(experiment.rows[: _MOST_ROWS + 1], "numbers") if experiment.rows else ""
    table = f'<div class="card scroll">{rows}</div>' if rows else ""
    drawn = "".join(picture(path, start) for path in experiment.pictures)
    return (
        f"<h2>{experiment.kind.capitalize()} {escape(experiment.directory.name)}</h2>{table}"
        f'<p class="soft">All of it: {_folder(experiment.directory, start)}</p>'
        f'<div class="grid wide">{drawn}</div>'
    )


def _folder(directory: Path, start: Path) -> str:
    """A link to a folder; a page that lies in it names it."""
    if directory.resolve() == start.resolve():
        return "the folder of this page, " + escape(directory.name)
    return link(directory, start)


def _group(group: Group, number: int, start: Path) -> list[str]:
    best = group.best
    body = [f'<h2 id="group{number}">{escape(group.title)}</h2>']
    body.append(f'<div class="card">{table_html(setup_rows(group))}</div>')
    body.append("<h2>Results</h2>" + _results(group.table))
    body.append(_figures(group))
    if group.differences:
        heads = ["key", *(run.id for run in group.runs)]
        rows = [[key, *values] for key, values in group.differences.items()]
        table = table_html([heads, *rows[:_MOST_ROWS]], "numbers")
        body.append(
            "<details><summary>What the configurations differ in</summary>"
            f'<div class="card scroll">{table}</div></details>'
        )
    costs = table_html(cost_rows(group), "numbers")
    body.append(f'<h2>Cost</h2><div class="card scroll">{costs}</div>')
    for label, runs in group.variants.items():
        if shown := diagram(runs[0].directory):
            body.append(
                f"<details><summary>Architecture of {escape(label)}</summary>{shown}</details>"
            )
    body.append(f"<h2>{escape(best.id)}, the best of these</h2>")
    body += [pages(best, start), tables(best), pictures(best, start), _links(best, start)]
    others = [run for run in group.runs if run is not best]
    for run in others:
        inner = pages(run, start) + tables(run) + _links(run, start)
        body.append(f"<details><summary>{escape(run.id)}</summary>{inner}</details>")
    return body


def _results(table: Table) -> str:
    heading, rows = to_texts(table)
    lines = [[*heading, "runs"]]
    lines += [[*cells, ", ".join(row.runs)] for cells, row in zip(rows, table.rows, strict=True)]
    notes = "".join(f'<p class="soft">{escape(note)}</p>' for note in table.notes)
    return f'<div class="card scroll">{table_html(lines, "numbers")}{notes}</div>'


def _figures(group: Group) -> str:
    """Curves of all variants in one picture, and means with intervals where there are several."""
    monitors = list(dict.fromkeys(run.monitor for run in group.runs if run.monitor))
    wanted = [*monitors, "val/loss", "train/loss"]
    drawn = []
    with tempfile.TemporaryDirectory(prefix="bimamba-report-") as folder:
        place = Path(folder)
        try:
            draw_curves(group.variants, wanted, place / "curves.png")
            drawn.append(picture(place / "curves.png", place))
        except SuiteError:
            pass  # Evaluations have no curves.
        cells = [row.cells.get(monitors[0]) for row in group.table.rows] if monitors else []
        if len(cells) > 1 and all(isinstance(cell, Cell) for cell in cells):
            draw_bars(group.table, monitors[0], place / "means.png")
            drawn.append(picture(place / "means.png", place))
    return f'<div class="grid wide">{"".join(drawn)}</div>' if drawn else ""


def _links(run: RunFiles, start: Path) -> str:
    names = ("page.html", "config.yaml", "config_changes.yaml", "summary.json", "metrics.csv")
    found = [run.directory / name for name in names if (run.directory / name).is_file()]
    return f'<p class="soft">Files: {", ".join(link(path, start) for path in found)}</p>'


def _remarks(title: str, remarks: Sequence[tuple[str, str]], anchor: str) -> str:
    if not remarks:
        return ""
    rows = [[run, text] for run, text in remarks]
    return f'<h2 id="{anchor}">{title}</h2><div class="card">{table_html(rows)}</div>'
