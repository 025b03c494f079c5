"""Vim's variants and its rivals train, store and reload through one configuration."""

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from bimamba.main import main
from lightning_modules.vision import ImageClassification
from tests.conftest import ROOT

SMALL = {"img_size": 32, "patch_size": 8, "dim": 16, "num_classes": None, "drop_path": 0.1}
NETWORKS: dict[str, tuple[str, dict[str, Any]]] = {
    "legacy_vit": ("LegacyViT", {**SMALL, "depth": 2, "num_heads": 2}),
    "gated_attention": ("GatedAttentionEncoder", {**SMALL, "depth": 2, "fused": False}),
    "deit": (
        "lightning_modules.vision.timm_network",
        {
            "name": "deit_tiny_patch16_224",
            "num_classes": None,
            "img_size": 32,
            "drop_path": 0.1,
            "fused_attention": False,
            "options": {"embed_dim": 16, "depth": 2, "num_heads": 2},
        },
    ),
    "vim_with_everything": (
        "VisionMamba",
        {
            **SMALL,
            "depth": 4,
            "d_state": 4,
            "bimamba_type": "none",
            "paired_layers": True,
            "class_token": "double",
            "rope": "hidden_and_residual",
            "norm": "layer",
            "init_layer_scale": 0.1,
            "shuffle_tokens": True,
            "reverse_tokens": 0.5,
            "grad_checkpointing": True,
        },
    ),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_trains_with_layer_decay_and_reloads(name: str, tmp_path: Path) -> None:
    content = yaml.safe_load((ROOT / "configs" / "demo" / "vision.yaml").read_text())
    class_path, arguments = NETWORKS[name]
    given = content["model"]["init_args"]
    given["network"] = {"class_path": class_path, "init_args": arguments}
    given["optimizer"]["layer_decay"] = 0.8
    content["trainer"] |= {"max_epochs": 1, "limit_train_batches": 2, "limit_val_batches": 1}
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump(content))
    words = ["fit", "--config", str(config), "--output", str(tmp_path), "--run_name", "r"]
    assert main(words) == 0
    last = tmp_path / "demo_vision" / "r" / "checkpoints" / "last.ckpt"
    network: Any = ImageClassification.load_from_checkpoint(last).network.eval()
    assert network.num_classes == 10
    stored = torch.load(last, weights_only=True)["state_dict"]
    own = network.state_dict()
    assert {f"network.{key}" for key in own} <= stored.keys()
    assert all(torch.equal(value, stored[f"network.{key}"]) for key, value in own.items())
    assert network(torch.randn(2, 3, 32, 32)).shape == (2, 10)
