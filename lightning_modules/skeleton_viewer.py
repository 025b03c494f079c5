"""Moving bodies as one HTML file that plays, turns and compares them; it needs no network.

Coordinates are stored as 16-bit numbers, 102 bytes a pose of 17 joints, so that ten minutes at 50
frames per second are 4 MB; their step is the clip's extent over 65 534, less than 0.1 mm where a
body stays in place.
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
from lightning_modules.skeleton_clip import Array, SkeletonClip
from lightning_modules.skeleton_viewer_script import CONTROLS, SCRIPT, STYLE

_LARGEST = 2**15 - 1


def write_viewer(path: Path, clips: Sequence[SkeletonClip], title: str) -> None:
    """Writes the page of some clips.

    Args:
        path: Name of the page, .html.
        clips: At least one, all in one unit. Shown a scene at a time, or all side by side with
            frame numbers that belong together, as of several people in one video.
        title: Of the page.
    """
    write_text(path, viewer_page(clips, title))


def viewer_page(clips: Sequence[SkeletonClip], title: str) -> str:
    """The page as HTML."""
    # "<" would let a name end the element; JSON may spell it otherwise.
    data = json.dumps([_content(clip) for clip in clips]).replace("<", "\\u003c")
    digest = base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style></head>\n<body>\n"
        f'<header><h1>{escape(title)}</h1><p id="caption">{escape(clips[0].caption)}</p></header>\n'
        f"{CONTROLS}\n"
        f'<script type="application/json" id="clips">{data}</script>\n'
        f"<script>{SCRIPT}</script>\n</body></html>\n"
    )


def _content(clip: SkeletonClip) -> dict[str, Any]:
    skeleton = clip.skeleton
    largest = max(float(np.abs(p).max()) for p in (clip.joints, clip.truth) if p is not None)
    step = (largest or 1.0) / _LARGEST
    sides = dict.fromkeys(skeleton.left, "left") | dict.fromkeys(skeleton.right, "right")
    contacts = None
    if clip.contacts is not None:
        contacts = ["".join("1" if flag else "0" for flag in row) for row in clip.contacts.T]
    return {
        "name": clip.name,
        "scene": clip.scene or clip.name,
        "caption": clip.caption,
        "unit": clip.unit,
        "fps": clip.fps,
        "step": step,
        "root": skeleton.root,
        "bones": [[parent, child, sides.get(child, "middle")] for parent, child in skeleton.bones],
        "floor": clip.floor,
        "travels": clip.travels,
        "feet": clip.feet,
        "contacts": contacts,
        "facts": dict(clip.facts),
        "poses": _packed(clip.joints, step),
        "truth": None if clip.truth is None else _packed(clip.truth, step),
    }


def _packed(joints: Array, step: float) -> str:
    """Coordinates as little-endian 16-bit numbers in base64."""
    return base64.b64encode(np.rint(joints / step).astype("<i2").tobytes()).decode()
