"""Batches of several datamodules, side by side: what `CoTraining` trains on.

Training: {head: batch of its data}, as many steps an epoch as the largest data set has batches, or
as `steps` says. Evaluation: the same, with None for a head whose data has ended; every sample of
every set comes exactly once.
"""

from dataclasses import dataclass
from typing import Any, cast

from lightning.pytorch import LightningDataModule
from lightning.pytorch.utilities import CombinedLoader
from torch.utils.data import DataLoader
from torch.utils.data.distributed import DistributedSampler

from blocks.errors import SuiteError
from datamodules.info import DataInfo, digest
from datamodules.joint_sampler import JointSampler
from datamodules.sampling import Draw


@dataclass(frozen=True)
class CoTrainingInfo(DataInfo):
    """Facts about the data of all heads.

    Args:
        heads: Facts about the data of each.
    """

    heads: dict[str, DataInfo]


class CoTrainingDataModule(LightningDataModule):
    """Joins datamodules.

    Args:
        heads: Datamodules by the name of the head that they serve.
        steps: Steps of an epoch; `null` = batches of the largest set. Every set goes on where the
            epoch before left it, in epochs of its own.
    """

    def __init__(self, heads: dict[str, LightningDataModule], steps: int | None = None) -> None:
        super().__init__()
        if steps is not None and steps < 1:
            raise SuiteError(
                expected="at least one step an epoch",
                found=str(steps),
                where="data.init_args.steps",
                cure="leave it out to see the largest set once an epoch",
            )
        self.heads, self.steps = heads, steps
        self._position: tuple[int, int] | None = None

    @property
    def info(self) -> CoTrainingInfo:
        """Facts about the data of the current stage."""
        parts: dict[str, DataInfo] = {name: part.info for name, part in self._parts()}
        return CoTrainingInfo(
            batch_size=sum(part.batch_size for part in parts.values()),
            protocol="; ".join(f"{name}: {part.protocol}" for name, part in parts.items()),
            root=", ".join(part.root for part in parts.values()),
            synthetic=any(part.synthetic for part in parts.values()),
            hash=digest(f"{name} {part.hash}" for name, part in parts.items()),
            heads=parts,
        )

    def prepare_data(self) -> None:
        """Lets each datamodule fetch or generate its data."""
        for part in self.heads.values():
            part.prepare_data()

    def setup(self, stage: str) -> None:
        """Lets each datamodule read its data."""
        for part in self.heads.values():
            part.trainer = self.trainer
            part.setup(stage)

    def train_dataloader(self) -> CombinedLoader:
        """As many batches of every set."""
        loaders = {name: part.train_dataloader() for name, part in self._parts()}
        steps = self.steps or max(len(loader) for loader in loaders.values())
        joined = {name: self._joined(name, loader, steps) for name, loader in loaders.items()}
        return CombinedLoader(joined, "min_size")

    def val_dataloader(self) -> CombinedLoader:
        """Every sample once; None for a set that has ended."""
        return CombinedLoader({n: p.val_dataloader() for n, p in self._parts()}, "max_size")

    def test_dataloader(self) -> CombinedLoader:
        """Every sample once; None for a set that has ended."""
        return CombinedLoader({n: p.test_dataloader() for n, p in self._parts()}, "max_size")

    def state_dict(self) -> dict[str, Any]:
        """Epoch and steps taken in it; a whole epoch is none of the next one."""
        if self.trainer is None:
            return {}
        loop: Any = self.trainer.fit_loop
        steps = loop.epoch_loop.batch_progress.current.processed
        epoch = loop.epoch_progress.current.started - 1
        if steps >= self.trainer.num_training_batches:
            epoch, steps = epoch + 1, 0
        return {"epoch": epoch, "steps": steps}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Remembers the position for the next training order."""
        self._position = state_dict["epoch"], state_dict["steps"]

    def _parts(self) -> list[tuple[str, Any]]:
        return list(self.heads.items())

    def _joined(self, name: str, loader: Any, steps: int) -> DataLoader[Any]:
        """The loader of a set with the joint number of steps an epoch."""
        sampler = getattr(loader, "sampler", None)
        if not isinstance(sampler, DistributedSampler) or not loader.batch_size or not len(loader):
            raise SuiteError(
                expected="training data by number, with at least one batch",
                found=f"{type(loader).__name__}, {type(getattr(loader, 'dataset', None)).__name__}",
                where=f"data.init_args.heads.{name}",
                cure="use folders or indexed shards rather than a stream, and a batch_size that "
                "the set can fill",
            )
        joint = JointSampler(cast("DistributedSampler[Draw]", sampler), loader.batch_size, steps)
        if self._position is not None:
            joint.resume(*self._position)
        return DataLoader(
            loader.dataset,
            batch_size=loader.batch_size,
            sampler=joint,
            num_workers=loader.num_workers,
            collate_fn=loader.collate_fn,
            pin_memory=loader.pin_memory,
            drop_last=True,
            persistent_workers=loader.persistent_workers,
        )
