"""Pages of HTML: their look, their frame, and the pieces that pages of runs and reports share."""

import base64
import hashlib
import os
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from urllib.parse import quote

from bimamba import curves
from bimamba.formats import short
from bimamba.run_files import PICTURES

# A larger picture is linked, so that a page can still be sent by mail.
LARGEST_PICTURE = 3_000_000

STYLE = """
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
.scroll { overflow-x: auto; } .scroll td { white-space: nowrap; }
.scroll th, .scroll td { overflow-wrap: normal; }
.scroll td:last-child { white-space: normal; min-width: 12rem; }
ul.card { margin: 0; padding-left: 2.2rem; }
figure { margin: 0; } figcaption { margin-bottom: .4rem; font-weight: 600; font-size: .95rem; }
figure img { display: block; max-width: 100%; margin: 0 auto; padding: .3rem; background: #fff;
  border-radius: .3rem; }
pre { margin: 0; overflow-x: auto; font: .82rem/1.45 ui-monospace, monospace; }
details { margin-top: .8rem; } summary { cursor: pointer; color: var(--link); }
details pre { margin-top: .6rem; }
"""


def document(title: str, body: Iterable[str]) -> str:
    """A whole page that loads nothing and runs only the script of its charts.

    Args:
        title: Text.
        body: HTML, part after part; empty ones are left out.
    """
    digest = base64.b64encode(hashlib.sha256(curves.SCRIPT.encode()).digest()).decode()
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
    policy += f"script-src 'sha256-{digest}'"
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}{curves.STYLE}</style></head>\n<body>\n"
        + "\n".join(part for part in body if part)
        + f"\n<script>{curves.SCRIPT}</script>\n</body></html>\n"
    )


def table_html(rows: Iterable[Sequence[str]], kind: str = "") -> str:
    """Rows of text; with a kind, the first one is the heading."""
    lines = []
    for i, row in enumerate(rows):
        tag = "th" if kind and i == 0 else "td"
        lines.append("<tr>" + "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in row) + "</tr>")
    return f'<table class="{kind}">{"".join(lines)}</table>'


def link(path: Path, start: Path) -> str:
    """A link that holds where page and file move together.

    Args:
        path: The file.
        start: Folder of the page.
    """
    name = Path(os.path.relpath(path, start)).as_posix()
    return f'<a href="./{quote(name)}">{escape(name)}</a>'


def picture(path: Path, start: Path) -> str:
    """A picture with its name above it, inside the page unless it is large.

    Args:
        path: The file.
        start: Folder of the page.
    """
    name = escape(path.stem.replace("_", " "))
    content = path.read_bytes() if path.stat().st_size <= LARGEST_PICTURE else b""
    kind, data = PICTURES[path.suffix.lower()], base64.b64encode(content).decode()
    inside = f'<img src="data:image/{kind};base64,{data}" alt="{name}">'
    shown = inside if content else link(path, start)
    return f'<figure class="card"><figcaption>{name}</figcaption>{shown}</figure>'


def cell_text(text: str) -> str:
    """A cell of a CSV file for a reader: fractions with four digits.

    Args:
        text: As in the file.
    """
    try:
        return short(float(text)) if "." in text else text
    except ValueError:
        return text
