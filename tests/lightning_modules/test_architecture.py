"""The architecture table counts every parameter once."""

from pathlib import Path

import pytest
from lightning.pytorch import Trainer
from torch import nn

from lightning_modules.architecture import ArchitectureTable, architecture_table, module_tree
from lightning_modules.vision import ImageClassification, VisionMamba


def network(depth: int = 3) -> VisionMamba:
    return VisionMamba(img_size=16, patch_size=8, dim=16, depth=depth, num_classes=10)


def rows(module: nn.Module) -> list[tuple[str, ...]]:
    columns = [list(column.cells) for column in architecture_table(module).columns]
    return [tuple(str(cell) for cell in row) for row in zip(*columns, strict=True)]


@pytest.mark.parametrize("depth", [1, 3])
def test_the_parts_add_up_to_the_whole(depth: int) -> None:
    module = network(depth)
    total = sum(p.numel() for p in module.parameters())
    assert f"{total:,} parameters" in str(architecture_table(module).title)
    counted = [int(row[2].replace(",", "")) for row in rows(module) if not row[0].startswith(" ")]
    assert sum(counted) == total


def test_equal_blocks_share_a_row_and_show_their_inside_once() -> None:
    found = {name: (kind, count) for name, kind, count in rows(network(3))}
    assert found["layers"][0] == "3 x ResidualBlock"
    assert found["  layers.0.mixer"][0] == "BiMamba"
    assert not any(name.startswith("  layers.1") for name in found)
    block = sum(p.numel() for p in network(1).layers.parameters())
    assert found["layers"][1] == f"{3 * block:,}"


def test_a_mixed_stack_names_its_kinds_and_own_parameters_have_rows() -> None:
    found = {name: kind for name, kind, _ in rows(nn.Sequential(nn.Linear(1, 1), nn.ReLU()))}
    assert found == {"0": "Linear", "1": "ReLU"}
    stack = nn.ModuleDict({"s": nn.Sequential(nn.Linear(1, 1), nn.ReLU(), nn.Linear(1, 2))})
    assert ("s", "3 x Linear, ReLU", "6") in rows(stack)
    assert ("pos_embed", "Parameter", "80") in rows(network(1))


def test_is_printed_when_a_fit_starts(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    trainer = Trainer(accelerator="cpu", logger=False, default_root_dir=tmp_path)
    ArchitectureTable().on_fit_start(trainer, ImageClassification(network()))
    printed = capsys.readouterr().out
    assert "VisionMamba" in printed
    assert "ResidualBlock" in printed


def test_the_tree_has_equal_neighbours_once() -> None:
    block = [nn.Sequential(nn.Linear(4, 4), nn.GELU()) for _ in range(3)]
    tree = module_tree(nn.Sequential(*block, nn.Linear(4, 2)))
    first, last = tree["parts"]
    assert (first["name"], first["times"], first["params"]) == ("0 to 2", 3, 20)
    assert [part["class"] for part in first["parts"]] == ["Linear", "GELU"]
    assert last["name"] == "3" and tree["params"] == 3 * 20 + 10
