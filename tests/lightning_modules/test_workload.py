"""Workload under a real Trainer: honest checkpoints, pretrained weights, the step itself."""

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from torch import Tensor, nn

from blocks import Recorded
from blocks.errors import SuiteError
from blocks.weights import read_state_dict
from datamodules.vision import Augment, ImageNetDataModule
from lightning_modules.ema import EMA
from lightning_modules.optimization import Optimizer, Schedule, learning_rate
from lightning_modules.vision import ImageClassification, Mixing, VisionMamba
from lightning_modules.workload import CHECKPOINT_SCHEMA, Workload

PLAIN = Augment(policy="none")
UNMIXED = Mixing(mixup=0.0, cutmix=0.0)
IMAGES = torch.linspace(-2, 2, 2 * 3 * 16 * 16).view(2, 3, 16, 16)


class Losses(Callback):
    """Keeps loss and learning rate of every training batch."""

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.rates: list[float] = []

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        self.rates.append(trainer.optimizers[0].param_groups[0]["lr"])

    def on_train_batch_end(self, trainer: Trainer, module: Any, outputs: Any, *_: Any) -> None:
        self.losses.append(float(outputs["loss"]))


class Plain(Recorded, nn.Module):
    """A network without anything of VisionMamba's."""

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.head = nn.Linear(3 * 16 * 16, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(images.flatten(1))


def network(**options: Any) -> VisionMamba:
    given = {"img_size": 16, "patch_size": 8, "dim": 16, "depth": 1, "num_classes": 10}
    return VisionMamba(**{**given, "drop_path": 0.0, **options})


def module(net: nn.Module | None = None, **options: Any) -> ImageClassification:
    torch.manual_seed(0)
    given: dict[str, Any] = {
        "optimizer": Optimizer(lr=1e-3, lr_scale_batch=None),
        "schedule": Schedule(warmup_epochs=0.0),
        "mixing": UNMIXED,
    }
    return ImageClassification(net or network(), **{**given, **options})


def digits(batch_size: int = 4, **options: Any) -> ImageNetDataModule:
    given = {"img_size": 16, "num_workers": 0, "augment": PLAIN, "crop_pct": 1.0}
    return ImageNetDataModule(batch_size=batch_size, **{**given, **options})


def trainer(root: Path, *callbacks: Callback, **options: Any) -> Trainer:
    given: dict[str, Any] = {"max_epochs": 1, "limit_train_batches": 2, "limit_val_batches": 1}
    return Trainer(
        accelerator="cpu",
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        default_root_dir=root,
        callbacks=list(callbacks),
        **{**given, **options},
    )


def weights(of: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in of.state_dict().items()}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[ImageClassification, Path]:
    """A module after two steps, and its checkpoint."""
    root = tmp_path_factory.mktemp("trained")
    run, trained = trainer(root), module(label_smoothing=0.2)
    run.fit(trained, digits())
    run.save_checkpoint(root / "run.ckpt")
    return trained.eval(), root / "run.ckpt"


def changed(path: Path, tmp_path: Path, **entries: Any) -> Path:
    """The checkpoint with other entries; None removes one."""
    content = {**torch.load(path, weights_only=True), **entries}
    torch.save({k: v for k, v in content.items() if v is not None}, tmp_path / "changed.ckpt")
    return tmp_path / "changed.ckpt"


# ---- checkpoints --------------------------------------------------------------------------------


def test_a_checkpoint_holds_plain_data_only(trained: tuple[ImageClassification, Path]) -> None:
    content = torch.load(trained[1], weights_only=True)
    assert content["schema"] == CHECKPOINT_SCHEMA
    for part in ("info", "hyper_parameters"):
        assert json.loads(json.dumps(content[part])) == content[part]
    assert content["info"]["class_names"] == list("0123456789")
    assert content["info"]["batch_size"] == 4
    assert content["info"]["synthetic"] is True
    given = content["hyper_parameters"]
    assert given["_class_path"].endswith(".ImageClassification")
    assert given["network"]["class_path"].endswith(".VisionMamba")
    assert given["network"]["init_args"]["dim"] == 16
    assert given["optimizer"]["lr"] == 1e-3
    assert given["label_smoothing"] == 0.2


def test_a_module_built_in_python_reloads_with_equal_outputs(
    trained: tuple[ImageClassification, Path],
) -> None:
    original, path = trained
    again = ImageClassification.load_from_checkpoint(path, map_location="cpu").eval()
    assert torch.equal(again(IMAGES), original(IMAGES))
    assert again.label_smoothing == 0.2
    assert again.mixing == UNMIXED
    assert again.optimizer_config == original.optimizer_config
    assert again.schedule_config == original.schedule_config
    assert again.info == original.info
    assert again.init_call == original.init_call


def test_a_reloaded_module_trains_on_and_saves_the_same_call(
    trained: tuple[ImageClassification, Path], tmp_path: Path
) -> None:
    again = ImageClassification.load_from_checkpoint(trained[1])
    before = weights(again)
    run = trainer(tmp_path)
    run.fit(again, digits())
    assert not same(weights(again), before)
    run.save_checkpoint(tmp_path / "second.ckpt")
    old, new = (torch.load(p, weights_only=True) for p in (trained[1], tmp_path / "second.ckpt"))
    assert new["hyper_parameters"] == old["hyper_parameters"]


def test_a_resumed_fit_goes_on_from_the_stored_step(
    trained: tuple[ImageClassification, Path], tmp_path: Path
) -> None:
    resumed, run, seen = module(label_smoothing=0.2), trainer(tmp_path, max_epochs=2), Losses()
    run.callbacks.append(seen)
    run.fit(resumed, digits(), ckpt_path=trained[1])
    assert run.global_step == 4
    assert len(seen.losses) == 2


def test_a_network_that_records_nothing_is_refused_when_the_module_is_built() -> None:
    with pytest.raises(SuiteError, match=r"blocks\.Recorded"):
        ImageClassification(nn.Sequential(nn.Flatten(), nn.Linear(768, 10)))


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"schema": None}, "pretrained"),
        ({"schema": CHECKPOINT_SCHEMA + 1}, f"schema {CHECKPOINT_SCHEMA + 1}"),
        ({"schema": "timm"}, "pretrained"),
    ],
    ids=["foreign", "newer", "of another program"],
)
def test_foreign_and_newer_checkpoints_are_refused_with_a_cure(
    trained: tuple[ImageClassification, Path], tmp_path: Path, entries: dict[str, Any], message: str
) -> None:
    path = changed(trained[1], tmp_path, **entries)
    with pytest.raises(SuiteError, match=message):
        ImageClassification.load_from_checkpoint(path)
    with pytest.raises(SuiteError, match=message) as caught:
        trainer(tmp_path).fit(module(), digits(), ckpt_path=path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"net": {"dim": 32}}, r"\(1, 1, 16\) in the file, \(1, 1, 32\) in the model"),
        ({"net": {"depth": 2}}, r"layers\.1.*nothing in the file"),
        ({"net": {"class_token": "none"}}, r"pos_embed"),
    ],
    ids=["wider", "deeper", "without class token"],
)
def test_the_checkpoint_of_another_model_is_refused_by_its_differences(
    trained: tuple[ImageClassification, Path], tmp_path: Path, other: dict[str, Any], message: str
) -> None:
    wrong = module(network(**other["net"]))
    before = weights(wrong)
    for verb in ("fit", "test"):
        with pytest.raises(SuiteError, match=message):
            getattr(trainer(tmp_path), verb)(
                wrong, datamodule=digits(), ckpt_path=trained[1], **{"weights_only": True}
            )
    assert same(weights(wrong), before)


