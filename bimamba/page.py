"""The page of a run: one HTML file made from the files of its directory, readable anywhere.

Nothing is loaded from outside, and its content policy forbids the attempt: pictures are embedded,
curves are inline SVG (`curves.py`), and the only script that may run is the one written here.
Whatever the files say is escaped.
"""

import base64
import hashlib
import time
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from urllib.parse import quote

import yaml

from bimamba import curves
from bimamba.curves import chart
from bimamba.formats import duration, memory, short
from bimamba.run_files import PICTURES, Point, RunFiles, read_run
from blocks.files import write_text

# A larger picture is linked, so that a page can still be sent by mail.
_LARGEST_PICTURE = 3_000_000

_STATUS = {
    "running": "The run had not ended when this page was written.",
    "interrupted": "The run was interrupted: the values are those it had reached.",
    "failed": "The run ended with an error: the values are those it had reached.",
    "unknown": "Nothing tells how the run ended.",
}

_STYLE = """
:root { color-scheme: light dark; --page: #f6f7f9; --card: #fff; --text: #1b1d21; --soft: #5b626c;
  --line: #dfe3e8; --link: #0a5ca8; --c0: #0067ac; --c1: #c24700; --c2: #00785a; --c3: #87408a;
  --good: #1a7f37; --bad: #b3261e; }
@media (prefers-color-scheme: dark) { :root { --page: #14161a; --card: #1d2025; --text: #e7e9ec;
  --soft: #a4abb5; --line: #363b43; --link: #7cbcff; --c0: #6db5ff; --c1: #f5a04d; --c2: #52cba2;
  --c3: #d9a0e2; --good: #5fd07f; --bad: #ff8a80; } }
* { box-sizing: border-box; }
body { max-width: 72rem; margin: 0 auto; padding: 1.25rem 1rem 3rem; background: var(--page);
  color: var(--text); font: 1rem/1.5 system-ui, sans-serif; }
h1 { margin: 0; font-size: 1.6rem; overflow-wrap: anywhere; }
h2 { margin: 2rem 0 .6rem; font-size: 1.15rem; }
h3 { margin: 0 0 .3rem; font-size: .95rem; overflow-wrap: anywhere; }
small, .soft { color: var(--soft); font-weight: normal; }
a { color: var(--link); }
p { margin: .2rem 0; }
.card { min-width: 0; padding: .9rem 1rem; background: var(--card); border: 1px solid var(--line);
  border-radius: .6rem; }
.tiles, .grid { display: grid; gap: .8rem; }
.tiles { grid-template-columns: repeat(auto-fill, minmax(9.5rem, 1fr)); margin-top: 1.2rem; }
.card > .soft { font-size: .85rem; margin-top: .5rem; }
.tiles b { display: block; font-size: 1.35rem; line-height: 1.3; }
.grid { grid-template-columns: repeat(auto-fill, minmax(min(100%, 21rem), 1fr)); }
.wide { grid-template-columns: repeat(auto-fill, minmax(min(100%, 28rem), 1fr)); }
.status { font-weight: 600; } .finished { color: var(--good); }
.failed, .interrupted, .problem { color: var(--bad); }
table { width: 100%; border-collapse: collapse; font-size: .92rem; }
th, td { padding: .3rem .5rem .3rem 0; border-bottom: 1px solid var(--line); text-align: left;
  vertical-align: top; overflow-wrap: anywhere; }
tr:last-child td { border-bottom: 0; }
td:first-child { min-width: 6.5rem; }
.numbers td:nth-child(n+2), .numbers th:nth-child(n+2) { text-align: right;
  font-variant-numeric: tabular-nums; }
figure { margin: 0; } figcaption { margin-bottom: .4rem; font-weight: 600; font-size: .95rem; }
figure img { display: block; max-width: 100%; margin: 0 auto; padding: .3rem; background: #fff;
  border-radius: .3rem; }
pre { margin: 0; overflow-x: auto; font: .82rem/1.45 ui-monospace, monospace; }
details { margin-top: .8rem; } summary { cursor: pointer; color: var(--link); }
details pre { margin-top: .6rem; }
"""


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
    title = escape(f"{run.experiment}/{run.run}")
    digest = base64.b64encode(hashlib.sha256(curves.SCRIPT.encode()).digest()).decode()
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
    policy += f"script-src 'sha256-{digest}'"
    body = [_head(run), _tiles(run), _metrics(run), _charts(run), _pictures(run)]
    body += [_configuration(run), _origin(run)]
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title}</title>\n<style>{_STYLE}{curves.STYLE}</style></head>\n<body>\n"
        + "\n".join(part for part in body if part)
        + f"\n<script>{curves.SCRIPT}</script>\n</body></html>\n"
    )


def _head(run: RunFiles) -> str:
    status = run.status if run.status in {*_STATUS, "finished"} else "unknown"
    workload = escape(str(run.summary.get("workload") or "unknown workload"))
    lines = f'<p class="{status}">{_STATUS[status]}</p>' if status in _STATUS else ""
    lines += "".join(f'<p class="problem">{escape(problem)}</p>' for problem in run.problems)
    return (
        f'<header><p class="soft">{escape(run.experiment)}</p><h1>{escape(run.run)}</h1>'
        f'<p>{workload}, <span class="status {status}">{status}</span></p>{lines}</header>'
    )


def _tiles(run: RunFiles) -> str:
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
    table = _table([["metric", *columns], *rows], "numbers")
    return f'<h2>Metrics</h2><div class="card">{table}{note if best else ""}</div>'


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


def _pictures(run: RunFiles) -> str:
    figures = []
    for path in run.pictures:
        name = escape(path.stem.replace("_", " "))
        content = path.read_bytes() if path.stat().st_size <= _LARGEST_PICTURE else b""
        kind, data = PICTURES[path.suffix.lower()], base64.b64encode(content).decode()
        picture = f'<img src="data:image/{kind};base64,{data}" alt="{name}">'
        shown = picture if content else _link(path, run.directory)
        figures.append(f'<figure class="card"><figcaption>{name}</figcaption>{shown}</figure>')
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
        "revision": f"{git['rev']}{dirty}" if git.get("rev") else None,
        "versions": ", ".join(f"{name} {v}" for name, v in run.section("versions").items()),
    }
    rows = [[name, str(value)] for name, value in facts.items() if value not in (None, "")]
    files = sorted(
        path
        for pattern in ("*.yaml", "*.json", "*.csv", "checkpoints/*.ckpt")
        for path in run.directory.glob(pattern)
    )
    links = ", ".join(_link(path, run.directory) for path in files)
    written = time.strftime("%Y-%m-%d %H:%M:%S %z")
    return (
        f'<h2>Where it comes from</h2><div class="card">{_table(rows)}</div>'
        f'<p>Files: {links}</p><p class="soft">Page written {written} by bimamba report.</p>'
    )


def _table(rows: Iterable[Sequence[str]], kind: str = "") -> str:
    """Rows of text; with a kind, the first one is the heading."""
    lines = []
    for i, row in enumerate(rows):
        tag = "th" if kind and i == 0 else "td"
        lines.append("<tr>" + "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in row) + "</tr>")
    return f'<table class="{kind}">{"".join(lines)}</table>'


def _link(path: Path, directory: Path) -> str:
    name = path.relative_to(directory).as_posix()
    return f'<a href="./{quote(name)}">{escape(name)}</a>'
