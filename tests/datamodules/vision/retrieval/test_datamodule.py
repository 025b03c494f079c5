"""RetrievalDataModule with Lightning's Trainer, on miniatures in the true layouts."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint

from bimamba.main import main
from blocks.errors import SuiteError
from datamodules.vision import RetrievalAugment, RetrievalDataModule
from datamodules.vision.retrieval.miniatures import write_folders, write_market, write_university

STILL = RetrievalAugment(pad=0, hflip=0.0, erasing=0.0, satellite_degrees=0.0)


class Recorder(LightningModule):
    """Keeps what it is shown."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.train_seen: list[dict[str, Any]] = []
        self.val_seen: list[dict[str, Any]] = []

    def training_step(self, batch: dict[str, Any], _: int) -> torch.Tensor:
        self.train_seen.append(batch)
        return self.weight * batch["image"].mean()

    def validation_step(self, batch: dict[str, Any], _: int) -> None:
        self.val_seen.append(batch)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.1)


def trainer(tmp_path: Path, **options: Any) -> Trainer:
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    return Trainer(
        accelerator="cpu",
        enable_model_summary=False,
        default_root_dir=tmp_path,
        num_sanity_val_steps=0,
        **quiet | options,
    )


def market(tmp_path: Path, **options: Any) -> RetrievalDataModule:
    root = tmp_path / "market1501"
    if not root.exists():
        write_market(root, train=6)
    given = {"img_size": (16, 8), "batch_size": 8, "instances": 2, "num_workers": 0} | options
    return RetrievalDataModule(root=str(root), **given)


def university(tmp_path: Path, **options: Any) -> RetrievalDataModule:
    root = tmp_path / "university"
    if not root.exists():
        write_university(root)
    given = {"img_size": 16, "batch_size": 8, "instances": 2, "num_workers": 0} | options
    return RetrievalDataModule(root=str(root), **given)


def shown(batches: list[dict[str, Any]], key: str) -> list[Any]:
    return [
        value.item() if isinstance(value, torch.Tensor) else value
        for batch in batches
        for value in batch[key]
    ]


class Place:
    """Stands for the Trainer of one of several processes."""

    def __init__(self, rank: int, world: int) -> None:
        self.global_rank, self.world_size = rank, world


@pytest.mark.parametrize("make", [market, university])
def test_a_batch_is_what_the_table_says(tmp_path: Path, make: Any) -> None:
    data = make(tmp_path)
    data.setup("fit")
    for loader, more in ((data.train_dataloader(), set()), (data.val_dataloader(), {"role"})):
        batch = next(iter(loader))
        keys = {"identity", "camera", "view", "index"} | more
        assert set(batch) == keys | {"image", "path"}
        assert batch["image"].shape == (8, 3, *data.info.img_size)
        assert batch["image"].dtype == torch.float32
        for key in keys:
            assert (batch[key].shape, batch[key].dtype) == ((8,), torch.int64)
        assert all(Path(path).is_file() for path in batch["path"])


def test_training_labels_follow_the_sorted_persons_evaluation_keeps_the_numbers(
    tmp_path: Path,
) -> None:
    data = market(tmp_path)
    data.setup("fit")
    train, val = list(data.train_dataloader()), list(data.val_dataloader())
    for path, label in zip(shown(train, "path"), shown(train, "identity"), strict=True):
        assert label == [1, 3, 5, 7, 9, 11].index(int(Path(path).name[:4]))
    for path, number, camera, role in zip(
        *(shown(val, key) for key in ("path", "identity", "camera", "role")), strict=True
    ):
        assert number == int(Path(path).name[:4])
        assert camera == int(Path(path).name[6]) - 1
        assert role == (Path(path).parent.name != "query")
    assert (data.info.num_identities, data.info.num_cameras) == (6, 2)
    assert (data.info.protocol, data.info.views) == ("cmc_camera", ("image",))


def test_evaluation_shows_queries_then_gallery_once(tmp_path: Path) -> None:
    data = market(tmp_path, val_batch_size=7)
    data.setup("test")
    batches = list(data.test_dataloader())
    assert shown(batches, "index") == list(range(20))
    assert shown(batches, "role") == [0] * 6 + [1] * 14
    assert (data.info.num_query, data.info.num_gallery) == (6, 14)


