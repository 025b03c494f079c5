"""A datamodule whose training order goes on where a checkpoint left it.

The checkpoint keeps the epoch and the samples seen in it by all processes together, so that the
order survives another number of workers and of processes.
"""

from typing import Any

from lightning.pytorch import LightningDataModule

from datamodules.sampling import TrainSampler


class ResumableDataModule(LightningDataModule):
    """Base of datamodules that train with a `TrainSampler`; hand each new one to `resumed`."""

    def __init__(self) -> None:
        super().__init__()
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