def test_prediction_recalls_the_classes_from_the_checkpoint(
    trained: tuple[ImageClassification, Path], tmp_path: Path
) -> None:
    from PIL import Image

    (tmp_path / "images").mkdir()
    Image.new("RGB", (20, 20)).save(tmp_path / "images" / "a.png")
    fresh = module()
    data = digits(predict_root=str(tmp_path / "images"))
    trainer(tmp_path).predict(fresh, data, ckpt_path=trained[1])
    assert fresh.info["class_names"] == list("0123456789")
    assert fresh.info["root"] == str(tmp_path / "images")
    assert same(weights(fresh), weights(trained[0]))


def test_the_checkpoint_of_another_workload_names_the_class_that_loads_it(
    trained: tuple[ImageClassification, Path],
) -> None:
    with pytest.raises(SuiteError, match=r"call ImageClassification\.load_from_checkpoint"):
        Workload.load_from_checkpoint(trained[1])


# ---- pretrained weights -------------------------------------------------------------------------


class First(Callback):
    """The weights that training, and a moving average, start from."""

    def on_fit_start(self, trainer: Trainer, module: LightningModule) -> None:
        assert isinstance(module, Workload)
        self.weights = weights(module.network)


def started(tmp_path: Path, started_module: Workload, **options: Any) -> dict[str, Tensor]:
    first = First()
    data = options.pop("data", None) or digits()
    trainer(tmp_path, first, **options.pop("trainer", {})).fit(started_module, data, **options)
    return first.weights


