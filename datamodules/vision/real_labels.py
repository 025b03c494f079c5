"""ReaL: every class that each of ImageNet's 50,000 validation images shows (arXiv 2006.07159).

The labels of google-research/reassessed-imagenet come with timm, in the order of the images' names.
"""

import importlib.util
import json
import re
from pathlib import Path

import numpy as np
import numpy.typing as npt

from blocks.errors import SuiteError
from datamodules.vision.image_sources import ImageSource

_LABELS = "data/_info/imagenet_real_labels.json"
_NAME = re.compile(r"ILSVRC2012_val_(\d{8})")
_CLASSES = 1000


def real_labels_of(source: ImageSource, num_classes: int) -> npt.NDArray[np.int64]:
    """ReaL's labels of validation images.

    Args:
        source: The images; their names tell which they are. A part of the 50,000 will do.
        num_classes: Number of classes of the data set.

    Returns:
        Class indices of shape (N, R), each row padded with -1; rows of -1 alone belong to images
        that no annotator could name.

    Raises:
        SuiteError: Another data set, or images under other names.
    """
    labels = _reassessed()
    width = max(len(row) for row in labels)
    table = np.full((len(labels), width), -1, dtype=np.int64)
    for row, classes in zip(table, labels, strict=True):
        row[: len(classes)] = classes
    matches = [_NAME.search(source.file_name(index)) for index in range(len(source))]
    numbers = [int(match[1]) if match else 0 for match in matches]
    strangers = [i for i, number in enumerate(numbers) if not 0 < number <= len(labels)]
    if strangers or num_classes != _CLASSES:
        found = f"{num_classes} classes"
        if strangers:
            found += f"; {len(strangers)} other names, such as {source.name(strangers[0])}"
        raise SuiteError(
            expected=f"validation images of ILSVRC 2012, ILSVRC2012_val_*.JPEG, in {_CLASSES} "
            "classes",
            found=found,
            where="data.init_args.real_labels",
            cure="set it to false; ReaL knows no other images",
        )
    return table[np.array(numbers, dtype=np.int64) - 1]


def _reassessed() -> list[list[int]]:
    found = importlib.util.find_spec("timm")  # Importing timm would take seconds.
    assert found is not None and found.origin is not None
    path = Path(found.origin).parent / _LABELS
    if not path.is_file():
        raise SuiteError(
            expected="ReaL's labels among timm's files",
            found="no such file",
            where=str(path),
            cure="pip install --force-reinstall 'timm>=1.0.20'",
        )
    labels: list[list[int]] = json.loads(path.read_text("utf-8"))
    return labels
