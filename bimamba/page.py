"""The page of a run: one HTML file made from the files of its directory, readable anywhere.

Nothing is loaded from outside, and its content policy forbids the attempt: pictures are embedded,
curves are inline SVG (`curves.py`), and the only script that may run is the one written here.
Whatever the files say is escaped.
"""

import csv
import time
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

import yaml

from bimamba.curves import chart
from bimamba.formats import duration, memory, short
from bimamba.html import cell_text, document, link, picture, table_html
from bimamba.run_files import Point, RunFiles, read_run
from blocks.files import write_text

# A table that fits on a screen or two is shown as it is.
_LARGEST_TABLE, _MOST_ROWS, _MOST_COLUMNS = 20_000, 40, 16
_MOST_PAGES = 12

_STATUS = {
    "running": "The run had not ended when this page was written.",
    "interrupted": "The run was interrupted: the values are those it had reached.",
    "failed": "The run ended with an error: the values are those it had reached.",
    "unknown": "Nothing tells how the run ended.",
}


def write_page(directory: str | Path) -> Path:
    """Writes `page.html` into a run directory.

    Args:
        directory: The run directory.

    Returns:
        Path of the page.

    Raises:
        SuiteError: Not the folder of a run.
    """
    path = Path(directory) / "page.html"
    write_text(path, run_page(read_run(directory)))
    return path


def run_page(run: RunFiles) -> str:
    """The page as HTML.

    Args:
        run: What the files of the run say.
    """
    body = [_head(run), tiles(run), _metrics(run), pages(run), tables(run), _charts(run)]
    body += [pictures(run), _configuration(run), _origin(run)]
    return document(f"{run.experiment}/{run.run}", body)


def _head(run: RunFiles) -> str:
    status = run.status if run.status in {*_STATUS, "finished"} else "unknown"
    workload = escape(str(run.summary.get("workload") or "unknown workload"))
    lines = f'<p class="{status}">{_STATUS[status]}</p>' if status in _STATUS else ""
    lines += "".join(f'<p class="problem">{escape(problem)}</p>' for problem in run.problems)
    return (
        f'<header><p class="soft">{escape(run.experiment)}</p><h1>{escape(run.run)}</h1>'
        f'<p>{workload}, <span class="status {status}">{status}</span></p>{lines}</header>'
    )


def tiles(run: RunFiles) -> str:
    """The numbers one looks for first: best and last metrics, and what they cost.

    Args:
        run: The run.
    """
    best, last = run.metrics("best"), run.metrics("last")
    better = "higher is better" if run.summary.get("mode") == "max" else "lower is better"
    tiles: list[tuple[str, str, str]] = []
    if run.monitor in best:
        at = f"at step {short(run.number('best_step'))}"
        tiles.append((f"best {run.monitor}", _value(run, run.monitor, best), at))
    for name in last:
        stage, _, metric = name.partition("/")
        if metric == run.monitor.partition("/")[2] and stage in {"val", "test"}:
            tiles.append((f"last {name}", _value(run, name, last), better))
    steps, epochs = run.number("steps"), run.number("epochs")
    length = f"{short(steps)} steps, {short(epochs)} epochs" if steps else ""
    trained = f"{short(run.number('trainable_params'))} trained"
    costs = (
        ("energy", run.number("joules"), _energy, str(run.summary.get("joules_counter"))),
        ("time", run.number("seconds"), duration, length),
        ("training speed", run.number("samples_per_second"), short, "samples per second"),
        ("peak memory", run.number("peak_memory"), memory, "of the GPU, else the process"),
        ("parameters", run.number("params"), short, trained),
    )
    tiles += [(name, form(value), note) for name, value, form, note in costs if value is not None]
    cards = "".join(
        f'<div class="card"><small>{escape(name)}</small><b>{escape(value)}</b>'
        f"<small>{escape(note)}</small></div>"
        for name, value, note in tiles
    )
    return f'<div class="tiles">{cards}</div>' if cards else ""


def _energy(joules: float) -> str:
    return f"{joules / 3.6e6:.3g} kWh" if joules >= 3.6e5 else f"{joules:,.0f} J"


def _value(run: RunFiles, name: str, metrics: Mapping[str, float | None]) -> str:
    return f"{short(metrics[name])} {run.unit(name)}".rstrip()


def _metrics(run: RunFiles) -> str:
    best, last = run.metrics("best"), run.metrics("last")
    names = [n for n in {**best, **last} if not n.endswith("_step") and not n.startswith("lr/")]
    if not names:
        return "<h2>Metrics</h2><p>No metrics yet.</p>"
    columns = {"best": best, "last": last} if best else {"last": last}
    rows = [
        [f"{n} ({run.unit(n)})" if run.unit(n) else n]
        + [short(c[n]) if n in c else "" for c in columns.values()]
        for n in sorted(names)
    ]
    note = f'<p class="soft">best: all metrics as they were at the best {escape(run.monitor)}</p>'
    table = table_html([["metric", *columns], *rows], "numbers")
    return f'<h2>Metrics</h2><div class="card">{table}{note if best else ""}</div>'


