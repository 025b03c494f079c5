"""Released VMamba files: of the true structure, of older keys, with another head, and hostile."""

import os
import sys
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from blocks.errors import SuiteError
from blocks.weights import load_weights, read_state_dict
from lightning_modules.vision import ImageClassification, VMamba
from lightning_modules.vision.networks.upstream_vmamba import current_entries

FIRST = {
    "d_state": 4,
    "ssm_ratio": 2.0,
    "conv_bias": True,
    "forward_type": "v0",
    "mlp_ratio": 0.0,
    "stem": "v1",
    "downsample": "v1",
}
OLD = (
    ("patch_embed.0.", "patch_embed.proj."),
    ("patch_embed.2.", "patch_embed.norm."),
    (".op.", ".self_attention."),
    ("classifier.norm.", "norm."),
    ("classifier.head.", "head."),
)


def small(seed: int, **options: Any) -> VMamba:
    torch.manual_seed(seed)
    return VMamba(**{"depths": (1, 2), "dim": 8, "num_classes": 5, **options})


def old_spelling(state: dict[str, Tensor]) -> dict[str, Tensor]:
    found = {}
    for key, value in state.items():
        for new, old in OLD:
            key = key.replace(new, old)
        if key.startswith("layers.") and ".blocks." in key:
            key = key.replace(".norm.", ".ln_1.")
        found[key] = value
    return found


@contextmanager
def yacs() -> Iterator[Callable[..., Any]]:
    """A configuration class with the habits of yacs' own, in a module that vanishes afterwards."""

    class CfgNode(dict):  # type: ignore[type-arg]
        def __init__(self, **given: object) -> None:
            super().__init__(given)
            self.__dict__["__immutable__"] = True
            self.__dict__["__renamed_keys__"] = {}

        def __getattr__(self, name: str) -> object:
            if name in self:
                return self[name]
            raise AttributeError(name)

        def __setattr__(self, name: str, value: object) -> None:
            raise AttributeError(f"immutable: {name}")

    CfgNode.__module__, CfgNode.__qualname__ = "yacs.config", "CfgNode"
    module: Any = types.ModuleType("yacs.config")
    module.CfgNode = CfgNode
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "yacs", types.ModuleType("yacs"))
        patch.setitem(sys.modules, "yacs.config", module)
        yield CfgNode
    assert "yacs.config" not in sys.modules


def released(path: Path, model: VMamba, average: VMamba) -> str:
    """A training checkpoint with all that classification/utils/utils_ema.py of upstream writes."""
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.randn(1, 3, 32, 32)).sum().backward()
    optimizer.step()
    with yacs() as node:
        content = {
            "model": model.state_dict(),
            "model_ema": average.state_dict(),
            "optimizer": optimizer.state_dict(),
            "lr_scheduler": {"base_values": [1e-3], "t_initial": 375_300, "_metric": None},
            "max_accuracy": 82.6,
            "max_accuray_ema": 82.5,
            "scaler": {"scale": 65536.0, "growth_factor": 2.0, "_growth_tracker": 3},
            "epoch": 292,
            "config": node(MODEL=node(TYPE="vssm", DROP_PATH_RATE=0.2), AMP_ENABLE=True),
        }
        torch.save(content, path)
    with pytest.raises(Exception, match="(?i)weights.only"):
        torch.load(path, weights_only=True)
    return str(path)


@pytest.mark.parametrize("weights", ["model", "model_ema"])
def test_a_released_file_loads_without_its_configuration_class(
    tmp_path: Path, weights: Any
) -> None:
    networks = {"model": small(1), "model_ema": small(2)}
    path = released(tmp_path / "vssm1_tiny_0230s_ckpt_epoch_264.pth", *networks.values())
    module = ImageClassification(small(3), pretrained=path, pretrained_weights=weights)
    module.load_pretrained()
    for key, value in networks[weights].state_dict().items():
        assert torch.equal(module.network.state_dict()[key], value), key
    assert "yacs" not in sys.modules


def test_a_head_of_other_classes_starts_afresh_and_nothing_else_may(tmp_path: Path) -> None:
    trained, network = small(1), small(3, num_classes=7)
    path = released(tmp_path / "vmamba.pth", trained, small(2))
    fresh = network.classifier.head.weight.clone()
    module = ImageClassification(network, pretrained=path)
    module.load_pretrained()
    assert torch.equal(network.classifier.head.weight, fresh)
    assert torch.equal(network.classifier.norm.weight, trained.classifier.norm.weight)
    with pytest.raises(SuiteError, match="build the network the weights were trained with"):
        ImageClassification(small(3, ssm_ratio=2.0), pretrained=path).load_pretrained()


def test_files_of_the_first_models_load_under_their_old_keys(tmp_path: Path) -> None:
    model, other = small(1, **FIRST), small(2, **FIRST)
    old = old_spelling(model.state_dict())
    assert not old.keys() & {k for k in model.state_dict() if "downsample" not in k}
    torch.save({"model": old}, tmp_path / "vssmtiny_dp01_ckpt_epoch_292.pth")
    module = ImageClassification(
        other, pretrained=str(tmp_path / "vssmtiny_dp01_ckpt_epoch_292.pth")
    )
    module.load_pretrained()
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(other.eval()(images), model.eval()(images))


def test_one_by_one_convolutions_load_as_matrices(tmp_path: Path) -> None:
    model, other = small(1), small(2)
    state = model.state_dict()
    pointwise = [k for k, v in state.items() if v.ndim == 2 and ("_proj." in k or "mlp.fc" in k)]
    assert len(pointwise) == 3 * 4
    wide = {k: v[:, :, None, None] if k in pointwise else v for k, v in state.items()}
    torch.save(wide, tmp_path / "bare.pth")
    read = read_state_dict(tmp_path / "bare.pth")
    report = load_weights(other, other.adapt_state_dict(read), source="bare.pth")
    assert report.fraction == 1.0
    assert torch.equal(other.state_dict()[pointwise[0]], state[pointwise[0]])


def test_todays_entries_stay_as_they_are() -> None:
    state = small(1).state_dict()
    again = current_entries(state)
    assert again.keys() == state.keys()
    assert all(again[key] is state[key] for key in state)


class _Hostile:
    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (self.command,)


def test_a_configuration_that_runs_a_command_is_refused_and_does_nothing(tmp_path: Path) -> None:
    proof, model = tmp_path / "proof", small(1)
    path = tmp_path / "vmamba.pth"
    torch.save({"model": model.state_dict(), "config": _Hostile(f"echo > {proof}")}, path)
    network = small(2)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    with pytest.raises(SuiteError, match="it was not run"):
        ImageClassification(network, pretrained=str(path)).load_pretrained()
    assert not proof.exists()
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


def test_a_configuration_class_that_exists_is_not_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = released(tmp_path / "vmamba.pth", small(1), small(2))
    proof = tmp_path / "proof"
    (tmp_path / "yacs").mkdir()
    for name in ("__init__", "config"):
        (tmp_path / "yacs" / f"{name}.py").write_text(f"open({str(proof)!r}, 'w')")
    monkeypatch.syspath_prepend(str(tmp_path))
    ImageClassification(small(3), pretrained=path).load_pretrained()
    assert not proof.exists()
    assert "yacs" not in sys.modules