def test_pretrained_weights_are_where_training_starts(
    trained: tuple[ImageClassification, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        start = started(tmp_path, module(pretrained=str(trained[1])))
    assert same(start, weights(trained[0].network))
    assert "100.0% of weights" in caplog.text


def test_pretrained_weights_resize_positions_and_start_a_new_head(
    trained: tuple[ImageClassification, Path], tmp_path: Path
) -> None:
    torch.manual_seed(3)
    net = network(img_size=24, num_classes=10)
    torch.save({"model": network(num_classes=4).state_dict(), "epoch": 1}, tmp_path / "vim.pth")
    old = read_state_dict(tmp_path / "vim.pth")
    head = net.head.weight.clone()
    start = started(
        tmp_path, module(net, pretrained=str(tmp_path / "vim.pth")), data=digits(img_size=24)
    )
    assert start["pos_embed"].shape == (1, 10, 16)
    assert torch.equal(start["pos_embed"][:, 4], old["pos_embed"][:, 2])
    assert torch.equal(start["layers.0.mixer.A_log"], old["layers.0.mixer.A_log"])
    assert torch.equal(start["head.weight"], head)


def test_pretrained_averages_are_taken_on_request(tmp_path: Path) -> None:
    raw, average = network().state_dict(), network().state_dict()
    torch.save({"model": raw, "model_ema": average}, tmp_path / "vim.pth")
    given = {"pretrained": str(tmp_path / "vim.pth")}
    assert same(started(tmp_path, module(**given)), raw)
    assert same(started(tmp_path, module(**given, pretrained_weights="model_ema")), average)


def test_pretrained_weights_of_another_network_stop_the_run(tmp_path: Path) -> None:
    torch.save(network(dim=32).state_dict(), tmp_path / "wide.pth")
    with pytest.raises(SuiteError, match="in the file"):
        started(tmp_path, module(pretrained=str(tmp_path / "wide.pth")))


def test_a_resumed_run_neither_needs_nor_takes_its_pretrained_weights(
    trained: tuple[ImageClassification, Path], tmp_path: Path
) -> None:
    resumed = module(pretrained=str(tmp_path / "gone.pth"))
    start = started(
        tmp_path, resumed, trainer={"max_epochs": 2}, ckpt_path=trained[1], weights_only=True
    )
    assert same(start, weights(trained[0].network))


def test_a_reloaded_module_does_not_go_back_to_its_pretrained_weights(tmp_path: Path) -> None:
    torch.save(network().state_dict(), tmp_path / "start.pth")
    run, first = trainer(tmp_path), module(pretrained=str(tmp_path / "start.pth"))
    run.fit(first, digits())
    run.save_checkpoint(tmp_path / "run.ckpt")
    (tmp_path / "start.pth").unlink()  # Not needed any more either.
    again = ImageClassification.load_from_checkpoint(tmp_path / "run.ckpt")
    assert same(started(tmp_path, again), weights(first.network))
    assert same(started(tmp_path, first), weights(again.network)) is False


def test_evaluating_a_checkpoint_needs_no_pretrained_file(tmp_path: Path) -> None:
    run = trainer(tmp_path, limit_test_batches=1)
    run.test(module(), digits(), verbose=False)
    run.save_checkpoint(tmp_path / "own.ckpt")
    gone = module(pretrained=str(tmp_path / "gone.pth"))
    run.test(gone, digits(), ckpt_path=tmp_path / "own.ckpt", verbose=False)
    # Without a checkpoint these weights are what is to be evaluated.
    again = module(pretrained=str(tmp_path / "gone.pth"))
    with pytest.raises(SuiteError, match="no such file"):
        run.test(again, digits(), verbose=False)


# ---- the step -----------------------------------------------------------------------------------


def test_accumulating_two_batches_equals_one_of_twice_the_size(tmp_path: Path) -> None:
    found = []
    for batch_size, accumulated in ((4, 2), (8, 1)):
        taught = module(optimizer=Optimizer("momentum", lr=0.5, lr_scale_batch=None))
        run = trainer(
            tmp_path,
            accumulate_grad_batches=accumulated,
            limit_train_batches=accumulated,
        )
        run.fit(taught, digits(batch_size))
        assert run.global_step == 1
        found.append(weights(taught.network))
    start = module().network.state_dict()
    for name in start:
        assert torch.allclose(found[0][name], found[1][name], rtol=1e-4, atol=1e-6), name
    assert any((found[0][name] - start[name]).abs().max() > 1e-2 for name in start)


@pytest.mark.parametrize("accumulated", [1, 3])
def test_the_rate_in_use_is_the_rule_with_accumulation(tmp_path: Path, accumulated: int) -> None:
    config, schedule = Optimizer(lr=0.1, lr_scale_batch=64), Schedule(warmup_epochs=0.5)
    seen = Losses()
    trainer(
        tmp_path,
        seen,
        max_epochs=2,
        limit_train_batches=6,
        accumulate_grad_batches=accumulated,
    ).fit(module(optimizer=config, schedule=schedule), digits(4))
    lr = 0.1 * 4 * accumulated / 64
    expected = [
        learning_rate(batch // accumulated * accumulated / 6, lr=lr, epochs=2, schedule=schedule)
        for batch in range(12)
    ]
    assert seen.rates == pytest.approx(expected, rel=1e-9)


def test_a_run_measured_in_steps_ends_at_the_lowest_rate(tmp_path: Path) -> None:
    seen = Losses()
    trainer(tmp_path, seen, max_epochs=-1, max_steps=5).fit(module(), digits())
    schedule = Schedule(warmup_epochs=0.0)
    expected = [learning_rate(s / 2, lr=1e-3, epochs=2.5, schedule=schedule) for s in range(5)]
    assert seen.rates == pytest.approx(expected, rel=1e-9)


def test_a_run_without_end_has_no_schedule_and_says_so(tmp_path: Path) -> None:
    with pytest.raises(SuiteError, match="max_epochs"):
        trainer(tmp_path, max_epochs=-1).fit(module(), digits())


def test_a_stream_without_an_end_needs_a_nominal_epoch(tmp_path: Path) -> None:
    class Stream(torch.utils.data.IterableDataset[dict[str, Tensor]]):
        def __iter__(self) -> Iterator[dict[str, Tensor]]:
            while True:
                yield {"image": IMAGES[0], "label": torch.tensor(3)}

    loader, taught = torch.utils.data.DataLoader(Stream(), batch_size=4), module()
    taught.info = {"class_names": list("0123456789")}
    options: dict[str, Any] = {"max_epochs": -1, "max_steps": 4, "limit_val_batches": 0}
    with pytest.raises(SuiteError, match="nominal epoch"):
        trainer(tmp_path, limit_train_batches=None, **options).fit(taught, loader)
    run = trainer(tmp_path, **options)
    run.fit(taught, loader)
    assert run.global_step == 4


def test_a_rising_cosine_stops_the_run_before_the_first_batch(tmp_path: Path) -> None:
    seen = Losses()
    with pytest.raises(SuiteError, match="lr_scale_batch"):
        trainer(tmp_path, seen).fit(module(optimizer=Optimizer(lr=1e-4)), digits(4))
    assert seen.losses == []


def test_clipped_gradients_move_the_weights_by_the_clip(tmp_path: Path) -> None:
    taught = module(
        optimizer=Optimizer("momentum", lr=1.0, momentum=0.0, weight_decay=0.0, lr_scale_batch=None)
    )
    before = weights(taught)
    trainer(tmp_path, gradient_clip_val=0.01, limit_train_batches=1).fit(taught, digits())
    moved = torch.stack([(weights(taught)[k] - before[k]).norm() for k in before]).norm()
    assert float(moved) == pytest.approx(0.01, rel=1e-3)


def test_mixed_precision_trains_and_keeps_float32_weights(tmp_path: Path) -> None:
    seen, taught = Losses(), module()
    before = weights(taught)
    trainer(tmp_path, seen, precision="bf16-mixed").fit(taught, digits())
    assert all(map(torch.isfinite, map(torch.tensor, seen.losses)))
    assert not same(before, weights(taught))
    assert {value.dtype for value in taught.parameters()} == {torch.float32}


def test_weight_averaging_stores_both_averages_and_raw_weights(tmp_path: Path) -> None:
    class Keep(Callback):
        def on_train_epoch_end(self, trainer: Trainer, module: LightningModule) -> None:
            self.raw = weights(module)
            trainer.save_checkpoint(tmp_path / "ema.ckpt")

    keep = Keep()
    taught = module()
    trainer(tmp_path, EMA(decay=0.5), keep, limit_train_batches=3).fit(taught, digits())
    content = torch.load(tmp_path / "ema.ckpt", weights_only=True)
    raw, average = content["current_model_state"], content["state_dict"]
    assert same(raw, keep.raw)
    assert raw.keys() == average.keys()
    assert not torch.equal(raw["network.head.weight"], average["network.head.weight"])
    for choice, expected in (("model", raw), ("model_ema", average)):
        found = read_state_dict(tmp_path / "ema.ckpt", choice)
        assert same({f"network.{k}": v for k, v in found.items()}, expected)
    reloaded = ImageClassification.load_from_checkpoint(tmp_path / "ema.ckpt")
    assert same(weights(reloaded), average)


def test_compiling_keeps_keys_and_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = []

    def eager(self: nn.Module, *args: Any, **kwargs: Any) -> None:
        compiled.append(type(self))
        original(self, *args, backend="eager", **kwargs)

    original = nn.Module.compile
    monkeypatch.setattr(nn.Module, "compile", eager)
    taught, reference = module(compile_network=True), module()
    keys = list(taught.state_dict())
    for each in (taught, reference):
        trainer(tmp_path).fit(each, digits())
    assert set(compiled) == {VisionMamba}
    assert list(taught.state_dict()) == keys
    for name, value in weights(reference).items():
        assert torch.allclose(taught.state_dict()[name], value, atol=1e-5), name


@pytest.mark.slow
def test_the_default_compiler_trains_the_network(tmp_path: Path) -> None:
    seen = Losses()
    trainer(tmp_path, seen).fit(module(compile_network=True), digits())
    reference = Losses()
    trainer(tmp_path, reference).fit(module(), digits())
    assert seen.losses == pytest.approx(reference.losses, rel=1e-4)


def test_one_batch_is_learned_by_heart(tmp_path: Path) -> None:
    seed_everything(0, verbose=False)
    seen = Losses()
    taught = module(
        network(dim=32, backward_dt_init="matched"),
        optimizer=Optimizer(lr=1e-2, lr_scale_batch=None),
        label_smoothing=0.0,
    )
    run = trainer(
        tmp_path,
        seen,
        max_epochs=60,
        overfit_batches=1,
        limit_train_batches=None,
        limit_val_batches=0,
    )
    run.fit(taught, digits(16))
    assert len(seen.losses) == 60
    assert seen.losses[-1] <= 0.1 * seen.losses[0]


# ---- data that do not fit -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("net", "data", "message"),
    [
        ({"num_classes": 7}, {}, "set it to 10"),
        ({}, {"img_size": 24}, r"set it to \[24, 24\]"),
        ({"img_size": (16, 24)}, {}, r"set it to \[16, 16\]"),
    ],
    ids=["classes", "larger images", "wider network"],
)
def test_data_that_do_not_fit_the_network_stop_the_run_with_the_cure(
    tmp_path: Path, net: dict[str, Any], data: dict[str, Any], message: str
) -> None:
    for verb in ("fit", "test"):
        with pytest.raises(SuiteError, match=message) as caught:
            getattr(trainer(tmp_path), verb)(module(network(**net)), digits(**data))
        assert f"model.init_args.network.init_args.{next(iter(net or data))}" in str(caught.value)


def test_a_network_of_any_image_size_takes_any_data(tmp_path: Path) -> None:
    trainer(tmp_path).fit(module(network(dynamic_img_size=True)), digits(img_size=24))


def test_a_network_that_says_nothing_of_sizes_is_trusted(tmp_path: Path) -> None:
    taught = module(Plain())
    trainer(tmp_path).fit(taught, digits())
    assert taught.info["img_size"] == 16


def test_the_base_class_asks_for_its_step(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="must define _shared_step"):
        Workload(Plain()).training_step({}, 0)
