"""The file of an ablation: what it may say, and what it is told when it says something else."""

from pathlib import Path

import pytest

from bimamba.ablation.description import read_ablation
from blocks.errors import SuiteError

GOOD = "config: base.yaml\nvariants: {a: {}}\n"


def write(folder: Path, text: str) -> Path:
    (folder / "base.yaml").write_text("# Base.\n")
    path = folder / "some_ablation.yaml"
    path.write_text(text)
    return path


def test_a_short_file_has_sensible_defaults(tmp_path: Path) -> None:
    ablation = read_ablation(write(tmp_path, GOOD))
    assert ablation.experiment == "some_ablation"
    assert ablation.config == (tmp_path / "base.yaml",)
    assert (ablation.seeds, ablation.parallel, ablation.sizes) == ((0,), 1, {})
    assert ablation.metrics is None and ablation.baseline is None


def test_a_full_file_is_read_as_written(tmp_path: Path) -> None:
    text = """
experiment: e
config: [base.yaml, base.yaml]
overrides: {model.init_args.optimizer.lr: 1e-3}
sizes: {small: {data.init_args.batch_size: 2}, large: }
variants:
  one: {trainer: {max_epochs: 3}}
  two: {trainer.callbacks: [{class_path: EMA, init_args: {decay: 5E-1}}]}
seeds: [3, 1]
metrics: val/loss
baseline: two
parallel: 2
"""
    ablation = read_ablation(write(tmp_path, text))
    assert ablation.overrides == {"model.init_args.optimizer.lr": 0.001}
    assert ablation.sizes == {"small": {"data.init_args.batch_size": 2}, "large": {}}
    assert ablation.variants["two"]["trainer.callbacks"][0]["init_args"] == {"decay": 0.5}
    assert (ablation.seeds, ablation.metrics) == ((3, 1), ("val/loss",))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[1, 2]", "keys and values"),
        ("config: {", "line"),
        ("variants: {a: {}}", "`config`"),
        ("config: base.yaml", "`variants`"),
        ("config: base.yaml\nvariants: {}", "`variants`"),
        (GOOD + "variant: {}", "did you mean variants?"),
        (GOOD + "sede: [1]", "did you mean seeds?"),
        (GOOD + "seeds: [0]\nseeds: [1]", "seeds occurs twice"),
        ("config: base.yaml\nvariants:\n  a: {}\n  a: {trainer.max_epochs: 1}", "a occurs twice"),
        ("config: missing.yaml\nvariants: {a: {}}", "missing.yaml does not exist"),
        ("config: base.yaml\nvariants: [a, b]", "write NAME: {}"),
        ("config: base.yaml\nvariants: {off: {}}", "quote numbers and yes, no, on, off"),
        ("config: base.yaml\nvariants: {../a: {}}", "names of letters"),
        ("config: base.yaml\nvariants: {a: [1]}", "`variants.a`"),
        (GOOD + "seeds: 3", "write seeds: [0, 1, 2]"),
        (GOOD + "seeds: [1, 1]", "different whole numbers"),
        (GOOD + "seeds: [true]", "different whole numbers"),
        (GOOD + "seeds: [-1]", "different whole numbers"),
        (GOOD + "parallel: 0", "a number of processes"),
        (GOOD + "metrics: [3]", "`metrics`: text"),
        (GOOD + "experiment: a/b", "letters, digits"),
        (GOOD + "baseline: b", "choose one of a"),
        (GOOD + "overrides: {seed_everything: 3}", "list the seeds under `seeds`"),
        (GOOD + "overrides: {trainer: {fast_dev_run: 1}}", "limit_train_batches"),
        (GOOD + "overrides: {trainer.default_root_dir: x}", "--output DIR"),
        ("model: {}\ndata: {}", "a configuration of bimamba fit"),
    ],
)
def test_a_wrong_file_is_refused_with_a_cure(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(SuiteError) as refused:
        read_ablation(write(tmp_path, text))
    assert said in str(refused.value)
    assert "some_ablation.yaml" in str(refused.value)


def test_a_missing_file_and_one_that_is_no_text_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(SuiteError, match="No such file"):
        read_ablation(tmp_path / "nothing.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(SuiteError, match="no text"):
        read_ablation(tmp_path / "binary.yaml")
