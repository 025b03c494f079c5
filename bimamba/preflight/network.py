"""Steps of a check that look at the network: its weights, its data and its learning rate."""

from typing import cast

from torch import nn

from bimamba.preflight.case import Case
from blocks import active_backend
from blocks.errors import SuiteError
from blocks.files import load_foreign
from blocks.recorded import plain
from lightning_modules.optimization import build_optimizer, check_lr, parameter_groups, scaled_lr
from lightning_modules.workload import Workload, check_checkpoint

# Initial weights above this are no scheme anybody uses; step sizes, decays and codes stay below.
_LARGE = 1e3


def network(case: Case) -> str:
    """Initial parameters are finite and of a sane size, and some can be trained.

    Raises:
        SuiteError: NaN or infinity, or nothing to train.
    """
    module = case.cli.model
    check_parameters(module, case)
    sizes = [(p.numel(), p.requires_grad) for p in module.parameters()]
    trainable = sum(size for size, trains in sizes if trains)
    if not trainable:
        raise SuiteError(
            expected="parameters to train",
            found=f"{sum(size for size, _ in sizes):,} parameters, all frozen",
            where=type(module.network).__name__,
            cure="unfreeze a part of the network, or use bimamba validate",
        )
    name, why = active_backend(case.cli.trainer.strategy.root_device)
    return f"{trainable:,} parameters to train, all finite; selective scan: {name} ({why})"


def agreement(case: Case) -> str:
    """The workload accepts the data for its network, as `fit` would ask it to.

    Raises:
        SuiteError: Sizes, classes or vocabularies differ.
    """
    module, datamodule = cast(Workload, case.cli.model), case.cli.datamodule
    if not hasattr(datamodule, "info"):
        return "not compared: the datamodule states no info"
    module.info = plain(datamodule.info, "info")
    module.adopt_data(module.info)
    module.check_data()
    check_parameters(module, case)  # Its head may be new.
    return str(module.info.get("protocol") or "no objection")


def weights(case: Case) -> str:
    """What the run starts from can be read and matches the network.

    Raises:
        SuiteError: A checkpoint or pretrained file is missing, damaged, hostile or of another kind.
    """
    module, trainer, path = cast(Workload, case.cli.model), case.cli.trainer, case.cli.checkpoint
    if path is not None:
        module.trainer, trainer.ckpt_path = trainer, path  # Its errors name the file.
        check_checkpoint(load_foreign(path), module)
        return f"goes on from {path}"
    if module.pretrained is None:
        return "fresh ones"
    module.load_pretrained()
    check_parameters(module, case)
    return next(line for line in reversed(case.log) if "pretrained" in line)


def learning_rate(case: Case) -> str:
    """The rate after scaling by the batch, and whether its schedule goes down.

    Raises:
        SuiteError: The rate would rise, or the optimiser does not exist.
    """
    module, trainer = cast(Workload, case.cli.model), case.cli.trainer
    optimizer, schedule = module.optimizer_config, module.schedule_config
    processes = trainer.num_devices * trainer.num_nodes
    samples = module.samples_per_step(processes * trainer.accumulate_grad_batches)
    lr = scaled_lr(optimizer, samples)
    check_lr(lr, schedule)
    build_optimizer(parameter_groups(module, optimizer), lr, optimizer)
    epochs = 0 if case.cli.config_init["fit"].trainer.fast_dev_run else trainer.max_epochs or 0
    if 0 < epochs <= schedule.warmup_epochs:
        case.warn(
            f"the run of {epochs} epochs ends within its warm-up of "
            f"{schedule.warmup_epochs:g}: raise trainer.max_epochs or lower schedule.warmup_epochs"
        )
    rule = f" = {optimizer.lr:g} x {samples} / {optimizer.lr_scale_batch}"
    return (
        f"{optimizer.name}, {lr:.3g}{rule if optimizer.lr_scale_batch else ''}, "
        f"{samples} samples a step"
    )


def check_parameters(module: nn.Module, case: Case) -> None:
    """Refuses parameters that are not finite; warns of huge ones.

    Raises:
        SuiteError: NaN or infinity.
    """
    known = [(n, p) for n, p in module.named_parameters() if not (p.is_meta or _is_lazy(p))]
    wrong = [name for name, parameter in known if not parameter.isfinite().all()]
    if wrong:
        raise SuiteError(
            expected="finite initial parameters",
            found=f"NaN or infinity in {', '.join(wrong[:4])} ({len(wrong)} of {len(known)})",
            where=type(module).__name__,
            cure="mend the initialisation of this parameter: torch.empty leaves memory as it was, "
            "and a division by zero or log of zero makes NaN",
        )
    for name, parameter in known:
        if parameter.numel() and (largest := parameter.detach().abs().max().item()) > _LARGE:
            case.warn(f"{name} starts with values up to {largest:.3g}: is that meant?")


def _is_lazy(parameter: nn.Parameter) -> bool:
    return isinstance(parameter, nn.UninitializedParameter)
