"""ImageNetDataModule with Lightning's Trainer, on the embedded digits and on miniatures."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from lightning.pytorch import LightningModule, Trainer, seed_everything

from blocks.errors import SuiteError
from datamodules.vision import Augment, ImageNetDataModule
from datamodules.vision.miniatures import write_flat_layout, write_folder_layout
from datamodules.vision.transforms import OnImage
from tests.datamodules.vision.layouts_on_disk import WRITERS, expected, written


class Recorder(LightningModule):
    """Keeps what it is shown."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen: dict[str, list[dict[str, Any]]] = {}

    def _see(self, batch: dict[str, Any], stage: str) -> torch.Tensor:
        self.seen.setdefault(stage, []).append(batch)
        return self.weight * batch["image"].mean()

    def training_step(self, batch: dict[str, Any], _: int) -> torch.Tensor:
        return self._see(batch, "train")

    def validation_step(self, batch: dict[str, Any], _: int) -> None:
        self._see(batch, "val")

    def test_step(self, batch: dict[str, Any], _: int) -> None:
        self._see(batch, "test")

    def predict_step(self, batch: dict[str, Any], _: int) -> list[str]:
        return batch["path"]

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.1)


def trainer(tmp_path: Path, **options: Any) -> Trainer:
    return Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
        **options,
    )


def miniature(tmp_path: Path, num_workers: int = 0, **options: Any) -> ImageNetDataModule:
    root = tmp_path / "data"
    if not root.exists():
        write_folder_layout(root, classes=3, per_class=5, size=20)
    sizes = {"img_size": 16, "batch_size": 4} | options
    return ImageNetDataModule(root=str(root), num_workers=num_workers, **sizes)


def shown(batches: list[dict[str, Any]], key: str) -> list[Any]:
    return [value for batch in batches for value in batch[key]]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_all_four_verbs_run_on_the_digits(tmp_path: Path, num_workers: int) -> None:
    data = ImageNetDataModule(img_size=8, batch_size=150, num_workers=num_workers)
    module, run = Recorder(), trainer(tmp_path, max_epochs=1, num_sanity_val_steps=0)
    run.fit(module, data)
    assert (data.info.num_train, data.info.num_val) == (1442, 355)
    assert data.info.class_names == tuple("0123456789")
    assert data.info.synthetic
    run.validate(module, data, verbose=False)
    run.test(module, data, verbose=False)
    predicted = [path for batch in run.predict(module, data) for path in batch]
    assert [len(batch["label"]) for batch in module.seen["train"]] == [150] * 9
    assert len(shown(module.seen["test"], "path")) == len(set(predicted)) == 355
    assert shown(module.seen["test"], "path") == predicted


def test_a_batch_is_what_the_table_says(tmp_path: Path) -> None:
    data = miniature(tmp_path, img_size=(16, 24))
    data.setup("fit")
    for loader in (data.train_dataloader(), data.val_dataloader()):
        batch = next(iter(loader))
        assert set(batch) == {"image", "label", "path", "index"}
        assert batch["image"].shape == (4, 3, 16, 24)
        assert batch["image"].dtype == torch.float32
        assert batch["label"].dtype == batch["index"].dtype == torch.int64
        for path, label in zip(batch["path"], batch["label"], strict=True):
            assert (
                sorted((tmp_path / "data" / "train").iterdir())[label].name
                == Path(path).parent.name
            )


def test_worker_count_changes_no_pixel_of_two_epochs(tmp_path: Path) -> None:
    seen = []
    for num_workers in (0, 2):
        seed_everything(7, verbose=False)
        module = Recorder()
        trainer(tmp_path, max_epochs=2).fit(module, miniature(tmp_path, num_workers))
        seen.append(module.seen["train"])
    alone, helped = seen
    assert len(alone) == len(helped) == 6
    assert shown(alone, "path") == shown(helped, "path")
    assert torch.equal(*(torch.cat([batch["image"] for batch in epoch]) for epoch in seen))
    assert shown(alone[:3], "path") != shown(alone[3:], "path")


def test_the_seed_of_the_run_changes_order_and_pixels(tmp_path: Path) -> None:
    paths = []
    for seed in (1, 2):
        seed_everything(seed, verbose=False)
        data = miniature(tmp_path)
        data.setup("fit")
        paths.append(shown(list(data.train_dataloader()), "path"))
    assert paths[0] != paths[1]


def test_repeated_copies_of_an_image_differ_within_a_batch(tmp_path: Path) -> None:
    data = miniature(tmp_path, batch_size=3, repeated_aug=3)
    data.setup("fit")
    batch = next(iter(data.train_dataloader()))
    assert len(set(batch["path"])) == 1
    assert all(not torch.equal(batch["image"][i], batch["image"][i - 1]) for i in range(3))


