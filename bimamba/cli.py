"""fit, validate, test and predict: LightningCLI over all wings, with a run directory for each run.

Lightning's own shortcuts that overrule a config in silence are switched off: optimisers belong to
the workload, and a checkpoint never changes hyper-parameters.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import (
    LearningRateMonitor,
    RichProgressBar,
)
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_warn
from torch import nn

from bimamba.checkpoints import inspect_checkpoint
from bimamba.console import print_results, silence_small_talk
from bimamba.discovery import import_wings
from bimamba.interrupts import Interrupts
from bimamba.loggers import (
    BestCheckpoint,
    build_logger,
    finish_loggers,
    log_config,
    run_loggers,
)
from bimamba.page import write_page
from bimamba.parser import SuiteParser
from bimamba.resuming import find_checkpoint, run_directory_of
from bimamba.run_directory import (
    claim_run_directory,
    new_run_directory,
    release_run_directories,
)
from blocks.errors import SuiteError
from blocks.files import write_text
from blocks.recorded import record_call
from lightning_modules.architecture import ArchitectureTable
from lightning_modules.checkpoints import run_checkpoints
from lightning_modules.guards import NonFiniteGuard
from lightning_modules.progress import EpochLines, ScanReport
from lightning_modules.summary import RunSummary
from lightning_modules.workload import Workload


def run(args: Sequence[str] | None = None, command: type["SuiteCLI"] | None = None) -> "SuiteCLI":
    """Runs a Lightning verb.

    Args:
        args: Words after `bimamba`; `None` takes them from the shell, as DDP's children must.
        command: `SuiteCLI` or a variant of it.

    Returns:
        The finished command with its trainer, model and datamodule.
    """
    import_wings()
    silence_small_talk()
    try:
        return (command or SuiteCLI)(
            Workload,
            LightningDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            parser_class=SuiteParser,
            save_config_callback=RunConfig,
            seed_everything_default=0,
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
            args=None if args is None else list(args),
        )
    finally:
        release_run_directories()


class RunConfig(SaveConfigCallback):
    """Writes the merged configuration, and hands it to the loggers.

    `config.yaml` holds everything; `config_changes.yaml` what differs from the defaults, which is
    enough to repeat the run.
    """

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Saves once, on the first process."""
        if trainer.is_global_zero and not self.already_saved:
            text = self.parser.dump(self.config, skip_unset=False)
            changes = self.parser.dump(self.config, skip_unset=False, skip_default=True)
            write_text(Path(trainer.default_root_dir) / self.config_filename, text)
            write_text(Path(trainer.default_root_dir) / "config_changes.yaml", changes)
            log_config(trainer, text)
        self.already_saved = True


