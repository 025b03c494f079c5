"""Two real processes under Lightning: complete identities for each, every evaluation image once."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from datamodules.vision.retrieval.miniatures import write_market
from tests.conftest import ROOT

_PROGRAM = """
import json, sys
import torch
from lightning.pytorch import LightningModule, Trainer
from datamodules.vision import RetrievalDataModule

class Recorder(LightningModule):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.train_seen, self.val_seen = [], []
    def training_step(self, batch, _):
        self.train_seen.append([batch["identity"].tolist(), batch["index"].tolist()])
        return self.weight * batch["image"].mean()
    def validation_step(self, batch, _):
        self.val_seen += batch["index"].tolist()
    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)

root, out = sys.argv[1:]
data = RetrievalDataModule(root, img_size=(16, 8), batch_size=4, instances=2, num_workers=0)
module = Recorder()
Trainer(accelerator="cpu", strategy="ddp", devices=2, max_epochs=1, logger=False,
        enable_checkpointing=False, enable_progress_bar=False, num_sanity_val_steps=0,
        enable_model_summary=False).fit(module, data)
with open(f"{out}/{module.global_rank}.json", "w") as file:
    json.dump([module.train_seen, module.val_seen], file)
"""


@pytest.mark.slow
def test_two_processes_train_on_whole_identities_and_evaluate_each_image_once(
    tmp_path: Path,
) -> None:
    write_market(tmp_path / "market1501", train=5)
    program = tmp_path / "program.py"
    program.write_text(_PROGRAM)
    done = subprocess.run(
        [sys.executable, str(program), str(tmp_path / "market1501"), str(tmp_path)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        timeout=100,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2))
    assert len(first[0]) == len(second[0]) == 3  # 5 persons with 3 chunks, 4 at a time.
    for (ours, own), (theirs, others) in zip(first[0], second[0], strict=True):
        for identities in (ours, theirs):
            assert identities[::2] == identities[1::2] and len(set(identities)) == 2
        assert not set(ours) & set(theirs) and not set(own) & set(others)
    assert sorted(first[1] + second[1]) == list(range(20))
