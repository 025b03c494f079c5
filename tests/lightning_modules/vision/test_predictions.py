"""predictions.csv: every image once, in order, with the probabilities of the network."""

import csv
import os
from pathlib import Path
from typing import IO, Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from PIL import Image

from blocks.errors import SuiteError
from datamodules.vision import ImageNetDataModule
from datamodules.vision.miniatures import write_folder_layout
from lightning_modules.vision import ImageClassification, VisionMamba
from lightning_modules.vision.predictions import COLUMNS, PredictionTable, write_parquet


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("images")
    write_folder_layout(root, classes=7, per_class=2, size=20)
    return root


def module(classes: int = 7) -> ImageClassification:
    torch.manual_seed(0)
    net = VisionMamba(img_size=16, patch_size=8, dim=16, depth=1, num_classes=classes)
    torch.nn.init.normal_(net.head.weight)
    return ImageClassification(net).eval()


def data(root: Path, **options: Any) -> ImageNetDataModule:
    given = {"root": str(root), "img_size": 16, "batch_size": 4, "num_workers": 0}
    return ImageNetDataModule(**{**given, **options})


def run(
    tmp_path: Path,
    verb: str,
    taught: ImageClassification,
    given: ImageNetDataModule,
    *callbacks: Callback,
) -> Any:
    trainer = Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        default_root_dir=tmp_path,
        callbacks=list(callbacks),
    )
    options = {"verbose": False} if verb == "test" else {"return_predictions": False}
    getattr(trainer, verb)(taught, given, **options)
    with (tmp_path / "predictions.csv").open(
        encoding="utf-8", errors="surrogateescape", newline=""
    ) as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("verb", ["test", "predict"])
def test_every_image_has_one_row_in_order_with_its_probabilities(
    tmp_path: Path, root: Path, verb: str
) -> None:
    taught, given = module(), data(root)
    rows = run(tmp_path, verb, taught, given)
    assert tuple(rows[0]) == COLUMNS
    assert [int(row["index"]) for row in rows] == list(range(14))
    names = given.info.class_names
    with torch.no_grad():
        for row, batch in zip(
            rows, (given.val_dataloader().dataset[i] for i in range(14)), strict=True
        ):
            p = taught(batch["image"][None])[0].softmax(0)
            best = p.argsort(descending=True)[:5].tolist()
            assert row["path"] == batch["path"]
            assert row["label"] == names[batch["label"]] == Path(batch["path"]).parent.name
            assert row["prediction"] == names[best[0]]
            assert float(row["probability"]) == pytest.approx(float(p[best[0]]), abs=1e-4)
            pairs = [pair.rsplit(":", 1) for pair in row["top5"].split(";")]
            assert [name for name, _ in pairs] == [names[c] for c in best]
            assert [float(q) for _, q in pairs] == pytest.approx(p[best].tolist(), abs=1e-4)


def test_fewer_than_five_classes_list_them_all(tmp_path: Path) -> None:
    write_folder_layout(tmp_path / "data", classes=3, per_class=1, size=20)
    rows = run(tmp_path, "test", module(3), data(tmp_path / "data", batch_size=2))
    assert [len(row["top5"].split(";")) for row in rows] == [3, 3, 3]


@pytest.mark.parametrize("verb", ["test", "predict"])
def test_parquet_says_what_csv_says(tmp_path: Path, root: Path, verb: str) -> None:
    from pyarrow import parquet

    taught, given = module(), data(root)
    rows = run(tmp_path, verb, taught, given)
    run(tmp_path, verb, taught, given, PredictionTable("parquet"))
    table = parquet.read_table(tmp_path / "predictions.parquet")
    assert tuple(table.column_names) == COLUMNS
    assert [str(kind) for kind in table.schema.types][:5:4] == ["int64", "float"]
    for row, other in zip(rows, table.to_pylist(), strict=True):
        assert float(row.pop("probability")) == pytest.approx(other.pop("probability"))
        assert row == {**other, "index": str(other["index"])}


def test_parquet_has_null_for_an_unknown_label_and_takes_any_file_name(tmp_path: Path) -> None:
    from pyarrow import parquet

    path = tmp_path / "x.parquet"
    write_parquet(path, [(0, "caf\udce9.png", "", "a", "0.5000", "a:0.5000")])
    [row] = parquet.read_table(path).to_pylist()
    assert row["label"] is None and row["path"] == "caf?.png"
    write_parquet(path, [])
    assert parquet.read_table(path).num_rows == 0


def test_a_second_run_starts_a_new_table(tmp_path: Path, root: Path) -> None:
    taught, given = module(), data(root)
    assert len(run(tmp_path, "test", taught, given)) == 14
    assert len(run(tmp_path, "test", taught, given)) == 14


def pictures(folder: Path, *names: str | bytes) -> Path:
    folder.mkdir()
    for name in names:
        Image.new("RGB", (20, 20)).save(folder / "draft.png")
        (folder / "draft.png").rename(folder / os.fsdecode(name))
    return folder


def test_a_folder_without_labels_leaves_the_label_empty(tmp_path: Path, root: Path) -> None:
    taught = module()
    taught.info = {"class_names": list("abcdefg")}
    taught.setup = lambda stage: None  # type: ignore[method-assign]
    folder = pictures(tmp_path / "in", "b.png", "a, with comma.png", "ü.png")
    rows = run(tmp_path, "predict", taught, data(root, predict_root=str(folder)))
    assert [Path(row["path"]).name for row in rows] == ["a, with comma.png", "b.png", "ü.png"]
    assert [row["label"] for row in rows] == ["", "", ""]
    assert {row["prediction"] for row in rows} <= set("abcdefg")


@pytest.mark.skipif(os.name == "nt", reason="names are Unicode there")
def test_a_name_that_is_no_utf8_does_not_lose_the_table(tmp_path: Path, root: Path) -> None:
    taught = module()
    taught.info = {"class_names": list("abcdefg")}
    taught.setup = lambda stage: None  # type: ignore[method-assign]
    folder = pictures(tmp_path / "in", b"caf\xe9.png")
    [row] = run(tmp_path, "predict", taught, data(root, predict_root=str(folder)))
    assert os.fsencode(row["path"]).endswith(b"caf\xe9.png")


def test_predicting_without_class_names_is_refused_before_the_work(
    tmp_path: Path, root: Path
) -> None:
    folder = pictures(tmp_path / "in", "a.png")
    with pytest.raises(SuiteError, match="ckpt_path"):
        run(tmp_path, "predict", module(), data(root, predict_root=str(folder)))
    assert not (tmp_path / "predictions.csv").exists()


def test_a_table_that_fails_half_way_leaves_the_old_one(
    tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class FullDisk:
        def __init__(self, file: IO[str]) -> None:
            self.file = file

        def writerow(self, row: object) -> None:
            self.file.write("half")

        def writerows(self, rows: object) -> None:
            raise OSError("no space left")

    taught, given = module(), data(root)
    run(tmp_path, "test", taught, given)
    before = (tmp_path / "predictions.csv").read_bytes()
    monkeypatch.setattr("lightning_modules.vision.predictions.csv.writer", FullDisk)
    with pytest.raises(OSError, match="no space left"):
        run(tmp_path, "test", taught, given)
    assert (tmp_path / "predictions.csv").read_bytes() == before
    assert [p.name for p in tmp_path.iterdir() if "predictions" in p.name] == ["predictions.csv"]
