"""Pictures of a classifier: files that decode, images from the whole set, counts that are right."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from datamodules.vision import ImageNetDataModule
from datamodules.vision.miniatures import write_folder_layout
from lightning_modules.optimization import Optimizer
from lightning_modules.vision import ClassificationPictures, ImageClassification, VisionMamba
from lightning_modules.vision import pictures as pictures_file
from lightning_modules.vision.pictures import confusion_figure, image_grid

CLASSES, PER_CLASS = 5, 11
INFO = {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.4]}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("images")
    write_folder_layout(root, classes=CLASSES, per_class=PER_CLASS, size=20)
    return root


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the two figures were made of."""
    seen: dict[str, Any] = {}

    def grid(shown: list[Any], *rest: Any) -> Figure:
        seen["shown"] = shown
        return image_grid(shown, *rest)

    def matrix(confusion: Tensor, names: list[str]) -> Figure:
        seen["confusion"] = confusion
        return confusion_figure(confusion, names)

    monkeypatch.setattr(pictures_file, "image_grid", grid)
    monkeypatch.setattr(pictures_file, "confusion_figure", matrix)
    return seen


def module() -> ImageClassification:
    torch.manual_seed(0)
    network = VisionMamba(img_size=16, patch_size=8, dim=16, depth=1, num_classes=CLASSES)
    torch.nn.init.normal_(network.head.weight)
    return ImageClassification(network, Optimizer(lr=1e-3, lr_scale_batch=None))


def run(
    tmp_path: Path, root: Path, verb: str, callback: ClassificationPictures, **options: Any
) -> Any:
    given = ImageNetDataModule(str(root), img_size=16, batch_size=8, num_workers=0)
    taught = module()
    trainer = Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
        callbacks=[callback],
        **options,
    )
    getattr(trainer, verb)(taught, given, **({} if verb == "fit" else {"verbose": False}))
    return taught.eval(), given


@pytest.mark.parametrize(("verb", "stage"), [("validate", "val"), ("test", "test")])
def test_both_pictures_exist_decode_and_count_right(
    tmp_path: Path, root: Path, drawn: dict[str, Any], verb: str, stage: str
) -> None:
    taught, given = run(tmp_path, root, verb, ClassificationPictures(images=12))
    folder = tmp_path / "pictures"
    assert sorted(p.name for p in folder.iterdir()) == [
        f"{stage}_confusion.png",
        f"{stage}_grid.png",
    ]
    for path in folder.iterdir():
        with Image.open(path) as picture:
            picture.load()
            assert min(picture.size) > 100
    expected = [[0] * CLASSES for _ in range(CLASSES)]
    with torch.no_grad():
        for batch in given.val_dataloader():
            guesses = taught(batch["image"]).argmax(1)
            for label, guess in zip(batch["label"].tolist(), guesses.tolist(), strict=True):
                expected[label][guess] += 1
    assert drawn["confusion"].tolist() == expected
    assert sum(map(sum, expected)) == CLASSES * PER_CLASS


@pytest.mark.parametrize("images", [1, 7, 40, 55, 100])
def test_the_grid_holds_the_asked_number_from_the_whole_set(
    tmp_path: Path, root: Path, drawn: dict[str, Any], images: int
) -> None:
    taught, given = run(tmp_path, root, "validate", ClassificationPictures(images))
    shown = drawn["shown"]
    assert len(shown) == min(images, CLASSES * PER_CLASS)
    if images >= CLASSES:
        assert {label for _, label, _, _ in shown} == set(range(CLASSES))
    with torch.no_grad():
        for image, _, guess, confidence in shown:
            p = taught(image[None])[0].softmax(0)
            assert guess == int(p.argmax())
            assert confidence == pytest.approx(float(p.max()), abs=1e-5)