@pytest.mark.parametrize("sampler", ["auto", "pk", "balanced"])
def test_a_batch_has_p_identities_with_k_images(tmp_path: Path, sampler: str) -> None:
    data = market(tmp_path, sampler=sampler)
    data.setup("fit")
    loader = data.train_dataloader()
    batches = list(loader)
    assert len(batches) == len(loader) == 4  # 6 persons with 3 chunks each, 4 at a time.
    for batch in batches:
        assert batch["identity"].unique(return_counts=True)[1].tolist() == [2, 2, 2, 2]
        if sampler == "balanced":
            assert batch["camera"].reshape(4, 2).sum(1).tolist() == [1, 1, 1, 1]


def test_shuffle_shows_every_image_once(tmp_path: Path) -> None:
    data = market(tmp_path, sampler="shuffle", batch_size=9)
    data.setup("fit")
    assert sorted(shown(list(data.train_dataloader()), "index")) == list(range(36))
    data = market(tmp_path, sampler="shuffle", batch_size=37)
    data.setup("fit")
    with pytest.raises(SuiteError, match="at least 37 training images"):
        data.train_dataloader()


def test_a_cross_view_batch_is_two_halves_of_the_same_buildings(tmp_path: Path) -> None:
    data = university(tmp_path)
    data.setup("fit")
    assert data.info.views == ("satellite", "drone")
    assert (data.info.direction, data.info.protocol) == ("drone_to_satellite", "trapezoid")
    for batch in data.train_dataloader():
        assert batch["view"].tolist() == [0] * 4 + [1] * 4
        assert batch["identity"][:4].tolist() == batch["identity"][4:].tolist()
        assert ["satellite" in path for path in batch["path"]] == [True] * 4 + [False] * 4


def test_training_views_set_the_order_of_the_halves(tmp_path: Path) -> None:
    data = university(tmp_path, train_views=("drone", "satellite"))
    data.setup("fit")
    batch = next(iter(data.train_dataloader()))
    assert ["drone" in path for path in batch["path"]] == [True] * 4 + [False] * 4
    one = university(tmp_path, train_views=("drone",), batch_size=4)
    one.setup("fit")
    assert len(next(iter(one.train_dataloader()))["identity"].unique()) == 2


@pytest.mark.parametrize("make", [market, university])
def test_worker_count_changes_no_pixel_of_two_epochs(tmp_path: Path, make: Any) -> None:
    seen = []
    for num_workers in (0, 2):
        seed_everything(7, verbose=False)
        module = Recorder()
        trainer(tmp_path, max_epochs=2).fit(module, make(tmp_path, num_workers=num_workers))
        seen.append(module.train_seen)
    assert shown(seen[0], "path") == shown(seen[1], "path")
    assert torch.equal(*(torch.cat([batch["image"] for batch in epoch]) for epoch in seen))


def test_two_processes_see_the_images_of_one_with_twice_the_batch(tmp_path: Path) -> None:
    def seen(rank: int, world: int, batch_size: int) -> dict[str, list[dict[str, Any]]]:
        data = market(tmp_path, batch_size=batch_size)
        data.setup("fit")
        data.trainer = Place(rank, world)  # type: ignore[assignment]
        return {"train": list(data.train_dataloader()), "val": list(data.val_dataloader())}

    whole, *halves = seen(0, 1, 8), seen(0, 2, 4), seen(1, 2, 4)
    for step, together in enumerate(whole["train"]):
        own = {int(i): image for i, image in zip(together["index"], together["image"], strict=True)}
        parts = [half["train"][step] for half in halves]
        assert sorted(shown(parts, "index")) == sorted(own)
        for part in parts:
            for index, image in zip(part["index"], part["image"], strict=True):
                assert torch.equal(image, own[int(index)])
    indices = [index for half in halves for index in shown(half["val"], "index")]
    assert sorted(indices) == list(range(20))


def test_training_goes_on_in_the_middle_of_an_epoch(tmp_path: Path) -> None:
    whole, rest = Recorder(), Recorder()
    keep = ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=6, save_top_k=-1)
    options = {"max_epochs": 2, "enable_checkpointing": True, "callbacks": [keep]}
    trainer(tmp_path, **options).fit(whole, market(tmp_path))
    run = trainer(tmp_path, **options)
    run.fit(rest, market(tmp_path), ckpt_path=tmp_path / "step=6.ckpt", weights_only=False)
    assert (len(whole.train_seen), len(rest.train_seen)) == (8, 2)
    assert shown(rest.train_seen, "path") == shown(whole.train_seen[6:], "path")
    for ours, theirs in zip(rest.train_seen, whole.train_seen[6:], strict=True):
        assert torch.equal(ours["image"], theirs["image"])