def pages(run: RunFiles, start: Path | None = None) -> str:
    """Links to what a browser can play: pages and films that are no pictures of this page.

    Args:
        run: The run.
        start: Folder of the page; None for that of the run.
    """
    found = sorted(path for kind in ("html", "mp4") for path in run.directory.glob(f"*/*.{kind}"))
    links = [f"<li>{link(path, start or run.directory)}</li>" for path in found[:_MOST_PAGES]]
    if len(found) > _MOST_PAGES:
        links.append(f"<li>and {len(found) - _MOST_PAGES} more beside them</li>")
    return f'<h2>To play and turn</h2><ul class="card">{"".join(links)}</ul>' if links else ""


def tables(run: RunFiles) -> str:
    """Small tables of the run, such as scores per class; a page of the run links larger ones.

    Args:
        run: The run.
    """
    cards = []
    for path in sorted(run.directory.glob("*.csv")):
        if path.name == "metrics.csv" or path.stat().st_size > _LARGEST_TABLE:
            continue
        with path.open(newline="") as file:
            head, *rows = [row for row in csv.reader(file) if row] or [[]]
        if rows and len(rows) <= _MOST_ROWS and len(head) <= _MOST_COLUMNS:
            name = escape(path.stem.replace("_", " "))
            body = [[cell_text(cell) for cell in row] for row in rows]
            table = table_html([head, *body], "numbers")
            cards.append(f"<h2>{name.capitalize()}</h2>")
            cards.append(f'<div class="card scroll">{table}</div>')
    return "".join(cards)


def _charts(run: RunFiles) -> str:
    groups: dict[tuple[int, str, str], dict[str, Sequence[Point]]] = {}
    for name in sorted(run.curves, key=lambda name: (not name.endswith("_step"), name)):
        stage, _, metric = name.partition("/")
        metric, points, measure = metric.removesuffix("_step"), run.curves[name], run.unit(name)
        rank = 0 if metric == run.monitor.partition("/")[2] else 1 if metric == "loss" else 2
        if stage == "lr":
            rank, metric = 3, "learning rate"
            if points in groups.get((rank, metric, measure), {}).values():
                continue  # Groups of parameters mostly share their rate.
        elif stage == "perf":
            rank, metric = 4, metric.replace("_", " ")
        if measure == "bytes":
            points, measure = [Point(p.step, p.value / 2**20) for p in points], "MiB"
        groups.setdefault((rank, metric, measure), {})[name] = points
    charts = [
        chart(metric, measure, drawn)
        for (_, metric, measure), drawn in sorted(groups.items())
        if any(len(points) > 1 for points in drawn.values())
    ]
    return f'<h2>Curves</h2><div class="grid">{"".join(charts)}</div>' if charts else ""


def pictures(run: RunFiles, start: Path | None = None) -> str:
    """The pictures of a run.

    Args:
        run: The run.
        start: Folder of the page; None for that of the run.
    """
    figures = [picture(path, start or run.directory) for path in run.pictures]
    return f'<h2>Pictures</h2><div class="grid wide">{"".join(figures)}</div>' if figures else ""


def _configuration(run: RunFiles) -> str:
    merged = yaml.safe_dump(dict(run.config), sort_keys=False, allow_unicode=True)
    changes = f"<h3>What differs from the defaults</h3><pre>{escape(run.changes)}</pre>"
    everything = f"<summary>everything, defaults included</summary><pre>{escape(merged)}</pre>"
    card = (
        f'<div class="card">{changes if run.changes else ""}<details>{everything}</details></div>'
    )
    return f"<h2>Configuration</h2>{card}" if run.config else ""


def _origin(run: RunFiles) -> str:
    git, data = run.section("git"), run.section("data")
    dirty = ", with changes that were not committed" if git.get("dirty") else ""
    facts = {
        "data": data.get("root"),
        "embedded data": "yes" if data.get("synthetic") else None,
        "hash of the data": data.get("hash"),
        "protocol": run.summary.get("protocol"),
        "seed": run.summary.get("seed"),
        "device": run.summary.get("device"),
        "revision": f"{git['rev']}{dirty}" if git.get("rev") else None,
        "versions": ", ".join(f"{name} {v}" for name, v in run.section("versions").items()),
    }
    rows = [[name, str(value)] for name, value in facts.items() if value not in (None, "")]
    files = sorted(
        path
        for pattern in ("*.yaml", "*.json", "*.csv", "checkpoints/*.ckpt")
        for path in run.directory.glob(pattern)
    )
    links = ", ".join(link(path, run.directory) for path in files)
    written = time.strftime("%Y-%m-%d %H:%M:%S %z")
    return (
        f'<h2>Where it comes from</h2><div class="card">{table_html(rows)}</div>'
        f'<p>Files: {links}</p><p class="soft">Page written {written} by bimamba report.</p>'
    )
