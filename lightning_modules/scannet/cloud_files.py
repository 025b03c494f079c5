"""Point clouds as binary PLY, which MeshLab, CloudCompare, Blender and Open3D read."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from blocks.files import atomic_path
from lightning_modules.scannet.shown_cloud import Array, ShownCloud

_TYPES = {"float32": "float", "uint8": "uchar", "int32": "int"}


def write_ply(path: Path, xyz: Array, rgb: Array, extra: Mapping[str, Array] | None = None) -> None:
    """Writes a cloud.

    Args:
        path: Name of the file, .ply.
        xyz: (P, 3), metres.
        rgb: (P, 3) uint8.
        extra: Further numbers of each point by name, (P,), float32, uint8 or int32.
    """
    columns = {name: xyz[:, i].astype(np.float32) for i, name in enumerate("xyz")}
    columns |= {name: rgb[:, i] for i, name in enumerate(("red", "green", "blue"))}
    columns |= extra or {}
    rows = np.empty(len(xyz), [(name, f"<{x.dtype.str[1:]}") for name, x in columns.items()])
    for name, values in columns.items():
        rows[name] = values
    properties = "".join(f"property {_TYPES[str(x.dtype)]} {n}\n" for n, x in columns.items())
    head = (
        f"ply\nformat binary_little_endian 1.0\nelement vertex {len(xyz)}\n{properties}end_header\n"
    )
    with atomic_path(path) as temporary:
        temporary.write_bytes(head.encode() + rows.tobytes())


def write_clouds(folder: Path, name: str, cloud: ShownCloud) -> None:
    """Writes `<name>_<mode>.ply` for every way to look at a cloud.

    Args:
        folder: Where to.
        name: Beginning of the files' names.
        cloud: What to write; instances also go into a property `instance`, -1 for none.
    """
    for mode, rgb in cloud.modes().items():
        labelling = {"prediction": cloud.prediction, "truth": cloud.truth}.get(mode)
        extra = {} if labelling is None else {"instance": labelling.number.astype(np.int32)}
        if mode == "gate" and cloud.share is not None:
            extra["share"] = cloud.share.astype(np.float32)
        write_ply(folder / f"{name}_{mode}.ply", cloud.xyz, rgb, extra)
