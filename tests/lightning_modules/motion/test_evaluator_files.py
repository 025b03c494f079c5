"""Files of evaluators: ours, the official layout, and what is neither."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from blocks.errors import SuiteError
from lightning_modules.motion import MotionEvaluator
from lightning_modules.motion.evaluator_files import (
    PARTS,
    find_evaluator,
    load_evaluator,
    save_evaluator,
)
from lightning_modules.motion.motion_judge import EvaluatorInput, MotionJudge, evaluator_statistics
from tests.lightning_modules.motion.pairs import (
    EVALUATOR_STD,
    LONGEST,
    MEAN,
    STD,
    D,
    PairsDataModule,
)

SMALL = {"dim_movement": 8, "dim_motion": 12, "dim_text": 10, "dim": 6}
INFO: dict[str, Any] = vars(PairsDataModule().info)


def official(path: Path, network: MotionEvaluator) -> None:
    """Writes what EricGuo5513/text-to-motion writes."""
    content: dict[str, Any] = {p: network.get_submodule(p).state_dict() for p in PARTS}
    content |= {"epoch": 3, "iter": 40, "opt_text_encoder": {"state": {}, "param_groups": []}}
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(content, path)


def test_ours_comes_back_with_sizes_statistics_and_facts(tmp_path: Path) -> None:
    network = MotionEvaluator(D, **SMALL)
    path = tmp_path / "evaluator" / "finest.tar"
    save_evaluator(path, network, torch.arange(D), torch.ones(D), {"hash": "ab"}, None, 2, 7)
    found = load_evaluator(tmp_path)
    assert found.path == path and not found.foreign and found.facts == {"hash": "ab"}
    state = found.network.state_dict()
    assert all(torch.equal(state[key], value) for key, value in network.state_dict().items())
    assert found.mean is not None and torch.equal(found.mean, torch.arange(D))
    # What the official programs read of it.
    content = torch.load(path, weights_only=True)
    assert {*PARTS, "epoch", "iter"} <= content.keys()
    assert content["movement_encoder"].keys() == network.movement_encoder.state_dict().keys()
    assert np.array_equal(np.load(path.parent / "meta" / "mean.npy"), np.arange(D))


def test_the_official_layout_tells_its_sizes_and_finds_its_statistics(tmp_path: Path) -> None:
    network = MotionEvaluator(D, **SMALL)
    path = tmp_path / "t2m" / "text_mot_match" / "model" / "finest.tar"
    official(path, network)
    found = load_evaluator(path)
    assert found.foreign and found.mean is None
    assert found.network.init_call["init_args"] == network.init_call["init_args"]
    meta = tmp_path / "t2m" / "Comp_v6_KLD01" / "meta"
    meta.mkdir(parents=True)
    np.save(meta / "mean.npy", np.arange(D, dtype=np.float32))
    np.save(meta / "std.npy", np.full(D, 2, dtype=np.float32))
    found = load_evaluator(path)
    assert found.std is not None and found.std.eq(2).all()


def test_an_essential_one_is_known_by_its_width(tmp_path: Path) -> None:
    official(tmp_path / "finest.tar", MotionEvaluator(67, **SMALL, drop_contacts=False))
    found = load_evaluator(tmp_path)
    assert found.network.features == found.network.in_features == 67
    judge = MotionJudge(found, INFO)
    assert judge.input.std.tolist() == pytest.approx(STD[:67])
    motion = torch.randn(2, 16, D)
    expected = found.network.embed_motion(
        torch.nn.functional.pad(motion[..., :67], (0, 0, 0, 4)), torch.tensor([16, 16])
    )
    torch.testing.assert_close(judge.embed_motion(motion, torch.tensor([16, 16])), expected)


def test_the_newest_of_several_runs_is_taken(tmp_path: Path) -> None:
    import os

    for age, name in enumerate(("new", "old")):
        official(tmp_path / name / "finest.tar", MotionEvaluator(D, **SMALL))
        os.utime(tmp_path / name / "finest.tar", (1e9 - age, 1e9 - age))
    assert find_evaluator(tmp_path).parent.name == "new"


def test_what_is_no_evaluator_is_named(tmp_path: Path) -> None:
    with pytest.raises(SuiteError, match="no such file"):
        load_evaluator(tmp_path / "absent.tar")
    with pytest.raises(SuiteError, match=r"configs/motion/evaluator\.yaml"):
        load_evaluator(tmp_path)
    torch.save({"model": {}}, tmp_path / "model.pt")
    with pytest.raises(SuiteError, match="found: model"):
        load_evaluator(tmp_path / "model.pt")
    official(tmp_path / "odd.tar", MotionEvaluator(100, **SMALL))
    with pytest.raises(SuiteError, match="found: 96"):
        load_evaluator(tmp_path / "odd.tar")


def test_weights_and_statistics_have_a_hash(tmp_path: Path) -> None:
    judges = []
    for scale in (1.0, 1.0, 1.001):
        torch.manual_seed(0)
        network = MotionEvaluator(D, **SMALL)
        network.text_encoder.hidden.data *= scale
        official(tmp_path / "finest.tar", network)
        judges.append(MotionJudge.load(str(tmp_path), INFO))
    assert judges[0].hash == judges[1].hash != judges[2].hash
    assert judges[0].statistics_hash == judges[2].statistics_hash


def test_motion_goes_by_way_of_real_features() -> None:
    real = torch.randn(3, LONGEST, D)
    normalised = (real - torch.tensor(MEAN)) / torch.tensor(STD)
    lengths = torch.tensor([16, 32, LONGEST])
    space = EvaluatorInput(MEAN, STD, *evaluator_statistics(INFO, D), LONGEST)
    found = space(normalised, lengths)
    expected = (real - torch.tensor(MEAN)) / torch.tensor(EVALUATOR_STD)
    for row, length in enumerate(lengths.tolist()):
        torch.testing.assert_close(
            found[row, :length], expected[row, :length], rtol=1e-4, atol=1e-4
        )
        assert not found[row, length:].any()


@torch.no_grad()
def test_neighbours_and_their_padding_change_no_embedding(tmp_path: Path) -> None:
    official(tmp_path / "finest.tar", MotionEvaluator(D, **SMALL))
    judge = MotionJudge.load(str(tmp_path), INFO)
    motion, lengths = torch.randn(3, LONGEST, D), torch.tensor([16, 24, LONGEST])
    together = judge.embed_motion(motion, lengths)
    for row, length in enumerate(lengths.tolist()):
        alone = judge.embed_motion(motion[row : row + 1, :length], lengths[row : row + 1])
        torch.testing.assert_close(alone[0], together[row], rtol=0, atol=1e-6)


def test_an_evaluator_of_other_data_is_refused_or_named(tmp_path: Path) -> None:
    path = tmp_path / "finest.tar"
    save_evaluator(
        path, MotionEvaluator(D, **SMALL), *map(torch.tensor, (MEAN, STD)), {"mode": "compat"}
    )
    with pytest.raises(SuiteError, match="mode compat"):
        MotionJudge.load(str(path), INFO)
    official(path, MotionEvaluator(251, **SMALL))
    with pytest.raises(SuiteError, match="in_features 251"):
        MotionJudge.load(str(path), INFO)


def test_it_is_never_trained(tmp_path: Path) -> None:
    official(tmp_path / "finest.tar", MotionEvaluator(D, **SMALL))
    judge = MotionJudge.load(str(tmp_path), INFO).train()
    assert not any(part.training for part in judge.modules())
    assert not any(p.requires_grad for p in judge.parameters())
