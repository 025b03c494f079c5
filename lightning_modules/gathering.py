"""Python objects of all processes in one list, for the files that the first process writes."""

from typing import TypeVar

import torch
from lightning.pytorch import Trainer

T = TypeVar("T")


def gathered(trainer: Trainer, items: list[T]) -> list[T]:
    """The items of all processes, in the order of the processes; every process has to call it."""
    if trainer.world_size == 1:
        return items
    parts: list[list[T]] = [[] for _ in range(trainer.world_size)]
    torch.distributed.all_gather_object(parts, items)
    return [item for part in parts for item in part]