def test_policy_none_trains_on_what_evaluation_sees(tmp_path: Path) -> None:
    data = miniature(tmp_path, batch_size=15, augment=Augment(policy="none"))
    data.setup("fit")
    once, again = (next(iter(data.train_dataloader())) for _ in range(2))
    assert torch.equal(once["image"], again["image"])
    place = once["index"].tolist().index(0)
    loader = data._loader(data._train, OnImage(data._eval_transform()), None, 15)
    assert torch.equal(once["image"][place], loader.dataset[0]["image"])


@pytest.mark.parametrize("layout", WRITERS)
def test_every_layout_gives_the_same_batches_with_and_without_workers(
    layout: str, tmp_path: Path
) -> None:
    root = written(layout, tmp_path / "data")
    seen = []
    for num_workers in (0, 2):
        data = ImageNetDataModule(
            str(root), 32, batch_size=4, num_workers=num_workers, crop_pct=1.0,
            mean=(0, 0, 0), std=(1, 1, 1), augment=Augment(policy="none"),
        )  # fmt: skip
        data.prepare_data()
        data.setup("fit")
        seen.append([list(data.train_dataloader()), list(data.val_dataloader())])
    for split, alone, helped in zip(("train", "val"), *seen, strict=True):
        assert shown(alone, "path") == shown(helped, "path")
        images = torch.cat([batch["image"] for batch in alone])
        assert torch.equal(images, torch.cat([batch["image"] for batch in helped]))
        labels = [int(label) for label in shown(alone, "label")]
        decoded = (images * 255).round().byte().permute(0, 2, 3, 1)
        pairs = zip(labels, (image.numpy().tobytes() for image in decoded), strict=True)
        assert sorted(pairs) == expected(split)


@pytest.mark.parametrize("layout", ["folder", "shards", "parquet"])
@pytest.mark.parametrize("workers", [0, 2])
def test_an_epoch_goes_on_where_it_was_cut(layout: str, workers: int, tmp_path: Path) -> None:
    root = written(layout, tmp_path / "data", classes=10, per_class=2)

    def batches(position: dict[str, int] | None) -> list[dict[str, Any]]:
        data = ImageNetDataModule(str(root), 8, batch_size=3, num_workers=workers)
        data.setup("fit")
        if position is not None:
            data.load_state_dict(position)
        loader = data.train_dataloader()
        loader.sampler.set_epoch(1)
        return list(loader)

    whole, rest = batches(None), batches({"epoch": 1, "samples": 9})
    assert shown(rest, "path") == shown(whole, "path")[9:]
    for one, other in zip(rest, whole[3:], strict=True):
        assert torch.equal(one["image"], other["image"])


@pytest.mark.parametrize("layout", ["folder", "shards", "parquet"])
def test_two_processes_with_two_workers_each_cover_a_prime_number_of_samples(
    layout: str, tmp_path: Path
) -> None:
    class Place:
        world_size = 2

        def __init__(self, rank: int) -> None:
            self.global_rank = rank

    root = written(layout, tmp_path / "data", classes=23, per_class=1)
    epochs: list[list[str]] = [[], [], []]
    evaluated: list[str] = []
    for rank in range(2):
        data = ImageNetDataModule(str(root), 8, batch_size=1, val_batch_size=3, num_workers=2)
        data.prepare_data()
        data.setup("fit")
        data.trainer = Place(rank)
        loader = data.train_dataloader()
        for epoch, seen in enumerate(epochs):
            loader.sampler.set_epoch(epoch)
            seen += shown(list(loader), "path")
        evaluated += shown(list(data.val_dataloader()), "path")
    assert len(evaluated) == len(set(evaluated)) == 23
    left_out = set()
    everything = set().union(*epochs)
    for seen in epochs:
        # 23 = 2 x 11 + 1: one sample waits for another epoch.
        assert len(seen) == len(set(seen)) == 22
        left_out |= everything - set(seen)
    assert len(everything) == 23
    assert len(left_out) > 1


@pytest.mark.parametrize("layout", ["folder", "tars", "parquet"])
def test_real_labels_come_with_validation_images_of_imagenet(layout: str, tmp_path: Path) -> None:
    root = written(layout, tmp_path / "data", classes=1000, per_class=1, size=2)
    data = ImageNetDataModule(str(root), 2, batch_size=500, num_workers=0, real_labels=True)
    data.setup("validate")
    batches = list(data.val_dataloader())
    rows = torch.cat([batch["real_labels"] for batch in batches])
    assert rows.dtype == torch.int64
    assert len(rows) == 1000
    labels = json.loads(
        (Path(timm.__file__).parent / "data/_info/imagenet_real_labels.json").read_text()
    )
    for row, path, number in zip(rows.tolist(), shown(batches, "path"), range(1000), strict=True):
        if layout != "parquet":  # Whose rows are numbered.
            number = int(re.search(r"val_(\d+)", path)[1]) - 1
        known = labels[number]
        assert row == known + [-1] * (len(row) - len(known))
    assert (rows == -1).all(dim=1).sum() == sum(not known for known in labels[:1000]) > 0


