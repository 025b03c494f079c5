"""Point clouds as one HTML file to turn and compare: input, truth, prediction, gate side by side.

It needs no network and no graphics card. Coordinates are 16-bit numbers of the cloud's extent, an
instance is a 16-bit number: some 20 bytes a point, 0.5 MB a frame.
"""

import base64
import hashlib
import json
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from blocks.files import write_text
from lightning_modules.scannet.cloud_viewer_script import CONTROLS, SCRIPT, STYLE
from lightning_modules.scannet.shown_cloud import Array, Labelling, ShownCloud, colour_of

# More points of one cloud are thinned out evenly.
_MOST = 40_000
_LARGEST = 2**16 - 1


def write_cloud_page(path: Path, clouds: Sequence[ShownCloud], title: str) -> None:
    """Writes the page of some clouds.

    Args:
        path: Name of the page, .html.
        clouds: At least one.
        title: Of the page.
    """
    write_text(path, cloud_page(clouds, title))


def cloud_page(clouds: Sequence[ShownCloud], title: str) -> str:
    """The page as HTML."""
    # "<" would let a name end the element; JSON may spell it otherwise.
    data = json.dumps([_content(cloud) for cloud in clouds]).replace("<", "\\u003c")
    digest = base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style></head>\n<body>\n"
        f"<header><h1>{escape(title)}</h1></header>\n{CONTROLS}\n"
        f'<script type="application/json" id="clouds">{data}</script>\n'
        f"<script>{SCRIPT}</script>\n</body></html>\n"
    )


def _content(cloud: ShownCloud) -> dict[str, Any]:
    count = len(cloud.xyz)
    keep = np.linspace(0, count - 1, _MOST).astype(int) if count > _MOST else np.arange(count)
    xyz = cloud.xyz[keep].astype(np.float64)
    low = xyz.min(0)
    step = max(float((xyz.max(0) - low).max()), 1e-6) / _LARGEST
    modes: list[dict[str, Any]] = [{"name": "input", "rgb": _packed(cloud.rgb[keep], "u1")}]
    if cloud.truth is not None:
        modes.append({"name": "truth", **_instances(cloud.truth, keep)})
    modes.append({"name": "prediction", **_instances(cloud.prediction, keep)})
    if cloud.share is not None:
        heat = np.rint(255 * np.clip(cloud.share[keep], 0, 1))
        modes.append({"name": "gate", "heat": _packed(heat, "u1")})
    return {
        "name": cloud.name,
        "step": step,
        "heading": cloud.heading,
        "xyz": _packed(np.rint((xyz - low) / step), "<u2"),
        "modes": modes,
    }


def _instances(labelling: Labelling, keep: Array) -> dict[str, Any]:
    """Numbers of the points, 0 for none, with names and colours from 1."""
    return {
        "ids": _packed(labelling.number[keep] + 1, "<u2"),
        "names": ["", *labelling.names],
        "palette": [[128, 128, 128], *(list(colour_of(c)) for c in labelling.colours)],
    }


def _packed(values: Array, kind: str) -> str:
    return base64.b64encode(np.ascontiguousarray(values.astype(kind)).tobytes()).decode()
