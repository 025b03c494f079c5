"""Steps of a check that look at data: is it there, and can it be read?"""

import random
from collections.abc import Hashable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.utilities import CombinedLoader
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from bimamba.folders import short
from bimamba.preflight.case import Case
from blocks.errors import SuiteError
from datamodules.inspection import Inspectable, Remark

_SAMPLE = 64


def data(case: Case) -> str:
    """Prepares the data for `fit` and counts it.

    Raises:
        SuiteError: Missing, incomplete or empty.
    """
    datamodule = case.cli.datamodule
    datamodule.prepare_data()
    datamodule.setup("fit")
    counts = []
    for split, loader in loaders(case):
        batches = length(loader)
        if batches == 0:
            raise SuiteError(
                expected=f"at least one {split} batch",
                found=f"none from {length(loader.dataset)} samples",
                where=f"{type(datamodule).__name__}.{split}_dataloader",
                cure="lower data.init_args.batch_size, or complete the data",
            )
        counts.append(f"{split} {length(loader.dataset)} samples in {batches} batches")
    info = getattr(datamodule, "info", None)
    if classes := getattr(info, "class_names", None):
        counts.append(f"{len(classes)} classes")
    if root := getattr(info, "root", None):
        embedded = " (embedded)" if getattr(info, "synthetic", False) else ""
        counts.append(f"from {short(Path(root))}{embedded}")
    return ", ".join(counts)


def samples(case: Case) -> str:
    """Reads one batch of each split, and some more samples at random.

    A data set that can be inspected is asked what it finds in a part of its files, too.

    Raises:
        SuiteError: A sample cannot be read, or a batch holds numbers that are not finite.
    """
    _inspect(case)
    shown, read = "", 0
    for split, loader in loaders(case):
        batch = next(iter(loader))
        if wrong := [name for name, value in _floats(batch) if not value.isfinite().all()]:
            raise SuiteError(
                expected=f"finite numbers in the first {split} batch",
                found=f"NaN or infinity in {', '.join(wrong)}",
                where=type(case.cli.datamodule).__name__,
                cure="look for damaged files, and for a std of 0 among data.init_args",
            )
        shown = shown or describe(batch)
        for key in some_keys(loader):
            loader.dataset[key]
            read += 1
    return f"{shown}; {read} more drawn at random"


def loaders(case: Case) -> Iterator[tuple[str, Any]]:
    """Name and loader of the splits that `fit` reads."""
    datamodule, trainer = case.cli.datamodule, case.cli.trainer
    splits = [("train", datamodule.train_dataloader)]
    if trainer.limit_val_batches != 0:
        splits.append(("val", datamodule.val_dataloader))
    for split, make in splits:
        made = make()
        combined = made if isinstance(made, CombinedLoader) else CombinedLoader(made)
        for loader in combined.flattened:
            yield split, loader


def some_keys(loader: Any, number: int = _SAMPLE) -> list[Hashable]:
    """Keys of samples drawn at random from a loader's order; none where it has no order.

    Args:
        loader: A DataLoader, or anything else that is iterable.
        number: How many at most.
    """
    if not isinstance(loader, DataLoader) or isinstance(loader.dataset, IterableDataset):
        return []
    keys = list(loader.sampler)
    return random.Random(0).sample(keys, min(number, len(keys)))


def describe(batch: Any) -> str:
    """Names, shapes and types of a batch's tensors."""
    if not isinstance(batch, Mapping):
        return type(batch).__name__
    parts = [
        f"{name} {tuple(value.shape)} {str(value.dtype).removeprefix('torch.')}"
        for name, value in batch.items()
        if isinstance(value, Tensor)
    ]
    return ", ".join(islice(parts, 6)) + (", ..." if len(parts) > 6 else "")


def length(sized: Any) -> int | str:
    """Number of items, or `?` of a stream."""
    try:
        return len(sized)
    except (TypeError, NotImplementedError):
        return "?"


def _inspect(case: Case) -> None:
    """Lets the data set say what is wrong with it: the first error ends the step.

    Raises:
        SuiteError: It found an error.
    """
    datamodule: Any = case.cli.datamodule
    if not isinstance(datamodule, Inspectable):
        return
    for remark in datamodule.validate(sample=_SAMPLE):
        if isinstance(remark, Remark) and remark.level == "error":
            raise SuiteError(
                expected=remark.expected,
                found=remark.found,
                where=remark.where,
                cure=f"{remark.cure}; bimamba data validate finds all such errors",
            )
        if isinstance(remark, Remark) and remark.level == "warning":
            case.warn(f"{remark.where}: {remark.found}; cure: {remark.cure}")


def _floats(batch: Any, name: str = "batch") -> Iterator[tuple[str, Tensor]]:
    if isinstance(batch, Tensor):
        if torch.is_floating_point(batch):
            yield name, batch
    elif isinstance(batch, Mapping):
        for key, value in batch.items():
            yield from _floats(value, str(key))
    elif isinstance(batch, list | tuple):
        for value in batch:
            yield from _floats(value, name)