def test_validation_sees_pictures_without_augmentation(tmp_path: Path) -> None:
    once, again = market(tmp_path), market(tmp_path, augment=STILL)
    for data in (once, again):
        data.setup("fit")
    first, second = (next(iter(data.val_dataloader()))["image"] for data in (once, again))
    assert torch.equal(first, second)


def test_mean_and_std_are_used(tmp_path: Path) -> None:
    plain = market(tmp_path, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    plain.setup("test")
    half = market(tmp_path)
    half.setup("test")
    first, second = (next(iter(data.val_dataloader()))["image"] for data in (plain, half))
    torch.testing.assert_close(second, (first - 0.5) / 0.5)
    assert plain.info.mean == (0.0, 0.0, 0.0)


def test_a_batch_that_cannot_be_filled_is_refused(tmp_path: Path) -> None:
    for options, found in (({"batch_size": 7}, "divides by 2"), ({"batch_size": 14}, "found: 6")):
        data = market(tmp_path, **options)
        data.setup("fit")
        with pytest.raises(SuiteError, match=found):
            data.train_dataloader()


def test_the_digest_tells_one_listing_from_another(tmp_path: Path) -> None:
    def hash_of(pattern: str | None, place: str) -> str:
        if not (tmp_path / place).exists():
            write_folders(tmp_path / place)
        data = RetrievalDataModule(str(tmp_path / place), camera_pattern=pattern)
        data.setup("fit")
        return data.info.hash

    assert hash_of(None, "one") == hash_of(None, "two") != hash_of(r"_c(\d)", "one")


def test_a_layout_without_an_embedded_set_needs_a_root() -> None:
    with pytest.raises(SuiteError, match="no embedded set in the layout msmt17"):
        RetrievalDataModule(layout="msmt17").prepare_data()


def test_more_processes_than_images_are_refused(tmp_path: Path) -> None:
    data = market(tmp_path)
    data.setup("validate")
    data.trainer = Place(0, 21)  # type: ignore[assignment]
    with pytest.raises(SuiteError, match="evaluate on fewer devices"):
        data.val_dataloader()


def test_a_relative_root_gives_absolute_paths(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_market(tmp_path / "here")
    monkeypatch.chdir(tmp_path)
    data = RetrievalDataModule("here", num_workers=0)
    data.setup("test")
    batch = next(iter(data.test_dataloader()))
    assert all(Path(path).is_relative_to(data.info.root) for path in batch["path"])
    assert Path(data.info.root).is_absolute()


def test_the_command_describes_and_validates_a_set(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_university(tmp_path / "university")
    config = tmp_path / "config.yaml"
    config.write_text(
        "model:\n  class_path: ImageClassification\n  init_args:\n"
        "    network: {class_path: VisionMamba, init_args: {dim: 8, depth: 1}}\n"
        "data:\n  class_path: RetrievalDataModule\n  init_args:\n"
        f"    root: {tmp_path / 'university'}\n    direction: satellite_to_drone\n"
    )
    assert main(["data", "describe", "--config", str(config)]) == 0
    assert "satellite to drone" in capsys.readouterr().out
    assert main(["data", "validate", "--config", str(config)]) == 0
    (tmp_path / "university/test/query_satellite/0002/0002.jpg").write_bytes(b"no image")
    assert main(["data", "validate", "--config", str(config)]) == 1


def test_info_before_setup_is_refused() -> None:
    with pytest.raises(SuiteError, match="info asked for before setup"):
        _ = RetrievalDataModule().info


def test_the_embedded_persons_train_and_validate(tmp_path: Path) -> None:
    module = Recorder()
    data = RetrievalDataModule(img_size=(64, 32), num_workers=0, val_batch_size=128)
    trainer(tmp_path, max_epochs=1, limit_train_batches=2).fit(module, data)
    assert data.info.synthetic and data.info.num_identities == 60
    assert len(shown(module.val_seen, "index")) == data.info.num_query + data.info.num_gallery
    assert module.train_seen[0]["identity"].unique(return_counts=True)[1].tolist() == [4] * 16
