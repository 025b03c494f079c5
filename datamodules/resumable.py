"""A datamodule whose training order goes on where a checkpoint left it.

The checkpoint keeps the epoch and the samples seen in it by all processes together, so that the
order survives another number of workers and of processes.
"""

from collections.abc import Callable
from typing import Any

import torch
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader

from datamodules.sampling import EvalSampler, SeededDataset, TrainSampler, global_seed


class ResumableDataModule(LightningDataModule):
    """Base of datamodules that train with a `TrainSampler`; hand each new one to `resumed`.

    Args:
        num_workers: Loader processes per training process.
        pin_memory: Page-locked batches, for faster copies to a CUDA device.
    """

    def __init__(self, num_workers: int, pin_memory: bool) -> None:
        super().__init__()
        self.num_workers, self.pin_memory = num_workers, pin_memory
        self._samples_per_step = 0
        self._position: tuple[int, int] | None = None

    def resumed(self, sampler: TrainSampler, batch_size: int) -> TrainSampler:
        """Sets a new sampler to the restored position, if there is one.

        Args:
            sampler: Training order of this process.
            batch_size: Samples that this process takes from it at each step.
        """
        self._samples_per_step = batch_size * sampler.num_replicas
        if self._position is not None:
            sampler.resume(*self._position)
        return sampler

    def state_dict(self) -> dict[str, Any]:
        """Epoch and samples seen in it; a whole epoch is none of the next one."""
        if self.trainer is None or not self._samples_per_step:
            return {}
        loop: Any = self.trainer.fit_loop
        # Processed: the optimiser has stepped, even where the batch's last hooks are still to come.
        batches = loop.epoch_loop.batch_progress.current.processed
        epoch = loop.epoch_progress.current.started - 1
        if batches >= self.trainer.num_training_batches:
            epoch, batches = epoch + 1, 0
        return {"epoch": epoch, "samples": batches * self._samples_per_step}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Remembers the position for the next training order."""
        self._position = state_dict["epoch"], state_dict["samples"]

    def _loader(
        self,
        reader: Any,
        transform: Callable[..., Any],
        sampler: TrainSampler | EvalSampler,
        batch_size: int,
        drop_last: bool = False,
    ) -> DataLoader[dict[str, Any]]:
        return DataLoader(
            SeededDataset(reader, transform, global_seed()),
            batch_size=batch_size,
            sampler=sampler,
            num_workers=self.num_workers,
            drop_last=drop_last,
            pin_memory=self.pin_memory and torch.cuda.is_available(),
            persistent_workers=self.num_workers > 0,
        )

    def _place(self) -> tuple[int, int]:
        """Rank and number of processes; a datamodule without a Trainer is alone."""
        if self.trainer is None:
            return 0, 1
        return self.trainer.global_rank, self.trainer.world_size
