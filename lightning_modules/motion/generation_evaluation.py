"""Judges what a text-to-motion module generates, during training and at its end.

In each evaluation the same captions get the same noise (common random numbers), so that two epochs
or two networks differ by their weights alone. Ground truth goes the same way, through the same
evaluator, and its row comes first: without it no figure means anything.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn

from lightning_modules.motion.generation_metrics import ProtocolRecord, replicated
from lightning_modules.motion.generation_round import (
    PUBLISHED,
    WHILE_TRAINING,
    GenerationProtocol,
    GenerationRound,
)
from lightning_modules.motion.generation_table import score_lines, write_scores
from lightning_modules.motion.motion_judge import MotionJudge
from lightning_modules.workload import Workload

# What the official evaluator says of the test split of HumanML3D itself, and how far one may be.
_OFFICIAL_R1, _TOLERANCE, _OFFICIAL_FID = 0.511, 0.01, 0.005


class GenerationEvaluation(Callback):
    """Logs FID, R-precision, MM-Dist, Diversity and MultiModality, and those of ground truth.

    `val/fid`, `val/r_precision_1` to `3`, the same with `_captions` where motion of an equal
    caption counts as right, `val/mm_dist`, `val/diversity`, `val/multimodality`; ground truth as
    `val_gt/...`; in `test` also half widths of 95 % intervals, `test/..._ci95`. Writes
    `generation_{val,test}.csv`, and the protocol into `summary.json`.

    Args:
        evaluator: File of the evaluator, or a folder with one inside.
        every_epochs: Epochs between evaluations while training; the last epoch always has one. In
            between the last figures stand.
        val: How much is generated while training and in `validate`.
        test: The same in `test`; by default as published.
        seed: Of the noise.
    """

    def __init__(
        self,
        evaluator: str,
        every_epochs: int = 1,
        val: GenerationProtocol = WHILE_TRAINING,
        test: GenerationProtocol = PUBLISHED,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.evaluator, self.every_epochs, self.seed = evaluator, every_epochs, seed
        self.protocols = {"val": val, "test": test}
        self.judge: MotionJudge | None = None
        self.last: dict[str, float] = {}
        self._round: GenerationRound | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """The evaluator is read anew, for the data may be other."""
        self.judge = None

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begins, if it is time."""
        self._round = None
        if not trainer.sanity_checking and self._due(trainer):
            self._begin(trainer, pl_module, "val", trainer.num_val_batches, trainer.val_dataloaders)

    def on_test_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begins."""
        self._begin(trainer, pl_module, "test", trainer.num_test_batches, trainer.test_dataloaders)

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Embeds a batch, and what is generated for it."""
        if self._round is not None:
            self._round.take(pl_module, batch)

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Embeds a batch, and what is generated for it."""
        if self._round is not None:
            self._round.take(pl_module, batch)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Logs the figures."""
        if trainer.sanity_checking:
            return
        if self._round is not None:
            self.last = self._finish(trainer, pl_module, "val")
        _log(pl_module, self.last)

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Logs the figures."""
        _log(pl_module, self._finish(trainer, pl_module, "test"))

    def state_dict(self) -> dict[str, Any]:
        """The last figures, which stand until the next evaluation."""
        return {"last": self.last}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Goes on with them."""
        self.last = state_dict["last"]

    def _due(self, trainer: Trainer) -> bool:
        epoch = trainer.current_epoch + 1
        training = trainer.state.fn == "fit"
        return (
            not training
            or not self.last
            or epoch % self.every_epochs == 0
            or epoch == trainer.max_epochs
        )

    def _begin(
        self,
        trainer: Trainer,
        module: LightningModule,
        stage: str,
        batches: list[int | float],
        loaders: Any,
    ) -> None:
        assert isinstance(module, Workload)
        if self.judge is None:
            self.judge = MotionJudge.load(self.evaluator, module.info)
        self.judge.to(module.device)
        loader = loaders[0] if isinstance(loaders, list | tuple) else loaders
        # What is left out by limit_val_batches cannot be chosen.
        seen = batches[0] * (loader.batch_size or 1) * trainer.world_size
        size = int(min(seen, len(loader.dataset)))
        self._round = GenerationRound(self.judge, self.protocols[stage], size, self.seed)

    def _finish(self, trainer: Trainer, module: LightningModule, stage: str) -> dict[str, float]:
        assert self._round is not None and self.judge is not None and isinstance(module, Workload)
        done, self._round = self._round, None
        truth, generated = done.scores()
        record = ProtocolRecord(
            n_real=done.counts[0],
            n_generated=done.counts[1],
            replications=done.protocol.replications,
            evaluator=self.judge.hash,
            statistics=self.judge.statistics_hash,
            several=done.several_counts,
        )
        module.info["protocol"] = f"{_before(module.info.get('protocol'))}{record}"
        rows = {"ground truth": replicated(truth), "generated": replicated(generated)}
        if trainer.is_global_zero and not getattr(trainer, "fast_dev_run", False):
            path = Path(trainer.default_root_dir) / f"generation_{stage}.csv"
            write_scores(path, rows, record)
        if trainer.state.fn != "fit":
            rank_zero_info("\n".join([f"{stage}: {record}", *score_lines(rows)]))
        if self.judge.foreign and stage == "test":
            _compare_with_published(rows["ground truth"], module.info)
        return _named(rows, stage, stage == "test" and record.replications > 1)


def _log(module: LightningModule, values: Mapping[str, float]) -> None:
    # Equal on all processes: everything was gathered.
    module.log_dict(dict(values), on_step=False, on_epoch=True, batch_size=1)


def _named(
    rows: Mapping[str, Mapping[str, tuple[float, float]]], stage: str, intervals: bool
) -> dict[str, float]:
    """Figures by the names under which they are logged, with their intervals if asked."""
    named: dict[str, float] = {}
    for prefix, row in ((f"{stage}_gt", "ground truth"), (stage, "generated")):
        for name, (mean, half) in rows[row].items():
            named[f"{prefix}/{name}"] = mean
            if intervals:
                named[f"{prefix}/{name}_ci95"] = half
    return named


def _before(protocol: object) -> str:
    """The data's own protocol, without what an earlier evaluation added."""
    own = str(protocol or "").split("; generation: ")[0]
    return f"{own}; generation: "


def _compare_with_published(
    truth: Mapping[str, tuple[float, float]], info: Mapping[str, Any]
) -> None:
    """Warns where ground truth itself is not as published: then nothing else is either."""
    if len(info["mean"]) != 263 or info.get("synthetic"):
        return
    r1, fid = truth["r_precision_1"][0], truth["fid"][0]
    if not (abs(r1 - _OFFICIAL_R1) <= _TOLERANCE and fid <= _OFFICIAL_FID):
        rank_zero_warn(
            f"Ground truth has R-precision {r1:.3f} and FID {fid:.4f}; with the official evaluator "
            f"of HumanML3D they are {_OFFICIAL_R1} and below {_OFFICIAL_FID}. Check the data's "
            "Mean and Std, the evaluator's meta folder and the word vectors."
        )
