"""The architecture of a network as nested boxes, from `network.json` of its run."""

import json
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

from bimamba.formats import short

# Parts of parts beyond this depth are left to the table of parameters.
_DEPTH = 4
STYLE = """
<style>.box { border: 1px solid var(--line); border-radius: .4rem; padding: .3rem .5rem;
  margin: .25rem 0; font-size: .85rem;
  background: color-mix(in srgb, var(--link) 4%, var(--card)); }
.box .row { display: flex; flex-wrap: wrap; gap: .3rem; } .box .row > .box { flex: 0 1 auto; }
.box b { font-weight: 600; } .times { color: var(--link); font-weight: 600; }</style>
"""


def diagram(directory: Path) -> str:
    """HTML of the boxes; empty for a run without the file, of an older version.

    Args:
        directory: The run directory.
    """
    try:
        tree = json.loads((directory / "network.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return ""
    return STYLE + _box("", tree, _DEPTH)


def outline(directory: Path) -> list[str]:
    """The same as lines of text, indented; for Markdown.

    Args:
        directory: The run directory.
    """
    try:
        tree = json.loads((directory / "network.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    return list(_lines("", tree, 0))


def _box(name: str, tree: Mapping[str, Any], depth: int) -> str:
    parts = tree.get("parts") or []
    inner = ""
    if parts and depth > 0:
        boxes = "".join(_box(str(part.get("name")), part, depth - 1) for part in parts)
        leaves = all(not part.get("parts") for part in parts)
        inner = f'<div class="row">{boxes}</div>' if leaves else boxes
    return f'<div class="box">{_label(name, tree)}{inner}</div>'


def _label(name: str, tree: Mapping[str, Any]) -> str:
    times = int(tree.get("times") or 1)
    many = f' <span class="times">{times} x</span>' if times > 1 else ""
    size = f' <span class="soft">{short(tree["params"])}</span>' if tree.get("params") else ""
    kind = escape(str(tree.get("class")))
    return f"<b>{escape(name)}</b>{many} {kind}{size}" if name else f"<b>{kind}</b>{size}"


def _lines(name: str, tree: Mapping[str, Any], level: int) -> list[str]:
    times = int(tree.get("times") or 1)
    many = f"{times} x " if times > 1 else ""
    size = f", {short(tree['params'])}" if tree.get("params") else ""
    title = f"{name}: " if name else ""
    found = [f"{'  ' * level}- {title}{many}{tree.get('class')}{size}"]
    if level < _DEPTH:
        for part in tree.get("parts") or []:
            found += _lines(str(part.get("name")), part, level + 1)
    return found
