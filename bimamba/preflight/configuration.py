"""The first two steps of a check: does the configuration build, and can its run be stored?"""

from pathlib import Path

from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import WeightAveraging

from bimamba.cli import SuiteCLI, run
from bimamba.findings import size
from bimamba.folders import free_space, why_not_writable
from bimamba.preflight.case import Case
from blocks.errors import SuiteError
from lightning_modules.ema import EMA


class Unrun(SuiteCLI):
    """The command up to the point where it would start to work."""

    execute = False


def configuration(case: Case) -> str:
    """Parses the words of `fit` and builds model, data and trainer from them.

    Raises:
        SuiteError: A key, class or value is wrong, or the trainer lacks a device.
    """
    try:
        case.cli = cli = run(["fit", *case.words], Unrun)
    except MisconfigurationException as error:
        raise SuiteError(
            expected="a trainer that this machine can run",
            found=str(error),
            where="trainer",
            cure="change trainer.accelerator, devices, strategy or precision; bimamba doctor lists "
            "the devices",
        ) from error
    trainer = cli.trainer
    processes = trainer.num_devices * trainer.num_nodes
    return (
        f"{type(cli.model).__name__} with {type(cli.model.network).__name__}, "
        f"{type(cli.datamodule).__name__}, {processes} x {trainer.strategy.root_device.type}, "
        f"precision {trainer.precision}"
    )


def output(case: Case) -> str:
    """The run directory can be made, and the disk holds its checkpoints.

    Raises:
        SuiteError: Not writable, or the checkpoints do not fit.
    """
    cli = case.cli
    folder = Path(cli.run_directory)
    if why := why_not_writable(folder):
        raise SuiteError(
            expected="a folder to write results to",
            found=why,
            where=str(folder),
            cure="set --output to a folder you may write to",
        )
    free, needed = free_space(folder), checkpoint_space(cli)
    text = f"{folder}, checkpoints up to {size(needed)}, {size(free)} free"
    if needed > free:
        raise SuiteError(
            expected=f"{size(needed)} for the checkpoints of this run",
            found=f"{size(free)} free",
            where=str(folder),
            cure="free some space, lower --save_top_k, or set --output to another disk",
        )
    if 2 * needed > free:
        case.warn(f"{size(free)} free, hardly more than the {size(needed)} of the checkpoints")
    return text


def checkpoint_space(cli: SuiteCLI) -> int:
    """Most bytes that a run's checkpoints take: weights, two moments each, and their average."""
    given = cli.config_init["fit"]
    if given.trainer.fast_dev_run or given.trainer.enable_checkpointing is False:
        return 0
    parameters = list(cli.model.parameters())
    weights: int = sum(p.numel() * p.element_size() for p in parameters)
    trainable: int = sum(p.numel() * p.element_size() for p in parameters if p.requires_grad)
    averaged = any(isinstance(c, EMA | WeightAveraging) for c in given.trainer.callbacks or ())
    one = weights + 2 * trainable + (weights if averaged else 0)
    best = int(given.save_top_k if given.save_top_k >= 0 else cli.trainer.max_epochs or 1)
    return one * (best + 2)  # last.ckpt, and the next one before it replaces it.
