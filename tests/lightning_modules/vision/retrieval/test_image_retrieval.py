"""The workload as a user meets it: trained, resumed, evaluated, and asked for the impossible."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer
from torch import Tensor

from blocks import Recorded
from blocks.errors import SuiteError
from lightning_modules.ema import EMA
from lightning_modules.optimization import Optimizer, Schedule
from lightning_modules.vision import (
    BNNeckHead,
    FSRAHead,
    ImageRetrieval,
    RetrievalLoss,
    VisionMamba,
    VMamba,
    timm_network,
)
from lightning_modules.vision.retrieval.expansion import Expansion
from lightning_modules.vision.retrieval.losses import id_loss, triplet_loss
from lightning_modules.vision.retrieval.reranking import ReRanking
from tests.lightning_modules.vision.retrieval.people import IDENTITIES, People, TinyNetwork

FAST = Optimizer(lr=0.02, weight_decay=0.0, lr_scale_batch=None)
CAMERA = {"mAP", "mINP", "rank1", "rank5", "rank10"}
TRAPEZOID = {"AP", "recall1", "recall5", "recall10", "recall_top1pct"}


def module(**options: Any) -> ImageRetrieval:
    torch.manual_seed(0)
    given = {"optimizer": FAST, "schedule": Schedule(warmup_epochs=0), **options}
    return ImageRetrieval(given.pop("network", TinyNetwork()), **given)


def trainer(tmp_path: Path, **options: Any) -> Trainer:
    return Trainer(
        **{
            "default_root_dir": tmp_path,
            "accelerator": "cpu",
            "logger": False,
            "enable_checkpointing": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "log_every_n_steps": 1,
            "max_epochs": 1,
            **options,
        }
    )


def people(tmp_path: Path, **options: Any) -> People:
    return People(str(tmp_path / "data"), **options)


def batch() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    labels = torch.arange(12) % 6
    images = torch.randn(12, 3, 16, 8, generator=generator)
    return {"image": images, "identity": labels, "view": torch.arange(12) // 6}


def test_training_learns_to_rank(tmp_path: Path) -> None:
    built, data = module(), people(tmp_path)
    run = trainer(tmp_path, max_epochs=8)
    run.validate(built, data, verbose=False)
    before = run.callback_metrics["val/mAP"].item()
    run.fit(built, data)
    names = {name.removeprefix("val/") for name in run.callback_metrics if name.startswith("val/")}
    assert names == CAMERA
    assert run.callback_metrics["val/mAP"] > max(before + 10, 80)
    assert {"train/id_loss", "train/triplet_loss"} <= run.callback_metrics.keys()
    assert (tmp_path / "pictures" / "val_ranked.png").stat().st_size > 10_000


def test_the_trapezoid_protocol_monitors_its_own_metric(tmp_path: Path) -> None:
    built = module(protocol="trapezoid")
    assert built.monitor == "val/AP" and ImageRetrieval.monitor == "val/mAP"
    run = trainer(tmp_path)
    run.fit(built, people(tmp_path, protocol="trapezoid"))
    names = {name.removeprefix("val/") for name in run.callback_metrics if name.startswith("val/")}
    assert names == TRAPEZOID


def test_data_of_the_other_protocol_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SuiteError, match="set it to trapezoid"):
        trainer(tmp_path).fit(module(), people(tmp_path, protocol="trapezoid"))


def test_the_loss_is_the_sum_of_its_parts() -> None:
    built = module(loss=RetrievalLoss(id_weight=2.0, triplet_weight=0.5, margin=None))
    built.adopt_data({"num_identities": 6})
    given = batch()
    tokens = built.network.forward_features(given["image"])
    pooled = tokens.mean(1)
    logits = built.head.classifier(built.head.neck(pooled))
    built.head.neck.reset_running_stats()
    found = built._losses(built.head(pooled, tokens), given)
    labels = given["identity"]
    assert torch.allclose(found["id_loss"], 2 * id_loss(logits, labels, 0.1))
    assert torch.allclose(found["triplet_loss"], 0.5 * triplet_loss(pooled, labels, None))


@pytest.mark.parametrize(
    ("loss", "names"),
    [
        (RetrievalLoss(triplet_weight=0), {"id_loss"}),
        (RetrievalLoss(id_weight=0), {"triplet_loss"}),
        (RetrievalLoss(triplet="weighted", triplet_metric="cosine"), {"id_loss", "triplet_loss"}),
        (
            RetrievalLoss(triplet="cross_view", kl_weight=1.0),
            {"id_loss", "triplet_loss", "kl_loss"},
        ),
    ],
)
@pytest.mark.parametrize("head", [BNNeckHead("before"), FSRAHead(parts=3, dim=4)], ids=type)
def test_every_loss_trains_every_head(loss: RetrievalLoss, names: set[str], head: Any) -> None:
    built = module(loss=loss, head=head)
    built.adopt_data({"num_identities": 6})
    tokens = built.network.forward_features(batch()["image"])
    found = built._losses(built.head(tokens.mean(1), tokens), batch())
    assert found.keys() == names
    torch.stack(list(found.values())).sum().backward()
    assert built.network.patch.weight.grad.abs().sum() > 0


def test_a_checkpoint_brings_head_and_identities_along(tmp_path: Path) -> None:
    built, data = module(head=FSRAHead(parts=2, dim=4, leaky_relu=True)), people(tmp_path)
    run = trainer(tmp_path)
    run.fit(built, data)
    run.save_checkpoint(tmp_path / "a.ckpt")
    torch.load(tmp_path / "a.ckpt", weights_only=True)
    again = ImageRetrieval.load_from_checkpoint(tmp_path / "a.ckpt", map_location="cpu")
    assert again.head.identities == IDENTITIES and again.head.leaky_relu
    images = batch()["image"]
    assert torch.equal(again.eval()(images), built.eval()(images))
    # A trainer of its own, on data of other people, none of whom it was trained on.
    other = module(head=FSRAHead(parts=2, dim=4, leaky_relu=True))
    strangers = people(tmp_path)
    object.__setattr__(strangers.info, "num_identities", None)
    found = trainer(tmp_path).test(other, strangers, str(tmp_path / "a.ckpt"), verbose=False)
    assert other.head.identities == IDENTITIES
    assert {name.removeprefix("test/") for name in found[0]} == CAMERA


def test_evaluating_after_training_leaves_the_classifier_alone(tmp_path: Path) -> None:
    built, data = module(), people(tmp_path)
    run = trainer(tmp_path)
    run.fit(built, data)
    before = built.head.classifier.weight.clone()
    run.test(built, data, verbose=False)
    assert torch.equal(built.head.classifier.weight, before)


def test_the_average_and_the_raw_weights_are_both_ranked(tmp_path: Path) -> None:
    built = module()
    run = trainer(tmp_path, max_epochs=2, callbacks=[EMA(decay=0.999, warmup=False)])
    run.fit(built, people(tmp_path))
    raw = {n.removeprefix("val_raw/") for n in run.callback_metrics if n.startswith("val_raw/")}
    assert raw == CAMERA
    assert run.callback_metrics["val_raw/mAP"] != run.callback_metrics["val/mAP"]


def test_a_part_of_the_evaluation_has_no_score_and_stops_nothing(tmp_path: Path) -> None:
    run = trainer(tmp_path, limit_val_batches=1)
    with pytest.warns(UserWarning, match="3 queries and 0 gallery"):
        run.fit(module(), people(tmp_path, val_batch=3))
    assert math.isnan(run.callback_metrics["val/mAP"])


def test_testing_can_re_rank_expand_and_verify(tmp_path: Path) -> None:
    built = module(rerank=ReRanking(4, 2), expansion=Expansion(2), fpr=(0.01,), flip_test=True)
    found = trainer(tmp_path).test(built, people(tmp_path), verbose=False)[0]
    wanted = CAMERA | {f"rerank_{name}" for name in CAMERA} | {"tpr_at_fpr_0.01"}
    assert {name.removeprefix("test/") for name in found} == wanted
    assert (tmp_path / "pictures" / "test_ranked.png").is_file()


def test_a_flip_adds_the_mirrored_features() -> None:
    images = batch()["image"]
    plain = module(distance="euclidean").eval()
    both = module(distance="euclidean", flip_test=True).eval()
    assert torch.allclose(both(images), plain(images) + plain(images.flip(-1)), atol=1e-6)
    assert torch.allclose(module(flip_test=True).eval()(images).norm(dim=1), torch.ones(12))


def test_predict_writes_features_in_the_order_of_the_data(tmp_path: Path) -> None:
    built, data = module(), people(tmp_path)
    run = trainer(tmp_path)
    run.predict(built, data, return_predictions=False)
    with np.load(tmp_path / "features.npz") as found:
        assert found["features"].shape == (36, 8) and found["features"].dtype == np.float32
        assert found["path"].tolist() == [row["path"] for row in data.test]
        assert found["identity"].tolist() == [row["identity"] for row in data.test]
        first = data.val_dataloader().dataset[0]["image"]
        assert np.allclose(found["features"][0], built.eval()(first[None])[0].detach(), atol=1e-6)


def test_networks_of_every_kind_are_taken(tmp_path: Path) -> None:
    images = torch.randn(2, 3, 32, 32)
    networks = {
        "vim": VisionMamba(img_size=32, patch_size=8, dim=16, depth=2, num_classes=10),
        "vmamba": VMamba(depths=(1, 1), dim=8, num_classes=None),
        "vit": timm_network(
            "vit_tiny_patch16_224", options={"img_size": 32, "depth": 1, "embed_dim": 24}
        ),
        "resnet": timm_network("resnet18"),
        "mobile": timm_network("mobilenetv3_small_050"),
    }
    for name, network in networks.items():
        for head in (BNNeckHead(), FSRAHead(parts=1, dim=8)):
            built = module(network=network, head=head).eval()
            found = built(images)
            assert found.shape[0] == 2 and found.isfinite().all(), name
            assert getattr(built.network, "num_classes", 0) == 0


def test_a_network_without_features_is_refused() -> None:
    class Plain(Recorded, torch.nn.Linear):
        pass

    with pytest.raises(SuiteError, match="Plain without forward_features"):
        ImageRetrieval(Plain(2, 2))


def test_class_tokens_are_no_patches() -> None:
    from lightning_modules.vision.retrieval.backbones import image_features

    images = torch.randn(2, 3, 32, 32)
    vim = VisionMamba(img_size=32, patch_size=8, dim=16, depth=1, num_classes=0).eval()
    pooled, patches = image_features(vim, images)
    assert patches.shape == (2, 16, 16)
    tokens = vim.forward_features(images)
    assert torch.equal(pooled, tokens[:, 8])
    assert torch.equal(patches, torch.cat((tokens[:, :8], tokens[:, 9:]), 1))
    vit = timm_network("vit_tiny_patch16_224", options={"img_size": 32, "depth": 1}).eval()
    assert image_features(vit, images)[1].shape[1] == 4


def test_heat_map_parts_are_groups_of_like_activation() -> None:
    head = FSRAHead(parts=3, dim=4)
    head.attach(2, 2)
    activation = torch.tensor([5.0, 1, 4, 2, 3, 0, 6])
    patches = torch.stack((activation, activation), dim=1)[None]
    groups = [group[0, 0].item() for group in head._groups(patches)]
    # Seven patches: two, two, and the three that are left.
    assert groups == [5.5, 3.5, 1.0]
    with pytest.raises(SuiteError, match="fewer parts"):
        head._groups(patches[:, :2])


def test_the_parts_of_a_descriptor_weigh_the_same() -> None:
    built = module(head=FSRAHead(parts=2, dim=4)).eval()
    parts = built(batch()["image"]).view(12, 3, 4)
    assert torch.allclose(parts.norm(dim=2), torch.full((12, 3), 3**-0.5), atol=1e-6)


def test_the_neck_decides_which_feature_describes() -> None:
    images = batch()["image"]
    before, after = (
        module(head=BNNeckHead(side), distance="euclidean").eval() for side in ("before", "after")
    )
    pooled = before.network.forward_features(images).mean(1)
    after.head.neck.running_mean += 1
    assert torch.equal(before(images), pooled)
    assert torch.allclose(after(images), (pooled - 1) / (1 + 1e-5) ** 0.5, atol=1e-6)
    assert not after.head.neck.bias.requires_grad


def test_a_cross_view_loss_needs_a_margin() -> None:
    with pytest.raises(SuiteError, match="a margin for the cross-view"):
        RetrievalLoss(triplet="cross_view", margin=None)
