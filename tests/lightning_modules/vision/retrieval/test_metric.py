"""The metric alone, and on two processes, where it must say what one says."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from blocks.errors import SuiteError
from lightning_modules.vision.retrieval.evaluation import Samples, evaluate
from lightning_modules.vision.retrieval.metric import RetrievalMetric
from tests.conftest import ROOT
from tests.lightning_modules.vision.retrieval.people import People

N = 60


def columns() -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(N, 5, generator=generator)
    identity = torch.randint(8, (N,), generator=generator)
    camera = torch.randint(3, (N,), generator=generator)
    return features, identity, camera, (torch.arange(N) >= 15).long(), torch.arange(N)


def values(rows: torch.Tensor, batch: int = 7) -> dict[str, float]:
    metric = RetrievalMetric()
    for part in rows.split(batch):
        metric.update(*(column[part] for column in columns()))
    found: dict[str, float] = metric.compute()
    return found


def test_it_is_the_evaluation_of_everything() -> None:
    features, identity, camera, *_ = columns()
    query, gallery = (
        Samples(features[rows], identity[rows], camera[rows])
        for rows in (slice(0, 15), slice(15, None))
    )
    assert values(torch.arange(N)) == evaluate(query, gallery, "cmc_camera").values


def test_order_batches_and_repeated_samples_change_nothing() -> None:
    shuffled = torch.randperm(N, generator=torch.Generator().manual_seed(3))
    repeated = torch.cat((shuffled, shuffled[:11], shuffled[:2]))
    assert values(repeated, 4) == values(torch.arange(N))


def test_junk_counts_as_nothing() -> None:
    features, identity, camera, role, index = columns()
    metric = RetrievalMetric()
    metric.update(features, identity, camera, role, index)
    junk = torch.full((9,), -1)
    metric.update(features[:9], junk, camera[:9], torch.ones(9), torch.arange(N, N + 9))
    assert metric.compute() == values(torch.arange(N))
    assert metric.collected is not None and len(metric.collected.gallery) == N - 15


def test_nothing_to_rank_is_explained() -> None:
    metric = RetrievalMetric()
    metric.update(*(column[:15] for column in columns()))
    with pytest.raises(SuiteError, match="15 queries and 0 gallery images"):
        metric.compute()


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_two_processes_say_what_one_says(tmp_path: Path) -> None:
    data = tmp_path / "data"
    People(str(data))  # Written once, before two processes would.
    answers = []
    for count in (1, 2):
        answer = tmp_path / f"{count}.json"
        script = str(Path(__file__).with_name("on_processes.py"))
        done = subprocess.run(
            [sys.executable, script, str(count), str(data), str(answer)],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        answers.append(json.loads(answer.read_text()))
    one, two = (answer["metrics"] for answer in answers)
    assert {"test/mAP", "test/rerank_mAP", "test/tpr_at_fpr_0.01"} <= one.keys() == two.keys()
    assert two == pytest.approx(one, abs=1e-6)
    # New blocks started alike and were trained alike: DDP knows of them.
    assert answers[1]["apart"] == 0
    assert (tmp_path / "pictures" / "test_ranked.png").is_file()
