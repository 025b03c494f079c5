"""The file of a sweep: what it may say, and what is said to the rest."""

from pathlib import Path

import pytest

from bimamba.sweeping.description import Pruning, read_sweep
from bimamba.sweeping.space import Dimension, short_names
from blocks.errors import SuiteError
from tests.conftest import ROOT

START = f"config: {ROOT}/configs/demo/vision.yaml\n"
LR = "space: {model.init_args.optimizer.lr: {log_range: [1e-4, 1e-2]}}\n"


def read(folder: Path, text: str) -> object:
    path = folder / "search.yaml"
    path.write_text(text)
    return read_sweep(path)


def test_everything_is_read(tmp_path: Path) -> None:
    path = tmp_path / "search.yaml"
    path.write_text(
        START + "space:\n  a.b: [1, two, null]\n  a.c: {range: [1, 9], step: 2}\n"
        "  a.d: {log_range: [1e-4, 1.0], points: 3}\ntrials: 5\nsampler: random\n"
        "pruner: {kind: hyperband, warmup: 2}\nseeds: [3, 4]\nmetric: val/x\nmode: min\n"
    )
    found = read_sweep(path)
    assert found.experiment == "search" and found.trials == 5 and found.seeds == (3, 4)
    assert found.space["a.b"] == Dimension("a.b", (1, "two", None))
    assert found.space["a.c"].grid() == [1, 3, 5, 7, 9] and found.space["a.c"].whole
    assert found.space["a.d"].grid() == pytest.approx([1e-4, 1e-2, 1.0])
    assert found.pruner == Pruning("hyperband", warmup=2)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (LR, "a file without it"),
        (START + LR, "trials: 20"),
        (START + LR + "trials: 0", "a number of trials"),
        (START + LR + "trials: 3\nsampler: grip", "did you mean grid?"),
        (START + LR + "sampler: grid", "points: 5"),
        (START + LR + "trial: 3", "did you mean trials?"),
        (START + LR + "trials: 3\npruner: medium", "did you mean median?"),
        (START + LR + "trials: 3\npruner: {kind: median, warm: 1}", "startup_trials"),
        (START + "space: {a: {range: [2, 1]}}\ntrials: 3", "the lower end first"),
        (START + "space: {a: {log_range: [0, 1]}}\ntrials: 3", "both above 0"),
        (START + "space: {a: {range: [0, 1], log: true}}\ntrials: 3", "log_range"),
        (START + "space: {a: [1, 1]}\ntrials: 3", "repetitions"),
        (START + "space: {seed_everything: [1, 2]}\ntrials: 3", "`seeds`"),
        ("model: {}\n" + START + LR, "a configuration of bimamba fit"),
    ],
)
def test_what_is_wrong_is_told_with_a_cure(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(SuiteError, match="cure: ") as error:
        read(tmp_path, text)
    assert told in str(error.value)


def test_choices_that_are_no_words_have_labels_that_lead_back() -> None:
    network = {"class_path": "VisionMamba", "init_args": {"depth": 2}}
    dimension = Dimension("model.init_args.network", (network, None))
    label, nothing = dimension.labels()
    assert dimension.value(label) == network and dimension.value(nothing) is None


@pytest.mark.parametrize(
    ("dimension", "written"),
    [
        (Dimension("a", (1, 2)), {"values": [1, 2]}),
        (Dimension("a", (), 1, 4), {"distribution": "int_uniform", "min": 1, "max": 4}),
        (Dimension("a", (), 0.0, 1.0), {"distribution": "uniform", "min": 0.0, "max": 1.0}),
        (
            Dimension("a", (), 0.1, 1.0, log=True),
            {"distribution": "log_uniform_values", "min": 0.1, "max": 1.0},
        ),
        (
            Dimension("a", (), 0.0, 1.0, step=0.25),
            {"distribution": "q_uniform", "min": 0.0, "max": 1.0, "q": 0.25},
        ),
    ],
)
def test_wandb_searches_the_same(dimension: Dimension, written: dict[str, object]) -> None:
    assert dimension.wandb() == written


def test_keys_are_called_by_as_few_words_as_tell_them_apart() -> None:
    keys = ["a.network.dim", "a.head.dim", "a.lr"]
    assert short_names(dict.fromkeys(keys)) == ["network.dim", "head.dim", "lr"]
