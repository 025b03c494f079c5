"""Models of timm as the network of a workload."""

import copy
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import nn

from blocks.errors import SuiteError
from blocks.weights import load_weights
from lightning_modules.vision import ImageClassification, timm_network
from tests.conftest import ROOT

OPTIONS = {"img_size": 16, "patch_size": 8, "embed_dim": 16, "depth": 1, "num_heads": 2}


def test_it_is_timms_own_model() -> None:
    torch.manual_seed(0)
    ours = timm_network("vit_tiny_patch16_224", num_classes=5, options=OPTIONS)
    torch.manual_seed(0)
    theirs = timm.create_model("vit_tiny_patch16_224", num_classes=5, **OPTIONS)
    assert type(ours) is type(theirs)
    for (name, one), (other_name, other) in zip(
        ours.state_dict().items(), theirs.state_dict().items(), strict=True
    ):
        assert name == other_name and torch.equal(one, other)


def test_the_published_vim_names_work_too() -> None:
    network = timm_network("vim_tiny_patch16_224", options={"depth": 1, "img_size": 32})
    assert type(network).__name__ == "VisionMamba"


def test_a_checkpoint_rebuilds_it(tmp_path: Path) -> None:
    from bimamba.cli import run

    words = ["fit", "--config", str(ROOT / "configs" / "demo" / "vision.yaml")]
    network = tmp_path / "network.yaml"
    network.write_text(
        "model: {init_args: {network: {class_path: lightning_modules.vision.timm_network, "
        f"init_args: {{name: vit_tiny_patch16_224, num_classes: 10, options: {OPTIONS}}}}}}}}}"
        "\ndata: {init_args: {img_size: 16}}\ntrainer: {max_epochs: 1, limit_train_batches: 1, "
        "limit_val_batches: 1}\n"
    )
    words += ["--config", str(network), "--output", str(tmp_path), "--run_name", "r"]
    trained = run(words).model.network
    path = tmp_path / "demo_vision" / "r" / "checkpoints" / "last.ckpt"
    loaded = ImageClassification.load_from_checkpoint(path).network
    images = torch.randn(2, 3, 16, 16)
    assert torch.equal(trained.eval()(images), loaded.eval()(images))


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("vit_tiny_patch16_24", {}, "did you mean vit_tiny_patch16_224?"),
        ("vit_tiny_patch16_224", {"dpth": 3}, "dpth"),
    ],
)
def test_wrong_names_and_options_are_told(name: str, options: dict[str, int], said: str) -> None:
    with pytest.raises(SuiteError, match=said.replace("?", r"\?")):
        timm_network(name, options=options)


# ---- what our workloads ask of it ---------------------------------------------------------------


def vit(**options: Any) -> nn.Module:
    torch.manual_seed(0)
    given = {"embed_dim": 16, "depth": 2, "num_heads": 2, "patch_size": 8}
    return timm_network("vit_tiny_patch16_224", img_size=16, options=given, **options)


def test_null_classes_wait_for_the_data_and_are_recorded() -> None:
    network: Any = vit(num_classes=None)
    images = torch.randn(2, 3, 16, 16)
    assert network.num_classes is None and network(images).shape == (2, 16)
    network.reset_classifier(3)
    assert network(images).shape == (2, 3)
    again: Any = timm_network(**network.init_call["init_args"])
    again.load_state_dict(network.state_dict())
    assert torch.equal(again.eval()(images), network.eval()(images))


def test_written_out_attention_gives_the_same_numbers_and_keeps_its_matrix() -> None:
    images = torch.randn(2, 3, 16, 16)
    fused, plain = vit().eval(), vit(fused_attention=False).eval()
    assert {block.attn.fused_attn for block in plain.blocks} == {False}  # type: ignore[union-attr, operator]
    assert {block.attn.fused_attn for block in fused.blocks} == {True}  # type: ignore[union-attr, operator]
    assert torch.allclose(fused(images), plain(images), atol=1e-6)
    with pytest.raises(SuiteError, match="fused_attention"):
        timm_network("resnet18", fused_attention=False)


def test_drop_path_is_the_suites_word() -> None:
    network: Any = vit(drop_path=0.3)
    assert network.blocks[-1].drop_path1.drop_prob == pytest.approx(0.3)
    assert timm_network("vim_tiny_patch16_224", drop_path=0.2, img_size=32, options={"depth": 1})


def test_what_another_network_left_in_the_config_gives_way_to_options() -> None:
    # Where only class_path changes, the parser keeps arguments that both classes have.
    network: Any = vit()
    options = {**network.init_call["init_args"]["options"], "img_size": 32, "drop_path_rate": 0.5}
    network = timm_network("vit_tiny_patch16_224", img_size=16, drop_path=0.1, options=options)
    assert network.patch_embed.img_size == (32, 32)
    assert network.blocks[-1].drop_path1.drop_prob == pytest.approx(0.5)


def test_weights_of_another_image_size_are_fitted_by_timms_rules() -> None:
    small: Any = vit(num_classes=5)
    large: Any = timm_network(**{**small.init_call["init_args"], "img_size": 32})
    assert large.img_size == (32, 32)
    load_weights(large, large.adapt_state_dict(small.state_dict()), source="test")
    assert torch.equal(large.cls_token, small.cls_token)
    assert torch.equal(large.pos_embed[:, 0], small.pos_embed[:, 0])
    assert large(torch.randn(1, 3, 32, 32)).shape == (1, 5)


def test_a_copy_is_a_network_of_its_own() -> None:
    network: Any = vit(num_classes=4)
    copied = copy.deepcopy(network)
    copied.reset_classifier(7)
    assert (copied.head.out_features, network.head.out_features) == (7, 4)
    assert network.init_call["init_args"]["num_classes"] == 4


def test_keys_have_no_prefix_and_pretrained_is_not_repeated() -> None:
    network = vit()
    assert "blocks.0.attn.qkv.weight" in network.state_dict()
    assert network.init_call["init_args"]["pretrained"] is False  # type: ignore[index, union-attr]
