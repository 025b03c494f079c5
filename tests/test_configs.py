"""Every shipped YAML is parsed by the real command and builds what it promises."""

import re
from pathlib import Path

import pytest
import torch

from bimamba.main import main
from tests.conftest import ROOT

CONFIGS = sorted((ROOT / "configs").rglob("*.yaml"))
FRAGMENTS = [path for path in CONFIGS if path.parent.name in {"trainer", "logger"}]
ABLATIONS = [path for path in CONFIGS if path.parent.name == "ablation"]
SWEEPS = [path for path in CONFIGS if path.parent.name == "sweep"]
EXPERIMENTS = [path for path in CONFIGS if path not in (*FRAGMENTS, *ABLATIONS, *SWEEPS)]
PARAMETERS = {
    "vision/vim_tiny": 7_148_008,
    "vision/vim_tiny_plus": 7_250_344,
    "vision/vim_small": 25_796_584,
    "vision/vim_small_plus": 26_001_256,
    "vision/vim_base": 97_598_440,
    "vision/gated_attention_small": 18_470_248,
    "vision/vit_small_legacy": 48_800_488,
    "vision/deit_tiny": 5_717_416,
    "vision/deit_small": 22_050_664,
    "vision/deit_base": 86_567_656,
    "vision/vmamba_tiny": 22_893_448,
    "vision/vmamba_tiny_s1l8": 30_249_064,
    "vision/vmamba_small_s2l15": 50_147_752,
    "vision/vmamba_base_s2l15": 88_557_800,
}


def name(path: Path) -> str:
    return str(path.relative_to(ROOT / "configs").with_suffix(""))


@pytest.mark.parametrize("path", EXPERIMENTS, ids=name)
def test_an_experiment_parses_and_builds(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from jsonargparse import Namespace
    from lightning.pytorch import LightningDataModule

    from bimamba.parser import SuiteParser
    from lightning_modules.workload import Workload

    assert main(["fit", "--config", str(path), "--print_config"]) == 0
    assert "class_path" in capsys.readouterr().out
    parser = SuiteParser()
    parser.add_argument("--config", action="config")
    parser.add_subclass_arguments(Workload, "model")
    parser.add_subclass_arguments(LightningDataModule, "data")
    parser.add_argument("--trainer", type=dict)
    parser.add_argument("--experiment", type=str)
    config: Namespace = parser.parse_args(["--config", str(path)])
    with torch.device("meta"):
        built = parser.instantiate(config)
    network = built.model.network
    if getattr(network, "num_classes", 0) is None:
        network.reset_classifier(1000)
    expected = PARAMETERS.get(name(path))
    count = sum(p.numel() for p in network.parameters())
    assert count > 0 and expected in (None, count)
    for data in getattr(built.data, "heads", {"": built.data}).values():
        assert data.batch_size % 2 == 0


@pytest.mark.parametrize("path", FRAGMENTS, ids=name)
def test_a_fragment_names_no_model_and_joins_an_experiment(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = path.read_text()
    assert not re.search(r"^(model|data):", text, re.MULTILINE)
    words = ["fit", "--config", str(EXPERIMENTS[0]), "--config", str(path), "--print_config"]
    assert main(words) == 0
    assert "max_epochs" in capsys.readouterr().out


@pytest.mark.parametrize("path", ABLATIONS, ids=name)
def test_an_ablation_plans_runs_of_networks_that_build(path: Path) -> None:
    from bimamba.ablation.description import read_ablation
    from bimamba.ablation.plan import make_plan

    plan = make_plan(read_ablation(path))
    assert len(plan.params) > 1 and all(plan.params.values())
    assert not plan.notes


@pytest.mark.parametrize("path", SWEEPS, ids=name)
def test_a_sweep_searches_keys_that_exist(path: Path) -> None:
    from bimamba.sweeping.description import read_sweep
    from bimamba.sweeping.plan import make_sweep_plan

    plan = make_sweep_plan(read_sweep(path))
    assert plan.sweep.space and plan.mode in ("min", "max")


def test_experiments_with_known_sizes_are_all_here() -> None:
    assert PARAMETERS.keys() <= {name(path) for path in EXPERIMENTS}


@pytest.mark.parametrize("path", CONFIGS, ids=name)
def test_a_config_says_on_top_what_it_is(path: Path) -> None:
    assert path.read_text().startswith("# ")
