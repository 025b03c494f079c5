"""Layer-wise learning rates against timm's own groups."""

from pathlib import Path
from typing import Any

import pytest
import torch
from timm.optim import param_groups_layer_decay
from torch import nn

from bimamba.main import main
from blocks.errors import SuiteError
from lightning_modules.layer_decay import layer_rates
from lightning_modules.optimization import (
    Optimizer,
    Schedule,
    build_optimizer,
    build_scheduler,
    parameter_groups,
)
from lightning_modules.vision import LegacyViT, VisionMamba, timm_network
from tests.conftest import ROOT


def vim(**options: Any) -> nn.Module:
    return VisionMamba(**{"img_size": 32, "dim": 16, "depth": 3, "num_classes": 5, **options})


def vit() -> nn.Module:
    options = {"embed_dim": 16, "depth": 2, "num_heads": 2}
    return timm_network("vit_tiny_patch16_224", img_size=32, num_classes=5, options=options)


def legacy() -> nn.Module:
    return LegacyViT(img_size=32, dim=16, depth=2, num_heads=2, num_classes=5)


def by_name(groups: list[dict[str, Any]], module: nn.Module) -> dict[str, tuple[float, float]]:
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    return {names[id(p)]: (g["lr_scale"], g["weight_decay"]) for g in groups for p in g["params"]}


@pytest.mark.parametrize("build", [vim, vit, legacy])
def test_rates_and_decay_equal_timms(build: Any) -> None:
    network = build()
    listed = {name for name, _ in network.named_parameters() if name.rsplit(".")[-1] in SSM}
    theirs = param_groups_layer_decay(
        network,
        weight_decay=0.3,
        no_weight_decay_list={*network.no_weight_decay(), *listed},
        layer_decay=0.7,
    )
    config = Optimizer(weight_decay=0.3, layer_decay=0.7)
    ours, expected = by_name(parameter_groups(network, config), network), by_name(theirs, network)
    assert ours.keys() == expected.keys()
    for name, values in ours.items():
        assert values == pytest.approx(expected[name]), name


SSM = ("A_log", "A_b_log")


def test_rates_fall_from_head_to_stem() -> None:
    rates = layer_rates(vim(), 0.5)
    found = [rates[name] for name in ("head.weight", "norm_f.weight", "layers.2.mixer.D")]
    assert found == [(4, 1.0), (3, 0.5), (3, 0.5)]
    assert rates["layers.0.norm.weight"] == (1, 0.125)
    assert rates["pos_embed"] == rates["cls_token"] == (0, 0.0625)


def test_a_workloads_other_parameters_are_head() -> None:
    headless = nn.ModuleDict({"network": vim(num_classes=0), "head": nn.Linear(16, 3)})
    rates = layer_rates(headless, 0.5)
    assert rates["head.weight"] == (4, 1.0)
    assert rates["network.layers.2.mixer.D"] == (3, 0.5)
    both = layer_rates(nn.ModuleDict({"network": vim(), "neck": nn.Linear(16, 3)}), 0.5)
    assert both["neck.bias"] == both["network.head.bias"] == (4, 1.0)


def test_groups_are_named_by_layer_and_carry_their_rate() -> None:
    network, config = vim(depth=1), Optimizer(layer_decay=0.5)
    optimizer = build_optimizer(parameter_groups(network, config), 0.8, config)
    found = {group["name"]: group["lr"] for group in optimizer.param_groups}
    assert found == pytest.approx(
        {
            "layer_0_decay": 0.2,
            "layer_0_no_decay": 0.2,
            "layer_1_decay": 0.4,
            "layer_1_no_decay": 0.4,
            "layer_2_decay": 0.8,
            "layer_2_no_decay": 0.8,
        }
    )
    entry = build_scheduler(
        optimizer, lr=0.8, steps=10, epochs=10, schedule=Schedule(warmup_epochs=0)
    )
    for _ in range(4):
        optimizer.step()
        entry["scheduler"].step()
    rates = [group["lr"] for group in optimizer.param_groups]
    assert rates[-1] == pytest.approx(4 * rates[0]) and rates[-1] < 0.8


@pytest.mark.parametrize("decay", [0.0, -0.5, 1.5])
def test_a_decay_that_is_no_factor_is_refused(decay: float) -> None:
    with pytest.raises(SuiteError, match="above 0"):
        layer_rates(vim(), decay)


def test_a_network_without_layers_is_named() -> None:
    with pytest.raises(SuiteError, match="Linear without it"):
        parameter_groups(nn.ModuleDict({"network": nn.Linear(2, 2)}), Optimizer(layer_decay=0.7))


def test_moments_of_other_groups_are_refused() -> None:
    network = vim(depth=1)
    made = []
    for config in (Optimizer(), Optimizer(layer_decay=0.5)):
        optimizer = build_optimizer(parameter_groups(network, config), 1e-3, config)
        network(torch.ones(1, 3, 32, 32)).sum().backward()
        optimizer.step()
        made.append(optimizer)
    with pytest.raises(SuiteError, match="layer_decay"):
        made[1].load_state_dict(made[0].state_dict())
    made[1].load_state_dict(made[1].state_dict())


def test_a_run_resumes_with_another_decay_and_says_so(
    tmp_path: Path, recwarn: pytest.WarningsRecorder, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["fit", "--config", str(ROOT / "configs" / "demo" / "vision.yaml"), "--output"]
    words += [str(tmp_path), "--run_name", "r", "--trainer.limit_train_batches=1"]
    words += ["--trainer.limit_val_batches=1", "--model.init_args.network.init_args.depth=2"]
    given = "--model.init_args.optimizer.layer_decay="
    assert main([*words, given + "0.5", "--trainer.max_epochs=1"]) == 0
    assert main([*words, given + "0.9", "--trainer.max_epochs=2", "--resume=auto"]) == 0
    said = "\n".join(str(warning.message) for warning in recwarn)
    assert "layer_0_decay.lr_scale: 0.125 in the checkpoint, 0.729" in said
    assert "and so on for" in said
    run = tmp_path / "demo_vision" / "r"
    before = (run / "checkpoints" / "last.ckpt").read_bytes()
    assert main([*words, "--trainer.max_epochs=3", f"--resume={run}"]) != 0
    assert "resume with the layer_decay" in " ".join(capsys.readouterr().err.split())
    # Lightning would save the half-restored state over it.
    assert (run / "checkpoints" / "last.ckpt").read_bytes() == before