def test_real_labels_of_other_images_are_refused(tmp_path: Path) -> None:
    miniature(tmp_path)
    data = miniature(tmp_path, real_labels=True)
    with pytest.raises(SuiteError, match="found: 3 classes\n"):
        data.setup("validate")
    data = ImageNetDataModule(real_labels=True)
    with pytest.raises(SuiteError, match="355 other names, such as .*digit_"):
        data.setup("validate")


def test_evaluation_resamples_as_asked(tmp_path: Path) -> None:
    images = []
    for interpolation in ("bicubic", "nearest"):
        data = miniature(tmp_path, img_size=8, interpolation=interpolation)
        data.setup("validate")
        images.append(next(iter(data.val_dataloader()))["image"])
    assert not torch.allclose(*images)


def test_evaluation_does_not_depend_on_the_batch_size(tmp_path: Path) -> None:
    images = []
    for val_batch_size in (None, 7):
        data = miniature(tmp_path, val_batch_size=val_batch_size)
        data.setup("validate")
        batches = list(data.val_dataloader())
        images.append(torch.cat([batch["image"] for batch in batches]))
        assert shown(batches, "index") == list(range(15))
    assert torch.equal(*images)


def test_two_processes_share_the_epoch(tmp_path: Path) -> None:
    class Place:
        world_size = 2

        def __init__(self, rank: int) -> None:
            self.global_rank = rank

    seen: dict[str, list[str]] = {"train": [], "val": []}
    for rank in range(2):
        data = miniature(tmp_path, batch_size=7)
        data.setup("fit")
        data.trainer = Place(rank)
        train = shown(list(data.train_dataloader()), "path")
        assert len(train) == 7
        seen["train"] += train
        seen["val"] += shown(list(data.val_dataloader()), "path")
    assert len(set(seen["train"])) == 14
    assert len(seen["val"]) == len(set(seen["val"])) == 15


def test_a_plain_folder_is_predicted_without_labels(tmp_path: Path) -> None:
    write_flat_layout(tmp_path / "flat", classes=2, per_class=3, size=8)
    data = miniature(tmp_path, predict_root=str(tmp_path / "flat" / "val"))
    paths = [p for batch in trainer(tmp_path).predict(Recorder(), data) for p in batch]
    assert paths == sorted(map(str, (tmp_path / "flat" / "val").iterdir()))
    assert data.info.class_names == ()
    assert next(iter(data.predict_dataloader()))["label"].tolist() == [-1] * 4


def test_overfit_batches_shows_the_same_samples_every_epoch(tmp_path: Path) -> None:
    module = Recorder()
    trainer(tmp_path, max_epochs=2, overfit_batches=1).fit(module, miniature(tmp_path))
    first, second = module.seen["train"]
    assert torch.equal(first["image"], second["image"])


def test_the_digest_tells_one_file_list_from_another(tmp_path: Path) -> None:
    def hash_of(folder: str, **sizes: int) -> str:
        write_folder_layout(tmp_path / folder, size=4, **sizes)
        data = ImageNetDataModule(root=str(tmp_path / folder))
        data.setup("fit")
        return data.info.hash

    assert hash_of("one") == hash_of("copy") != hash_of("longer", per_class=5)


def test_validation_does_not_list_the_training_files(tmp_path: Path) -> None:
    data = miniature(tmp_path)
    data.setup("validate")
    assert (data.info.num_train, data.info.num_val) == (0, 15)


def test_a_layout_that_does_not_fit_the_data_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SuiteError, match="(?s)expected: the layout devkit.*meta.mat"):
        trainer(tmp_path, max_epochs=1, num_sanity_val_steps=0).fit(
            Recorder(), miniature(tmp_path, layout="devkit")
        )


def test_a_set_smaller_than_a_batch_is_one_even_batch_with_a_warning(tmp_path: Path) -> None:
    data = miniature(tmp_path, batch_size=16)
    data.setup("fit")
    with pytest.warns(UserWarning, match="15 images for each process, fewer than batch_size 16"):
        batches = list(data.train_dataloader())
    assert [len(batch["image"]) for batch in batches] == [14]
    assert data.info.batch_size == 16


def test_more_processes_than_validation_images_are_refused(tmp_path: Path) -> None:
    data = miniature(tmp_path)
    data.setup("validate")
    data._place = lambda: (0, 16)  # type: ignore[method-assign]
    with pytest.raises(SuiteError, match="evaluate on fewer devices"):
        data.val_dataloader()


def test_info_before_setup_is_refused() -> None:
    with pytest.raises(SuiteError, match="info asked for before setup"):
        _ = ImageNetDataModule().info


@pytest.mark.parametrize("missing, found", [("empty", "none in it"), ("absent", "no such folder")])
def test_a_predict_root_without_images_is_refused(tmp_path: Path, missing: str, found: str) -> None:
    (tmp_path / "empty").mkdir()
    data = ImageNetDataModule(predict_root=str(tmp_path / missing))
    with pytest.raises(SuiteError, match=found):
        data.setup("predict")
