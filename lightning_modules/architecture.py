"""A network as a table at the start of a run, and as a tree for reports: parts, classes, sizes."""

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_only
from rich.console import Console
from rich.table import Table
from torch import nn

from lightning_modules.workload import Workload


class ArchitectureTable(Callback):
    """Prints the network's parts two levels deep; runs of equal blocks share a row."""

    @rank_zero_only
    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Prints the table."""
        if isinstance(pl_module, Workload):
            Console().print(architecture_table(pl_module.network))


def architecture_table(network: nn.Module) -> Table:
    """Builds the table.

    Args:
        network: Any module.
    """
    table = Table(title=f"{type(network).__name__}, {_count(network):,} parameters")
    for name in ("part", "class", "parameters"):
        table.add_column(name, justify="right" if name == "parameters" else "left")
    for name, part in network.named_children():
        children = list(part.named_children())
        repeated = isinstance(part, nn.ModuleList | nn.Sequential) and len(children) > 1
        kinds = dict.fromkeys(type(child).__name__ for _, child in children)
        kind = f"{len(children)} x {', '.join(kinds)}" if repeated else type(part).__name__
        table.add_row(name, kind, f"{_count(part):,}")
        if repeated:
            for inner_name, inner in children[0][1].named_children():
                row = f"  {name}.0.{inner_name}", type(inner).__name__, f"{_count(inner):,}"
                table.add_row(*row, style="dim")
    own = [(n, p.numel()) for n, p in network.named_parameters(recurse=False)]
    for name, size in own:
        table.add_row(name, "Parameter", f"{size:,}")
    return table


def module_tree(network: nn.Module) -> dict[str, Any]:
    """The tree of modules, in which neighbours that are alike stand once.

    Args:
        network: Any module.

    Returns:
        `class`, `params`, and `parts`: trees with a `name`, and `times` for how many there are in
        a row.
    """
    parts: list[dict[str, Any]] = []
    for name, child in network.named_children():
        tree = module_tree(child)
        same = parts and all(parts[-1][key] == tree[key] for key in ("class", "params", "parts"))
        if same:
            parts[-1]["times"] += 1
            parts[-1]["name"] = f"{parts[-1]['name'].partition(' to ')[0]} to {name}"
        else:
            parts.append({"name": name, "times": 1, **tree})
    return {"class": type(network).__name__, "params": _count(network), "parts": parts}


def _count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())
