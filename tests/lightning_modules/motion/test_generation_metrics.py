"""Scores over a whole evaluation: against the originals' figures, and in any order."""

import csv
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from blocks.errors import SuiteError
from lightning_modules.motion.generation_metrics import (
    Embedded,
    GenerationScores,
    ProtocolRecord,
    caption_code,
    diversity_pairs,
    generation_scores,
    matching_scores,
    replicated,
)
from lightning_modules.motion.generation_table import score_lines, write_scores
from tests.conftest import GOLDEN, ROOT
from tests.run_directories import write_run


def embedded(count: int = 70, dim: int = 5, error: float = 0.6, seed: int = 0) -> Embedded:
    random = torch.Generator().manual_seed(seed)
    text = torch.randn(count, dim, generator=random)
    motion = text + error * torch.randn(count, dim, generator=random)
    return Embedded(text, motion, torch.arange(count) % 50, torch.arange(count))


def added(metric: GenerationScores, found: Embedded, rows: list[int]) -> None:
    captions = [str(code) for code in found.caption[rows].tolist()]
    metric.update(found.text[rows], found.motion[rows], captions, found.index[rows])


@pytest.mark.parametrize("name", ["metrics", "metrics_small"])
def test_figures_equal_the_originals(name: str) -> None:
    file = np.load(GOLDEN / "motion" / f"{name}.npz")
    real, text, motion = (torch.from_numpy(file[key]) for key in ("real", "text", "gen"))
    index = torch.arange(len(motion))
    found = Embedded(text, motion, index, index)
    truth = Embedded(text, real, index, index)
    scores = generation_scores(found, truth)
    assert scores["fid"] == pytest.approx(float(file["fid"]), abs=1e-4)
    assert generation_scores(truth, truth)["fid"] == pytest.approx(0, abs=1e-6)
    # R-precision depends on who competes: in the original's order it is the original's.
    order = torch.from_numpy(np.random.RandomState(0).permutation(len(index)))
    place = torch.empty_like(order)
    place[order] = index
    in_order = matching_scores(found[place])
    expected = file["r_precision_top123_batches32_droplast"]
    assert [in_order[f"r_precision_{k}"] for k in (1, 2, 3)] == pytest.approx(expected.tolist())
    assert in_order["mm_dist"] == pytest.approx(float(file["matching_score"]), abs=1e-5)
    mean, half = replicated([{"x": v} for v in file["replication_values"]])["x"]
    assert mean == pytest.approx(float(file["replication_mean"]))
    assert half == pytest.approx(float(file["replication_ci95"]))


def test_order_batches_and_repetitions_change_nothing() -> None:
    found = embedded()
    rows = torch.randperm(len(found), generator=torch.Generator().manual_seed(1)).tolist()
    metrics = GenerationScores(5), GenerationScores(5)
    added(metrics[0], found, list(range(len(found))))
    for part in (rows[:11], rows[11:40], rows[30:], rows[:3]):
        added(metrics[1], found, part)
    first, second = (metric.compute() for metric in metrics)
    for name in ("text", "motion", "caption", "index"):
        assert torch.equal(getattr(first, name), getattr(second, name)), name
    assert generation_scores(first, first) == generation_scores(second, second)


def test_replications_differ_by_order_and_pairs_alone() -> None:
    found, real = embedded(), embedded(90, seed=3)
    scores = [generation_scores(found, real, replication) for replication in (0, 1, 0)]
    assert scores[0] == scores[2] != scores[1]
    assert scores[0]["fid"] == scores[1]["fid"]


def test_equal_captions_are_no_mistakes_where_that_is_asked() -> None:
    found = embedded(64, error=0.0)
    twins = Embedded(found.text, found.motion.roll(1, 0), torch.zeros(64).long(), found.index)
    scores = matching_scores(twins)
    assert scores["r_precision_1_captions"] == 1 > scores["r_precision_1"]


def test_few_samples_have_no_precision_and_few_pairs() -> None:
    found = embedded(20)
    scores = generation_scores(found, found)
    assert np.isnan(scores["r_precision_1"]) and np.isfinite(scores["diversity"])
    assert (diversity_pairs(20), diversity_pairs(64), diversity_pairs(4000)) == (10, 32, 300)
    empty = GenerationScores(5).compute()
    assert np.isnan(generation_scores(empty, found)["fid"])


