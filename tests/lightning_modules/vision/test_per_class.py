"""per_class.csv against counting by hand."""

import csv
from pathlib import Path

import pytest
import torch

from blocks.files import write_text
from lightning_modules.vision.per_class import COLUMNS, class_rows
from tests.lightning_modules.vision.test_image_classification import data, module, trainer


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("verb", ["validate", "test"])
def test_the_table_counts_what_the_network_says(tmp_path: Path, verb: str) -> None:
    taught, given = module(), data(tmp_path)
    getattr(trainer(tmp_path), verb)(taught, given, verbose=False)
    rows = read(tmp_path / "per_class.csv")
    assert tuple(rows[0]) == COLUMNS
    names = list(given.info.class_names)
    assert [row["class"] for row in rows] == names
    pairs = []
    for part in given.val_dataloader():
        ranks = taught(part["image"]).argsort(dim=1, descending=True)
        pairs += list(zip(part["label"].tolist(), ranks.tolist(), strict=True))
    for label, row in enumerate(rows):
        mine = [ranks for truth, ranks in pairs if truth == label]
        assert int(row["count"]) == len(mine) > 0
        top1 = 100 * sum(ranks[0] == label for ranks in mine) / len(mine)
        # Three classes: five guesses would always be right, two count.
        top5 = 100 * sum(label in ranks[:2] for ranks in mine) / len(mine)
        assert (float(row["top1"]), float(row["top5"])) == pytest.approx((top1, top5), abs=0.005)
        wrong = [ranks[0] for ranks in mine if ranks[0] != label]
        assert int(row["confused"]) == max((wrong.count(c) for c in wrong), default=0)
        if wrong:
            assert wrong.count(names.index(row["confused_with"])) == int(row["confused"])


def test_a_fit_writes_no_table(tmp_path: Path) -> None:
    trainer(tmp_path, max_steps=1).fit(module(), data(tmp_path))
    assert not (tmp_path / "per_class.csv").exists()


def test_a_set_without_labels_keeps_an_older_table(tmp_path: Path) -> None:
    write_text(tmp_path / "per_class.csv", "before")
    taught, given = module(), data(tmp_path)
    taught.on_test_batch_start = lambda batch, *_: batch["label"].fill_(-1)  # type: ignore[method-assign]
    trainer(tmp_path).test(taught, given, verbose=False)
    assert (tmp_path / "per_class.csv").read_text() == "before"


def test_a_class_without_images_or_mistakes_has_empty_cells() -> None:
    confusion = torch.tensor([[3, 0, 1], [0, 0, 0], [0, 0, 5]])
    rows = class_rows(confusion, torch.tensor([4, 0, 5]), ["a", "b", "c"])
    assert rows == [
        ["a", 4, "75.00", "100.00", "c", 1],
        ["b", 0, "", "", "", 0],
        ["c", 5, "100.00", "100.00", "", 0],
    ]
