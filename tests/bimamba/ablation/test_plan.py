"""Plans: every run by name with a configuration that the real parser accepted."""

from pathlib import Path

import pytest

from bimamba.ablation.description import read_ablation
from bimamba.ablation.plan import make_plan
from blocks.errors import SuiteError
from tests.bimamba.ablation.tiny import TEXT, TWO, plan

NETWORK = "model.init_args.network"
TIMM = "lightning_modules.vision.timm_network"
SIZES = f"sizes: {{s: {{}}, m: {{{NETWORK}.init_args.dim: 32}}}}\n"


def test_variants_sizes_and_seeds_make_runs_in_the_order_of_the_seeds(tmp_path: Path) -> None:
    made = plan(tmp_path, TWO + SIZES)
    names = ["two-s", "one-s", "two-m", "one-m"]
    assert [run.name for run in made.runs] == [f"{n}-s{seed}" for seed in (0, 1) for n in names]
    assert [run.name for run in made.group("one m")] == ["one-m-s0", "one-m-s1"]
    run = made.runs[3]
    arguments = run.config["model"]["init_args"]["network"]["init_args"]
    assert (arguments["bimamba_type"], arguments["dim"], arguments["depth"]) == ("none", 32, 1)
    assert arguments["patch_size"] == 8
    assert run.config["seed_everything"] == 0 and run.config["resume"] == "auto"
    assert run.directory == tmp_path / "runs" / "tiny" / "one-m-s0"
    assert run.epochs == 2
    sizes = made.params
    assert sizes["one s"] < sizes["two s"] < sizes["one m"] < sizes["two m"]  # type: ignore[operator]
    assert not list(tmp_path.glob("runs")), "a plan writes nothing"


def test_a_network_of_timm_takes_the_place_of_ours(tmp_path: Path) -> None:
    network = (
        "{class_path: lightning_modules.vision.timm_network, init_args: {name: vit_tiny_patch16_224"
        ", num_classes: 10, options: {img_size: 16, embed_dim: 32, depth: 1, num_heads: 2}}}"
    )
    made = plan(tmp_path, f"variants: {{vit: {{{NETWORK}: {network}}}}}")
    stored = made.runs[0].config["model"]["init_args"]["network"]
    assert stored["class_path"] == "lightning_modules.vision.timm_network"
    assert "dim" not in stored["init_args"]
    from timm import create_model

    options = {"img_size": 16, "embed_dim": 32, "depth": 1, "num_heads": 2}
    vit = create_model("vit_tiny_patch16_224", num_classes=10, **options)
    assert made.params["vit"] == sum(p.numel() for p in vit.parameters())


def test_all_wrong_variants_are_told_at_once_with_the_nearest_key(tmp_path: Path) -> None:
    wrong = f"""variants:
  good: {{}}
  typo: {{{NETWORK}.init_args.bimamba_typ: none}}
  value: {{{NETWORK}.init_args.bimamba_type: sideways}}
  unknown_class: {{{NETWORK}: {{class_path: VisionMambo}}}}
  impossible: {{{NETWORK}: {{class_path: {TIMM}, init_args: {{name: vit_tiny_patch16_24}}}}}}
  key: {{trainr.max_epochs: 2}}
"""
    with pytest.raises(SuiteError) as refused:
        plan(tmp_path, wrong)
    said = str(refused.value)
    assert "found: 5 that it does not" in said
    assert "did you mean bimamba_type?" in said
    assert "sideways" in said
    assert "did you mean VisionMamba?" in said
    assert "did you mean vit_tiny_patch16_224?" in said
    assert "did you mean trainer" in said
    assert "good:" not in said


def test_a_fault_of_all_variants_is_told_once(tmp_path: Path) -> None:
    path = tmp_path / "tiny.yaml"
    path.write_text(TEXT + TWO + f"sizes: {{s: {{{NETWORK}.init_args.dimm: 3}}}}")
    with pytest.raises(SuiteError) as refused:
        make_plan(read_ablation(path))
    assert str(refused.value).count("did you mean") == 1
    assert "every variant" in str(refused.value)


def test_runs_that_would_share_a_name_are_refused(tmp_path: Path) -> None:
    text = "variants: {a: {}, a-b: {}}\nsizes: {b-c: {}, c: {}}\n"
    with pytest.raises(SuiteError, match="two runs called a-b-c-s0"):
        plan(tmp_path, text)


def test_equal_variants_are_pointed_out(tmp_path: Path) -> None:
    made = plan(tmp_path, "variants: {a: {}, b: {model.init_args.network.init_args.depth: 1}}")
    assert made.notes == ("b and a are the same configuration",)
    assert not plan(tmp_path).notes


def test_planning_leaves_the_seed_of_this_process_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import os

    import torch

    monkeypatch.delenv("PL_GLOBAL_SEED", raising=False)
    before = torch.get_rng_state()
    plan(tmp_path, "variants: {a: {}}")
    assert "PL_GLOBAL_SEED" not in os.environ
    assert torch.equal(torch.get_rng_state(), before)
