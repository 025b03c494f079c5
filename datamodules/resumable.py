"""What datamodules share: facts, loaders, and an order that goes on where a checkpoint left it.

The checkpoint keeps the epoch and the samples seen in it by all processes together, so that the
order survives another number of workers and of processes.
"""

from collections.abc import Callable
from typing import Any, Generic, TypeVar

import torch
from lightning.pytorch import LightningDataModule
from lightning.pytorch.utilities import rank_zero_warn
from torch.utils.data import DataLoader

from blocks.errors import SuiteError
from datamodules.info import DataInfo
from datamodules.sampling import EvalSampler, SeededDataset, TrainSampler, global_seed

Batch = dict[str, Any]
Info = TypeVar("Info", bound=DataInfo)


class ResumableDataModule(LightningDataModule, Generic[Info]):
    """Base of datamodules; `setup` sets `_info`.

    Training goes through `_train_loader`, or hands a sampler of its own to `resumed`. Evaluation
    goes through `_eval_loader`; `test` and `predict` see what `validate` sees.

    Args:
        num_workers: Loader processes per training process.
        pin_memory: Page-locked batches, for faster copies to a CUDA device.
    """

    def __init__(self, num_workers: int, pin_memory: bool) -> None:
        super().__init__()
        self.num_workers, self.pin_memory = num_workers, pin_memory
        self._info: Info | None = None
        self._samples_per_step = 0
        self._position: tuple[int, int] | None = None

    @property
    def info(self) -> Info:
        """Facts about the data of the current stage."""
        if self._info is None:
            raise SuiteError(
                expected="a datamodule that knows its data",
                found="info asked for before setup",
                where=type(self).__name__,
                cure="call prepare_data() and setup('fit') first, or let a Trainer do it",
            )
        return self._info

    def test_dataloader(self) -> DataLoader[Batch]:
        """What `val_dataloader` gives."""
        loader: DataLoader[Batch] = self.val_dataloader()
        return loader

    def predict_dataloader(self) -> DataLoader[Batch]:
        """What `val_dataloader` gives."""
        loader: DataLoader[Batch] = self.val_dataloader()
        return loader

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

    def _train_loader(
        self,
        reader: Any,
        transform: Callable[..., Any],
        batch_size: int,
        noun: str,
        *,
        repeats: int = 1,
        even: bool = False,
        collate: Callable[..., Batch] | None = None,
    ) -> DataLoader[Batch]:
        """Shuffled batches of equal size.

        Args:
            reader: Samples by number.
            transform: What becomes of a sample.
            batch_size: Samples per process and step; a smaller set is one batch, with a warning.
            noun: What a sample is, in the plural.
            repeats: Copies of each drawn sample.
            even: Whether that one batch must have an even number of samples.
            collate: Makes a batch of samples; None stacks them.
        """
        rank, world = self._place()
        sampler = TrainSampler(
            len(reader), seed=global_seed(), rank=rank, world=world, repeats=repeats
        )
        size = batch_size
        if len(sampler) < batch_size:
            size = max(len(sampler) // 2 * 2 if even else len(sampler), 1)
            rank_zero_warn(
                f"The training set has {len(sampler)} {noun} for each process, fewer than "
                f"batch_size {batch_size}: an epoch is one batch of {size}. The learning rate "
                "keeps following batch_size."
            )
        sampler = self.resumed(sampler, size)
        return self._loader(reader, transform, sampler, size, drop_last=True, collate=collate)

    def _eval_loader(
        self,
        reader: Any,
        transform: Callable[..., Any],
        batch_size: int,
        noun: str,
        *,
        collate: Callable[..., Batch] | None = None,
    ) -> DataLoader[Batch]:
        """Every sample once, in order.

        Args:
            reader: Samples by number.
            transform: What becomes of a sample.
            batch_size: Samples per process and step.
            noun: What a sample is, in the plural.
            collate: Makes a batch of samples; None stacks them.
        """
        rank, world = self._place()
        if len(reader) < world:
            # A process without a batch would skip the loop in which the others wait for it.
            raise SuiteError(
                expected=f"at least {world} {noun}, one for each process",
                found=f"{len(reader)}",
                where=self.info.root,
                cure="evaluate on fewer devices",
            )
        sampler = EvalSampler(len(reader), rank=rank, world=world)
        return self._loader(reader, transform, sampler, batch_size, collate=collate)

    def _loader(
        self,
        reader: Any,
        transform: Callable[..., Any],
        sampler: TrainSampler | EvalSampler,
        batch_size: int,
        drop_last: bool = False,
        collate: Callable[..., Batch] | None = None,
    ) -> DataLoader[Batch]:
        return DataLoader(
            SeededDataset(reader, transform, global_seed()),
            batch_size=batch_size,
            sampler=sampler,
            num_workers=self.num_workers,
            drop_last=drop_last,
            collate_fn=collate,
            pin_memory=self.pin_memory and torch.cuda.is_available(),
            persistent_workers=self.num_workers > 0,
        )

    def _place(self) -> tuple[int, int]:
        """Rank and number of processes; a datamodule without a Trainer is alone."""
        if self.trainer is None:
            return 0, 1
        return self.trainer.global_rank, self.trainer.world_size
