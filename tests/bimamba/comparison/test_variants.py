"""Seeds of one configuration are one variant; names come from what tells variants apart."""

import shutil
from pathlib import Path

import pytest

from bimamba.comparison.variants import differences, group_runs, repeated_seeds
from bimamba.run_files import RunFiles, read_run
from blocks.errors import SuiteError
from tests.run_directories import write_run

NETWORK = "model.init_args.network.init_args"
DEPTH, LR = f"{NETWORK}.depth", "model.init_args.optimizer.lr"


@pytest.fixture
def grid(tmp_path: Path) -> list[RunFiles]:
    """Two depths with two seeds each."""
    return [
        read_run(write_run(tmp_path, f"e/d{d}s{s}", seed=s, config={DEPTH: d}))
        for d in (4, 8)
        for s in (0, 1)
    ]


def names(groups: dict[str, list[RunFiles]]) -> dict[str, list[str]]:
    return {label: [run.run for run in group] for label, group in groups.items()}


def test_seeds_of_a_configuration_are_one_variant(grid: list[RunFiles]) -> None:
    assert names(group_runs(grid)) == {"depth=4": ["d4s0", "d4s1"], "depth=8": ["d8s0", "d8s1"]}


def test_differences_are_dotted_keys_with_the_value_of_each_run(grid: list[RunFiles]) -> None:
    assert differences(grid) == {
        "seed_everything": ["0", "1", "0", "1"],
        DEPTH: ["4", "4", "8", "8"],
    }


def test_names_and_places_are_no_difference(tmp_path: Path) -> None:
    config = {"output": "/other", "run_name": "x", "data.init_args.root": "/d"}
    config |= {"trainer.logger": [{"class_path": "WandbLogger"}]}
    found = [write_run(tmp_path, "e/a"), write_run(tmp_path, "f/b", seed=1, config=config)]
    runs = [read_run(directory) for directory in found]
    assert list(differences(runs)) == ["seed_everything"]
    assert len(group_runs(runs)) == 1


def test_a_key_that_one_run_lacks_is_a_difference(tmp_path: Path) -> None:
    found = [write_run(tmp_path, "e/a"), write_run(tmp_path, "e/b", config={f"{NETWORK}.new": 1})]
    assert differences([read_run(d) for d in found]) == {f"{NETWORK}.new": ["(absent)", "1"]}


def test_callbacks_and_classes_are_compared_piece_by_piece(tmp_path: Path) -> None:
    ema = {"class_path": "lightning_modules.EMA", "init_args": {"decay": 0.9}}
    first = write_run(tmp_path, "e/a", config={"trainer.callbacks": [ema]})
    second = {"trainer.callbacks": [ema | {"init_args": {"decay": 0.99}}]}
    runs = [read_run(first), read_run(write_run(tmp_path, "e/b", config=second))]
    assert differences(runs) == {"trainer.callbacks.0.init_args.decay": ["0.9", "0.99"]}
    assert list(group_runs(runs)) == ["decay=0.9", "decay=0.99"]


def test_experiments_that_are_variants_give_their_names(tmp_path: Path) -> None:
    found = [
        write_run(tmp_path, f"{e}/{s}", seed=s, config={DEPTH: d, LR: d / 1000})
        for e, d in (("small", 2), ("large", 24))
        for s in (0, 1)
    ]
    assert names(group_runs([read_run(d) for d in found])) == {
        "small": ["0", "1"],
        "large": ["0", "1"],
    }


def test_words_that_occur_twice_are_told_apart(tmp_path: Path) -> None:
    twice = {f"{NETWORK}.name": "vim", "model.init_args.optimizer.name": "sgd"}
    runs = [read_run(write_run(tmp_path, "e/a", config={f"{NETWORK}.name": "vmamba"}))]
    runs.append(read_run(write_run(tmp_path, "e/b", config=twice)))
    (first, second) = group_runs(runs)
    assert first == "init_args.name=vmamba, optimizer.name=adamw"
    assert second == "init_args.name=vim, optimizer.name=sgd"


def test_many_differences_are_named_by_the_run(tmp_path: Path) -> None:
    config = {f"{NETWORK}.new{i}": i for i in range(5)}
    found = [write_run(tmp_path, "e/a"), write_run(tmp_path, "e/b", config=config)]
    assert list(group_runs([read_run(d) for d in found])) == ["a", "b"]


def test_the_same_seed_twice_is_no_sample_of_two(tmp_path: Path) -> None:
    runs = [read_run(write_run(tmp_path, f"e/{name}")) for name in ("a", "b")]
    assert [run.run for run in repeated_seeds(runs)] == ["b"]
    assert names(group_runs(runs)) == {"a": ["a"], "b": ["b"]}


def test_a_copied_run_keeps_a_row_of_its_own(tmp_path: Path) -> None:
    shutil.copytree(write_run(tmp_path, "e/a"), tmp_path / "e" / "copy")
    runs = [read_run(tmp_path / "e" / name) for name in ("a", "copy")]
    assert list(group_runs(runs)) == ["a", "a (2)"]


def test_runs_without_a_configuration_stand_alone(tmp_path: Path) -> None:
    runs = [read_run(write_run(tmp_path, "e/a", seed=s)) for s in (0,)]
    for name in ("b", "c"):
        directory = write_run(tmp_path, f"e/{name}", seed=1)
        (directory / "config.yaml").unlink()
        runs.append(read_run(directory))
    assert differences(runs) == {}
    assert [len(group) for group in group_runs(runs).values()] == [1, 1, 1]


@pytest.mark.parametrize(
    ("keys", "groups"),
    [
        (["depth"], ["depth=4", "depth=8"]),
        ([DEPTH], ["depth=4", "depth=8"]),
        (["optimizer.lr"], ["lr=0.002"]),
        (
            ["depth", "seed_everything"],
            [f"depth={d}, seed_everything={s}" for d in "48" for s in "01"],
        ),
        (["experiment"], ["e"]),
        (["run"], ["e/d4s0", "e/d4s1", "e/d8s0", "e/d8s1"]),
    ],
)
def test_groups_by_what_it_is_told(
    grid: list[RunFiles], keys: list[str], groups: list[str]
) -> None:
    assert list(group_runs(grid, keys)) == groups


@pytest.mark.parametrize(
    ("key", "cure"),
    [("dept", "did you mean depth"), ("name", "several"), ("zzz", "see config.yaml")],
)
def test_an_unknown_key_names_the_nearest(tmp_path: Path, key: str, cure: str) -> None:
    config = {f"{NETWORK}.name": "vim"}
    with pytest.raises(SuiteError, match=cure):
        group_runs([read_run(write_run(tmp_path, "e/a", config=config))], [key])