class SuiteCLI(LightningCLI):
    """LightningCLI that puts each run in a directory of its own."""

    # A variant with False builds everything, and runs and writes nothing.
    execute: ClassVar[bool] = True
    run_directory: Path
    checkpoint: str | None
    interrupts: Interrupts
    resumed_step: int

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Adds what a run is called, where it goes, and its checkpoints."""
        parser.add_argument(
            "--experiment",
            type=str | None,
            default=None,
            help="Name of the experiment; by default the name of the first config file.",
        )
        parser.add_argument(
            "--run_name",
            type=str | None,
            default=None,
            help="Name of the run; by default the time.",
        )
        parser.add_argument(
            "--output", type=str, default="runs", help="Folder above EXPERIMENT/RUN."
        )
        parser.add_argument("--debug", action="store_true", help="Show the traceback of an error.")
        parser.add_argument(
            "--save_top_k",
            type=int,
            default=1,
            help="Best checkpoints kept beside last.ckpt; 0 = none, -1 = all.",
        )
        parser.add_argument(
            "--save_every_minutes",
            type=float,
            default=10.0,
            help="Minutes between two last.ckpt within an epoch; one comes after each anyway.",
        )
        parser.add_argument(
            "--resume",
            type=str,
            default="never",
            help="never, auto (the newest run that did not finish), a run directory, or a file. "
            "A resumed fit goes on in its run directory. The config wins over the checkpoint.",
        )

    def _parse_ckpt_path(self) -> None:
        """Does nothing: Lightning would merge the checkpoint's hyper-parameters over the user's."""

    def before_instantiate_classes(self) -> None:
        """Finds the checkpoint and names the run directory, which becomes the trainer's root."""
        config = self.config[self.subcommand]
        files = config.get("config") or []
        config.experiment = config.experiment or (Path(str(files[0])).stem if files else "unnamed")
        experiment = Path(config.trainer.default_root_dir or config.output) / config.experiment
        verb = str(self.subcommand)
        self.checkpoint = self._checkpoint(experiment, verb)
        steps = inspect_checkpoint(self.checkpoint, config) if self.checkpoint else 0
        earlier = self._earlier_directory(experiment) if verb == "fit" else None
        self.resumed_step = steps if earlier else 0
        if earlier is not None:
            self.run_directory = claim_run_directory(earlier) if self.execute else earlier
            return
        self.run_directory = new_run_directory(
            experiment,
            config.run_name,
            verb,
            create=self.execute and not config.trainer.fast_dev_run,
        )

    def _earlier_directory(self, experiment: Path) -> Path | None:
        """The run directory that a resumed fit goes on in; None where it gets a new one."""
        config = self.config[self.subcommand]
        found = None
        if self.checkpoint is not None:
            found = run_directory_of(Path(self.checkpoint))
        elif config.resume == "auto" and config.run_name is not None:
            # Killed before its first checkpoint: there is nothing to lose, it starts again.
            found = experiment / config.run_name
        if found is None or not found.is_dir() or config.run_name not in (None, found.name):
            return None
        return found

    def _checkpoint(self, experiment: Path, verb: str) -> str | None:
        """The file that --resume or Lightning's own --ckpt_path means."""
        config = self.config[self.subcommand]
        if config.ckpt_path is None:
            found = find_checkpoint(config.resume, experiment, config.run_name, verb)
            return None if found is None else str(found)
        if config.resume != "never":
            raise SuiteError(
                expected="--resume or --ckpt_path",
                found=f"--resume {config.resume} and --ckpt_path {config.ckpt_path}",
                where=f"bimamba {verb}",
                cure="leave one out; --resume takes a file as well",
            )
        path: str = config.ckpt_path
        return path

    def _prepare_subcommand_kwargs(self, subcommand: str) -> dict[str, Any]:
        """Hands the checkpoint to the trainer, without writing it into config.yaml."""
        return {**super()._prepare_subcommand_kwargs(subcommand), "ckpt_path": self.checkpoint}

    def instantiate_classes(self) -> None:
        """Builds model, data and trainer; networks of any library record their call."""

        def build(class_type: type[nn.Module], *args: object, **kwargs: Any) -> nn.Module:
            network = class_type(*args, **kwargs)
            if "init_call" not in network.__dict__:
                record_call(network, *args, **kwargs)
            return network

        def place(class_type: type[Logger], **kwargs: Any) -> Logger:
            return build_logger(class_type, self.run_directory, kwargs, self.resumed_step)

        self.config_init = self.parser.instantiate(
            self.config, instantiators=[(build, nn.Module, True), (place, Logger, True)]
        )
        self.datamodule = self._get(self.config_init, "data")
        self.model = self._get(self.config_init, "model")
        self.trainer = self.instantiate_trainer()

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Adds the run directory, its callbacks and its `metrics.csv`."""
        given = self._get(self.config_init, "trainer")
        directory = str(self.run_directory)
        kwargs = {"default_root_dir": directory, "enable_model_summary": False, **kwargs}
        kwargs["logger"] = run_loggers(given.logger, self.run_directory, self.resumed_step)
        progress = _progress(given.enable_progress_bar)
        self.interrupts = Interrupts()
        self.interrupts.watch_parent()
        kwargs["enable_progress_bar"] = isinstance(progress, RichProgressBar)
        callbacks = list(given.callbacks or [])
        own = [
            progress,
            ScanReport(),
            NonFiniteGuard(),
            self.interrupts,
            *self._files_of_a_run(given),
        ]
        if given.enable_model_summary is not False:
            own.append(ArchitectureTable())
        present = {type(callback) for callback in callbacks}
        kwargs["callbacks"] = callbacks + [c for c in own if type(c) not in present]
        return super().instantiate_trainer(**kwargs)

    def _files_of_a_run(self, trainer: Any) -> list[Callback]:
        """What writes into the run directory; nothing in a fast_dev_run."""
        if trainer.fast_dev_run:
            return []
        own: list[Callback] = [RunSummary(self.run_directory.parent.name, self.run_directory.name)]
        if self.subcommand == "fit" and trainer.logger is not False:
            own.append(LearningRateMonitor())
        if self.subcommand == "fit" and trainer.enable_checkpointing is not False:
            own += run_checkpoints(
                self.run_directory / "checkpoints",
                None if trainer.limit_val_batches == 0 else self.model.monitor,
                self.model.mode,
                self._get(self.config, "save_top_k"),
                self._get(self.config, "save_every_minutes"),
            )
            own.append(BestCheckpoint())
        return own

    def predict(self, **kwargs: Any) -> None:
        """Predicts without keeping every output in memory; callbacks write the files."""
        if kwargs.get("ckpt_path") is None and self.model.pretrained is None:
            rank_zero_warn(
                "No --ckpt_path and no --model.init_args.pretrained: unless the network brings "
                "weights of its own, these are the predictions of an untrained one."
            )
        self.trainer.predict(**{**kwargs, "return_predictions": False})

    def _run_subcommand(self, subcommand: str) -> None:
        """Runs the verb, then shows what came out."""
        if not self.execute:
            return
        failed = True
        try:
            with self.interrupts.listening():
                super()._run_subcommand(subcommand)
            failed = False
        finally:
            finish_loggers(self.trainer, failed=failed)
        if self.trainer.is_global_zero and self.run_directory.is_dir():
            print_results(self.run_directory, write_page(self.run_directory))


def _progress(wanted: bool | None) -> Callback:
    """A bar on a terminal, a line an epoch in files, pipes and where bars are switched off."""
    return (
        RichProgressBar(leave=True) if wanted is not False and sys.stdout.isatty() else EpochLines()
    )
