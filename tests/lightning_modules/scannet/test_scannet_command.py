"""From training to the objects of one's own frames by the command, on embedded rooms."""

import json
from pathlib import Path

import numpy as np
import pytest

from bimamba.main import main
from datamodules.scannet import ScanNet200SVDataModule
from tests.conftest import ROOT

CONFIG = ["--config", str(ROOT / "configs" / "demo" / "scannet.yaml")]
SHORT = ["--trainer.max_epochs", "1", "--trainer.limit_train_batches", "2"]
FEW = ["--trainer.limit_val_batches", "2", "--trainer.check_val_every_n_epoch", "1"]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_fit_test_and_predict_on_own_frames(tmp_path: Path) -> None:
    where = ["--output", str(tmp_path / "runs")]
    assert main(["fit", *CONFIG, *where, "--run_name", "fit", *SHORT, *FEW]) in (0, None)
    run = tmp_path / "runs" / "demo_scannet" / "fit"
    assert (run / "pictures" / "val_instances.png").is_file()
    assert (run / "clouds" / "val.html").is_file() and (run / "page.html").is_file()
    summary = json.loads((run / "summary.json").read_text())
    assert summary["macs"] and "sv" in summary["protocol"]
    assert "val/floor_ap50" in summary["metrics"]["last"]
    last = ["--ckpt_path", str(run / "checkpoints" / "last.ckpt")]
    limit = ["--trainer.limit_test_batches", "1"]
    assert main(["test", *CONFIG, *where, "--run_name", "test", *last, *limit]) in (0, None)
    (table,) = (tmp_path / "runs" / "demo_scannet").glob("test*/per_class.csv")
    assert "ceiling: truth by superpoint" in table.read_text()
    own = own_frames(tmp_path / "own")
    data = ["--data.class_path", "OwnScansDataModule", "--data.init_args.root", str(own)]
    data += ["--data.init_args.num_points", "2000"]
    words = ["predict", *CONFIG, *where, "--run_name", "own", *last, *data]
    assert main(words) in (0, None)
    (file,) = (tmp_path / "runs" / "demo_scannet").glob("own*/instances/*.npz")
    with np.load(file) as archive:
        assert json.loads(str(archive["metadata"]))["points"] == 2000


def own_frames(folder: Path) -> Path:
    """A frame of the embedded rooms, as one's own camera would have written it."""
    import shutil

    data = ScanNet200SVDataModule(preset="tiny")
    data.prepare_data()
    data.setup("validate")
    scene = sorted((Path(data.info.root) / "2D").iterdir())[0]
    for kind in ("color", "depth", "pose"):
        (folder / kind).mkdir(parents=True)
        first = sorted((scene / kind).iterdir())[0]
        shutil.copy(first, folder / kind / f"0{first.suffix}")
    (folder / "intrinsic").mkdir()
    matrix = np.eye(4)
    matrix[:2, :3] = (577.870605, 0, 319.5), (0, 577.870605, 239.5)
    for name in ("intrinsic_depth.txt", "intrinsic_color.txt"):
        np.savetxt(folder / "intrinsic" / name, matrix)
    return folder
