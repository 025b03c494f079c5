"""Prompts from flags and files, with motion to start from."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from blocks.errors import SuiteError
from blocks.geometry.motion_features import extract_features
from blocks.geometry.motion_skeleton import HUMANML3D
from datamodules.motion import PromptsDataModule
from datamodules.motion.embedded_motion import made


def batch_of(**options: Any) -> dict[str, Any]:
    data = PromptsDataModule(**options)
    data.setup("predict")
    assert data.info.mean == () and data.info.synthetic is False
    batch: dict[str, Any] = next(iter(data.predict_dataloader()))
    return batch


@pytest.fixture
def walk(tmp_path: Path) -> Path:
    file = tmp_path / "walk.npy"
    np.save(file, made(0, 0, 20.0).joints.astype(np.float32)[:101])
    return file


def test_one_prompt_of_a_flag() -> None:
    batch = batch_of(prompt="a person walks", duration=5.0)
    assert batch["caption"] == ["a person walks"] and batch["name"] == ["0000"]
    assert batch["tokens"] == ["a/DET person/NOUN walk/VERB"]
    assert batch["length"].tolist() == [100] and batch["index"].tolist() == [0]
    assert batch["padding"].shape == (1, 100) and not batch["padding"].any()
    assert "known" not in batch


def test_lines_with_seconds(tmp_path: Path) -> None:
    file = tmp_path / "prompts.txt"
    file.write_bytes("\ufeffa man sits\t2\n\nsomeone runs\nhe said #1\t3.3\r\n".encode())
    batch = batch_of(prompt_file=str(file), duration=6.0)
    assert batch["caption"] == ["a man sits", "someone runs", "he said #1"]
    assert batch["length"].tolist() == [40, 120, 64]
    assert batch["padding"].sum(1).tolist() == [80, 0, 56]


def test_json_names_seconds_and_motion(tmp_path: Path, walk: Path) -> None:
    file = tmp_path / "prompts.json"
    entries = [
        "a man sits",
        {"text": "someone runs", "seconds": 4, "name": "run", "motion": walk.name},
    ]
    file.write_text(json.dumps(entries))
    batch = batch_of(prompt_file=str(file), samples=2, skeleton="humanml3d")
    assert batch["name"] == ["0000-0", "0000-1", "run-0", "run-1"]
    assert batch["known"].shape == (4, 120, 263)
    assert batch["known_mask"].sum(1).tolist() == [0, 0, 20, 20]
    features = extract_features(torch.from_numpy(np.load(walk)), HUMANML3D)
    torch.testing.assert_close(batch["known"][2, :20], features[:20])
    assert (batch["known"][2, 20:] == 0).all()


def test_the_middle_of_a_motion_is_left_free(walk: Path) -> None:
    batch = batch_of(prompt="x", motion=str(walk), keep="between", suffix_seconds=0.5)
    assert batch["length"].tolist() == [100]
    kept = batch["known_mask"][0].nonzero().flatten().tolist()
    assert kept == [*range(20), *range(90, 100)]
    features = extract_features(torch.from_numpy(np.load(walk)), HUMANML3D)
    torch.testing.assert_close(batch["known"][0, kept], features[kept])


def test_features_are_taken_as_they_are(tmp_path: Path) -> None:
    features = np.random.default_rng(0).normal(size=(60, 263)).astype(np.float32)
    np.save(tmp_path / "f.npy", features)
    batch = batch_of(prompt="x", motion=str(tmp_path / "f.npy"), prefix_seconds=10.0)
    np.testing.assert_array_equal(batch["known"][0, :60], features)


def test_kit_counts_its_own_frames() -> None:
    assert batch_of(prompt="x", duration=4.0, skeleton="kit")["length"].tolist() == [48]


@pytest.mark.parametrize(
    "name, content, words",
    [
        ("a.txt", "\n \n", "found: an empty file"),
        ("a.txt", "x\tsoon\n", "found: soon\nwhere: .*a.txt:1"),
        ("a.txt", "ok\nx\t-2\n", "a.txt:2"),
        ("a.txt", "\t5\n", "expected: a caption"),
        ("a.json", "[", "expected: JSON"),
        ("a.json", '{"text": "x"}', "put square brackets"),
        ("a.json", '[{"txt": "x"}]', "found: txt"),
        ("a.json", "[3]", "found: int"),
        ("a.json", '[{"text": "x", "name": "n"}, {"text": "y", "name": "n"}]', "n several times"),
        ("a.txt", "x\t60\n", r"at most 9.8 s \(196 frames\)\nfound: 60 s"),
    ],
)
def test_files_that_cannot_be_read_say_where(
    tmp_path: Path, name: str, content: str, words: str
) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(SuiteError, match=words):
        batch_of(prompt_file=str(tmp_path / name))


def test_no_prompts_and_other_stages_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SuiteError, match="found: no prompts"):
        batch_of()
    with pytest.raises(SuiteError, match="no such file"):
        batch_of(prompt_file=str(tmp_path / "x.txt"))
    with pytest.raises(SuiteError, match="train on HumanML3DDataModule"):
        PromptsDataModule(prompt="x").setup("fit")
    with pytest.raises(SuiteError, match="samples 0"):
        PromptsDataModule(prompt="x", samples=0)


def test_motion_that_does_not_fit_is_refused(tmp_path: Path, walk: Path) -> None:
    for array, words in (
        (np.zeros((30, 21, 3)), r"shape \(30, 21, 3\)"),
        (np.full((30, 263), np.nan), "with NaN"),
    ):
        np.save(tmp_path / "odd.npy", array)
        with pytest.raises(SuiteError, match=words):
            batch_of(prompt="x", motion=str(tmp_path / "odd.npy"))
    with pytest.raises(SuiteError, match="frames left to generate"):
        batch_of(prompt="x", motion=str(walk), duration=1.0)
    with pytest.raises(SuiteError, match="a motion of 160 frames"):
        batch_of(prompt="x", motion=str(walk), keep="between", prompt_file=_file(tmp_path, "y\t8"))


def _file(folder: Path, text: str) -> str:
    (folder / "p.txt").write_text(text)
    return str(folder / "p.txt")
