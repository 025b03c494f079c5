"""Run by a test: training that deepens, then a test, on a number of processes.

Words: processes, folder of the data, answer file. The answer holds the test's metrics and, for each
parameter, how far the processes' copies are apart.
"""

import json
import sys
from pathlib import Path

import torch
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything

from lightning_modules.optimization import Optimizer, Schedule
from lightning_modules.progressive_depth import DepthStage, ProgressiveDepth
from lightning_modules.vision import ImageRetrieval, VisionMamba
from lightning_modules.vision.retrieval.reranking import ReRanking
from tests.lightning_modules.vision.retrieval.people import People


class Compare(Callback):
    """Measures how far the copies of the parameters are apart at the end."""

    apart = -1.0

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Compares with the other processes."""
        own = torch.cat([p.detach().flatten() for p in pl_module.parameters()])
        gathered = pl_module.all_gather(own)
        self.apart = float((gathered.reshape(-1, len(own)) - own).abs().max())


def main(count: int, data: Path, answer: Path) -> None:
    """Trains and tests."""
    seed_everything(0, verbose=False)
    torch.set_num_threads(1)
    network = VisionMamba(img_size=(16, 8), patch_size=4, dim=8, depth=1, num_classes=0, d_state=2)
    module = ImageRetrieval(
        network,
        optimizer=Optimizer(lr=0.01, lr_scale_batch=None),
        schedule=Schedule(warmup_epochs=0),
        rerank=ReRanking(4, 2),
        fpr=(0.01,),
    )
    compare = Compare()
    trainer = Trainer(
        accelerator="cpu",
        devices=count,
        strategy="ddp" if count > 1 else "auto",
        default_root_dir=answer.parent,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        max_epochs=2,
        use_distributed_sampler=False,
        callbacks=[ProgressiveDepth([DepthStage(1, 1), DepthStage(3)]), compare],
    )
    people = People(str(data), val_batch=5)
    trainer.fit(module, people)
    if count == 1:
        trainer.save_checkpoint(answer.parent / "trained.ckpt")
    found = trainer.test(module, people, str(answer.parent / "trained.ckpt"), verbose=False)[0]
    if trainer.is_global_zero:
        answer.write_text(json.dumps({"metrics": found, "apart": compare.apart}))


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]))