def test_a_fit_draws_its_last_validation_at_the_end(
    tmp_path: Path, root: Path, drawn: dict[str, Any]
) -> None:
    run(
        tmp_path, root, "fit", ClassificationPictures(images=8), max_epochs=2, limit_train_batches=1
    )
    assert (tmp_path / "pictures" / "val_grid.png").is_file()
    assert int(drawn["confusion"].sum()) == CLASSES * PER_CLASS


class Counting(ClassificationPictures):
    draws = 0

    def _draw(self, *_: object) -> None:
        self.draws += 1


def test_drawing_while_training_waits_its_time(tmp_path: Path, root: Path) -> None:
    counts = []
    for seconds in (0.0, 3600.0):
        callback = Counting(8, every_seconds=seconds)
        run(tmp_path, root, "fit", callback, max_epochs=2, limit_train_batches=1)
        counts.append(callback.draws)
    assert counts == [3, 1]


def test_the_sanity_check_is_not_drawn(tmp_path: Path, root: Path) -> None:
    options = {"max_epochs": 1, "limit_train_batches": 1, "check_val_every_n_epoch": 2}
    run(tmp_path, root, "fit", ClassificationPictures(8), num_sanity_val_steps=2, **options)
    assert not (tmp_path / "pictures").exists()


def test_a_fit_without_validation_draws_nothing(tmp_path: Path, root: Path) -> None:
    options = {"max_epochs": 1, "limit_train_batches": 1, "limit_val_batches": 0}
    run(tmp_path, root, "fit", ClassificationPictures(8), **options)
    assert not (tmp_path / "pictures").exists()


def titles(figure: Figure) -> list[str]:
    return [axis.get_title() for axis in figure.axes]


@pytest.mark.parametrize(("count", "rows", "columns"), [(1, 1, 1), (8, 1, 8), (9, 2, 8)])
def test_the_grid_undoes_the_normalisation_and_names_both_classes(
    count: int, rows: int, columns: int
) -> None:
    mean, std = (torch.tensor(INFO[name]).view(3, 1, 1) for name in ("mean", "std"))
    picture = torch.rand(3, 4, 4)
    shown = [((picture - mean) / std, i % 2, 0, 0.875) for i in range(count)]
    figure = image_grid(shown, ["cat", "dog"], INFO)
    assert len(figure.axes) == rows * columns
    assert sum(bool(axis.images) for axis in figure.axes) == count
    found = torch.as_tensor(figure.axes[0].images[0].get_array())
    assert torch.allclose(found.permute(2, 0, 1).float(), picture, atol=1e-6)
    expected = ["cat 88%", "cat 88%\nis dog"] * count
    assert titles(figure)[:count] == expected[:count]
    colours = {axis.title.get_color() for axis in figure.axes[:count]}
    assert len(colours) == min(count, 2)


def test_an_image_without_label_is_not_called_wrong() -> None:
    figure = image_grid([(torch.zeros(3, 4, 4), -1, 1, 0.5)], ["cat", "dog"], INFO)
    assert titles(figure) == ["dog 50%"]


def test_the_confusion_matrix_shows_shares_and_counts() -> None:
    counts = torch.tensor([[3, 1], [0, 0]])
    figure = confusion_figure(counts, ["cat", "dog"])
    axis = figure.axes[0]
    assert axis.images[0].get_array().tolist() == [[75.0, 25.0], [0.0, 0.0]]
    assert {(t.get_position(), t.get_text()) for t in axis.texts} == {((0, 0), "3"), ((1, 0), "1")}
    assert axis.get_title() == "3 of 4 right (75.00 %)"
    assert [t.get_text() for t in axis.get_xticklabels()] == ["cat", "dog"]


def test_a_matrix_of_many_classes_leaves_the_numbers_out() -> None:
    names = [f"class {i}" for i in range(60)]
    axis = confusion_figure(torch.eye(60).long(), names).axes[0]
    assert len(axis.texts) == 0
    assert "60 of 60 right" in axis.get_title()
    assert "class 59" not in [t.get_text() for t in axis.get_xticklabels()]