def test_multimodality_compares_motions_of_one_caption() -> None:
    metric = GenerationScores(2)
    motion = torch.tensor([[0.0, 0.0], [3.0, 4.0]]).repeat(3, 1)
    index, copy = torch.tensor([7, 7, 2, 2, 5, 5]), torch.tensor([0, 1]).repeat(3)
    metric.update(torch.zeros(6, 2), motion, ["a"] * 6, index, copy)
    scores = generation_scores(embedded(dim=2), embedded(dim=2), 0, metric.compute())
    # Pairs of two motions: with itself 0, with the other 5; drawn without repetition.
    assert scores["multimodality"] in (0.0, 5.0)


def test_codes_of_captions_fit_into_a_tensor() -> None:
    codes = [caption_code(caption) for caption in ("a", "b", "ä\udcff", "a")]
    assert codes[0] == codes[3] and len(set(codes)) == 3
    assert torch.tensor(codes).min() >= 0


def test_ground_truth_is_the_first_row_and_the_protocol_is_beside(tmp_path: Path) -> None:
    record = ProtocolRecord(70, 60, 2, "abc", "def", (4, 10))
    rows = {
        "ground truth": {"fid": (0.0, 0.0), "r_precision_1": (0.5, 0.01)},
        "generated": {
            "fid": (1.25, 0.1),
            "r_precision_1": (0.4, 0.02),
            "multimodality": (2.0, 0.0),
        },
    }
    write_scores(tmp_path / "scores.csv", rows, record)
    with (tmp_path / "scores.csv").open() as file:
        truth, generated = csv.DictReader(file)
    assert (truth["motion"], generated["fid"], generated["fid_ci95"]) == (
        "ground truth", "1.250000", "0.100000",
    )  # fmt: skip
    assert (truth["multimodality"], truth["evaluator"], truth["several"]) == ("", "abc", "4x10")
    lines = score_lines(rows)
    assert lines[1].startswith("ground truth") and "1.250 ±0.100" in lines[2]
    assert len({len(line) for line in lines}) == 1


def test_a_record_tells_all_that_must_agree() -> None:
    record = ProtocolRecord(70, 60, 2, "abc", "def")
    assert str(record) == str(ProtocolRecord(70, 60, 2, "abc", "def"))
    others = [
        ProtocolRecord(71, 60, 2, "abc", "def"), ProtocolRecord(70, 61, 2, "abc", "def"),
        ProtocolRecord(70, 60, 3, "abc", "def"), ProtocolRecord(70, 60, 2, "abd", "def"),
        ProtocolRecord(70, 60, 2, "abc", "deg"), ProtocolRecord(70, 60, 2, "abc", "def", (1, 9)),
    ]  # fmt: skip
    assert len({str(record), *map(str, others)}) == 7


def test_figures_of_two_evaluators_do_not_share_a_table(tmp_path: Path) -> None:
    from bimamba.comparison.agreement import check_comparable
    from bimamba.run_files import read_run

    for name, evaluator in (("a", "abc"), ("b", "abc"), ("c", "abd")):
        record = ProtocolRecord(70, 60, 2, evaluator, "def")
        write_run(tmp_path, f"motion/{name}", protocol=f"humanml3d; generation: {record}")
    runs = {name: read_run(tmp_path / "motion" / name) for name in "abc"}
    check_comparable([runs["a"], runs["b"]])
    with pytest.raises(SuiteError, match="one protocol"):
        check_comparable(list(runs.values()))


_PROGRAM = """
import sys
import torch
import torch.distributed as dist
from lightning_modules.motion.generation_metrics import GenerationScores, generation_scores
from tests.lightning_modules.motion.test_generation_metrics import added, embedded

rank, world, folder = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=world)
found, metric = embedded(), GenerationScores(5)
added(metric, found, list(range(rank, len(found), world)))
few = GenerationScores(5)  # The second process has none at all.
if rank == 0:
    added(few, found, list(range(40)))
all_, some = metric.compute(), few.compute()
scores = generation_scores(some, all_)
open(f"{folder}/{rank}.txt", "w").write(repr(sorted(scores.items())))
"""


@pytest.mark.slow
def test_two_processes_find_what_one_does(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(_PROGRAM)
    words = [sys.executable, str(tmp_path / "program.py")]
    running = [
        subprocess.Popen([*words, str(rank), "2", str(tmp_path)], cwd=ROOT, env=_environment())
        for rank in range(2)
    ]
    assert [process.wait(90) for process in running] == [0, 0]
    found = embedded()
    metric = GenerationScores(5)
    added(metric, found, list(range(40)))
    expected = dict(generation_scores(metric.compute(), found))
    for rank in range(2):
        scores = dict(eval((tmp_path / f"{rank}.txt").read_text(), {"nan": float("nan")}))
        assert scores == pytest.approx(expected, abs=1e-6, nan_ok=True)


def _environment() -> dict[str, str]:
    import os

    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
