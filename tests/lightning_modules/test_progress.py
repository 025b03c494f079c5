"""What a run says: the scan in use, and a line an epoch."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from torch.utils.data import DataLoader

from blocks.scan import active_backend
from lightning_modules import progress
from lightning_modules.progress import EpochLines, ScanReport


class Line(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def training_step(self, batch: torch.Tensor, _: int) -> torch.Tensor:
        self.log("train/loss", 0.25, on_step=True, on_epoch=True, batch_size=1)
        self.log("secret", 1.0, batch_size=1)
        return (self.weight - batch).square().sum()

    def validation_step(self, batch: torch.Tensor, _: int) -> None:
        self.log("val/top1", 87.5 + self.current_epoch, batch_size=1)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.1)


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    lines: list[str] = []
    monkeypatch.setattr(progress, "rank_zero_info", lines.append)
    return lines


def run(tmp_path: Path, callback: Any, **options: Any) -> None:
    loader = DataLoader(torch.ones(2, 1))
    Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
        callbacks=[callback],
        **options,
    ).fit(Line(), loader, loader)


def test_each_epoch_gets_one_line_with_its_metrics(tmp_path: Path, said: list[str]) -> None:
    run(tmp_path, EpochLines(), max_epochs=2)
    assert len(said) == 2
    for epoch, line in enumerate(said):
        values = rf"train/loss(_epoch)? 0\.25  .*val/top1 {87 + epoch}\.5"
        assert re.fullmatch(rf"epoch {epoch + 1}/2  {values}  \d+\.\d s", line), line
        assert "secret" not in line
        assert "_step" not in line


def test_a_run_measured_in_steps_has_no_last_epoch_to_name(tmp_path: Path, said: list[str]) -> None:
    run(tmp_path, EpochLines(), max_epochs=-1, max_steps=2)
    assert said[0].startswith("epoch 1/?  ")


def test_the_scan_in_use_is_named_with_its_reason(tmp_path: Path, said: list[str]) -> None:
    run(tmp_path, ScanReport(), max_epochs=1)
    name, why = active_backend(torch.device("cpu"))
    assert said == [f"selective scan on cpu: {name} ({why})"]
    assert name
    assert why
