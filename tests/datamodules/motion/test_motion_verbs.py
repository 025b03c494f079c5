"""`bimamba data` on motion, through the real command: facts, remarks, repair, conversion."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from bimamba.main import main
from blocks.geometry.motion_features import extract_features, recover_joints, wrapped_frames
from blocks.geometry.motion_skeleton import HUMANML3D
from datamodules.inspection import Remark
from datamodules.motion import HumanML3DDataModule
from datamodules.motion.embedded_motion import made
from datamodules.motion.motion_conversion import resampled
from datamodules.motion.word_vectors import FILES
from tests.conftest import ROOT

DEMO = ("--config", str(ROOT / "configs" / "demo" / "motion.yaml"))
Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Call:
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)

    def call(verb: str, root: Path | str, *words: str) -> tuple[int, str, str]:
        status = main(["data", verb, *DEMO, "--data.init_args.root", str(root), *words])
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err
        return status, out, err

    return call


@pytest.fixture
def copy(humanml3d: Path, tmp_path: Path) -> Path:
    shutil.copytree(humanml3d, tmp_path / "copy")
    return tmp_path / "copy"


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """Joints of one's own: 40 frames a second, millimetres, z up, plain captions."""
    root = tmp_path / "own"
    for name in ("joints", "texts"):
        (root / name).mkdir(parents=True)
    for number in range(6):
        x, y, z = np.moveaxis(made(3, number, 40.0).joints * 1000, -1, 0)
        np.save(root / "joints" / f"clip{number}.npy", np.stack((x, -z, y), -1).astype(np.float32))
        (root / "texts" / f"clip{number}.txt").write_text(f"someone raises the left arm {number}\n")
    (root / "info.json").write_text(json.dumps({"fps": 40, "unit": "mm", "up": "z"}))
    return root


def remarks(root: Path, **options: str) -> list[Remark]:
    module = HumanML3DDataModule(root=str(root), **options)  # type: ignore[arg-type]
    return [remark for remark in module.validate() if isinstance(remark, Remark)]


def found(remarks: list[Remark]) -> str:
    return "\n".join(f"{r.level}: {r.found} @ {r.where}" for r in remarks)


def test_describe_counts_what_is_there_and_what_is_left_out(data: Call, humanml3d: Path) -> None:
    status, out, _ = data("describe", humanml3d, "--json")
    facts = json.loads(out)
    assert status == 0
    assert facts["features"] == "mode compat" and facts["evaluator statistics"] == "Std / 25"
    assert facts["train clips"] == 9 and facts["train mirrored"] == 4
    assert "2 malformed caption lines" in facts["train left out"]
    assert facts["val left out"] == f"1 clips with NaN (first {first(humanml3d, 'val')})"
    assert sum(
        int(part.rpartition(" ")[2]) for part in facts["frames of a sample"].split(", ")
    ) == (facts["train samples"] + facts["val samples"] + facts["test samples"])


def test_validate_names_what_is_wrong_and_passes_with_warnings(data: Call, humanml3d: Path) -> None:
    status, out, _ = data("validate", humanml3d)
    assert status == 0
    assert "17 clips read: 0 errors" in out
    for words in (
        "1 of 9 clips have none: 999999",
        "clips are turned wrongly after a heading crossed 180 degrees",
        "2 malformed caption lines, left out",
        f"1 of 4 clips have NaN or infinity, and are left out: {first(humanml3d, 'val')}",
    ):
        assert words in out


def test_repair_writes_a_sound_copy_and_lists_the_clips(data: Call, humanml3d: Path) -> None:
    status, out, _ = data("repair", humanml3d, "--to", "mended")
    assert status == 0 and out.endswith("files in mended\n")
    report = json.loads(Path("mended/repair.json").read_text())
    assert report["left_out"]["nan"] == [first(humanml3d, "val")]
    assert report["left_out"]["missing"] == ["999999"]
    assert report["changed"]["headings"]
    for name in report["changed"]["headings"]:
        before, after = (
            torch.from_numpy(np.load(root / "new_joint_vecs" / f"{name}.npy"))
            for root in (humanml3d, Path("mended"))
        )
        assert (
            wrapped_frames(before, HUMANML3D).any() and not wrapped_frames(after, HUMANML3D).any()
        )
        assert torch.equal(before[:, 1:], after[:, 1:])
        joints = torch.from_numpy(np.load(f"mended/new_joints/{name}.npy"))
        torch.testing.assert_close(recover_joints(after, HUMANML3D), joints, atol=1e-5, rtol=0)
    assert not remarks(Path("mended"))
    meta = json.loads(Path("mended/meta.json").read_text())
    assert meta["mode"] == "compat", "the other features are as they were"


def test_own_joints_become_a_data_set(data: Call, own: Path) -> None:
    status, _, err = data("describe", own)
    assert status == 2 and "bimamba data convert" in err
    status, out, _ = data("convert", own, "--to", "made")
    assert status == 0
    assert [r for r in remarks(Path("made")) if r.level == "error"] == []
    assert len(Path("made/all.txt").read_text().split()) == 12
    text, tokens, *seconds = Path("made/texts/Mclip0.txt").read_text().strip().split("#")
    assert text == "someone raises the right arm 0" and seconds == ["0.0", "0.0"]
    assert tokens == "someone/PRON raise/VERB the/DET right/ADJ arm/NOUN"
    truth = torch.from_numpy(made(3, 0, 40.0).joints[::2])
    expected = extract_features(truth, HUMANML3D)
    features = torch.from_numpy(np.load("made/new_joint_vecs/clip0.npy"))
    # Fitted to itself, the first clip: only the rounding of the files is left.
    torch.testing.assert_close(features[:, :67], expected[:, :67].float(), atol=1e-3, rtol=0)
    module = HumanML3DDataModule(root="made", num_workers=0, batch_size=2)
    module.prepare_data()
    module.setup("test")
    assert module.info.mode == "repaired" and module.info.counts["test"]


def test_a_data_set_is_extracted_again_in_the_other_mode(data: Call, humanml3d: Path) -> None:
    status, _, _ = data("convert", humanml3d, "--to", "sound", "--form", "repaired")
    assert status == 0
    name = first(humanml3d, "test")
    before, after = (
        torch.from_numpy(np.load(root / "new_joint_vecs" / f"{name}.npy"))
        for root in (humanml3d, Path("sound"))
    )
    assert len(after) == len(before) - 1
    # The same motion, seen from another first heading: sizes of velocities agree.
    sizes = [x[: len(after), 193:259].unflatten(1, (-1, 3)).norm(dim=-1) for x in (before, after)]
    torch.testing.assert_close(*sizes, atol=2e-3, rtol=0)
    assert json.loads(Path("sound/meta.json").read_text())["mode"] == "repaired"


@pytest.mark.parametrize(
    "content, words",
    [
        ({"fps": 0}, "found: {'fps': 0}"),
        ({"unit": "feet"}, "units m, cm, mm"),
        ({"speed": 3}, "found: {'speed': 3}"),
    ],
)
def test_odd_facts_about_own_joints_are_refused(
    data: Call, own: Path, content: dict[str, object], words: str
) -> None:
    (own / "info.json").write_text(json.dumps(content))
    status, _, err = data("convert", own, "--to", "made")
    assert status == 2 and words in err


def test_own_joints_of_another_body_are_refused(data: Call, own: Path) -> None:
    np.save(own / "joints" / "clip3.npy", np.zeros((30, 24, 3)))
    status, _, err = data("convert", own, "--to", "made")
    assert status == 2 and "found: shape (30, 24, 3)" in err and "clip3.npy" in err


def test_own_clips_without_captions_are_named(own: Path, tmp_path: Path) -> None:
    (own / "texts" / "clip1.txt").unlink()
    list(HumanML3DDataModule(root=str(own)).convert(tmp_path / "made"))
    meta = json.loads((tmp_path / "made" / "meta.json").read_text())
    assert meta["left_out"] == {"clip1": "no captions"}


def test_resampling_keeps_seconds() -> None:
    line = torch.arange(31.0).view(-1, 1, 1).expand(-1, 22, 3)
    slower = resampled(line, 30, 20)
    assert len(slower) == 21
    torch.testing.assert_close(slower[:, 0, 0], torch.arange(21.0) * 1.5)
    assert resampled(line, 20, 20) is line


def test_clips_in_two_splits_are_an_error(copy: Path) -> None:
    names = {split: (copy / f"{split}.txt").read_text().split() for split in ("train", "test")}
    plain = next(name for name in names["train"] if not name.startswith("M"))
    (copy / "test.txt").write_text("\n".join([*names["test"], plain]))
    told = found(remarks(copy))
    assert f"error: 1 in another split, too, first {plain} @ test.txt" in told
    (copy / "train.txt").write_text("\n".join(n for n in names["train"] if n != plain))
    assert f"with their mirrored twin in another split, first {plain}" in found(remarks(copy))


def test_joints_that_do_not_fit_are_found(copy: Path) -> None:
    names = (copy / "test.txt").read_text().split()
    file = copy / "new_joints" / f"{names[0]}.npy"
    np.save(file, np.load(file) + 0.01)
    (copy / "new_joints" / f"{names[1]}.npy").unlink()
    told = found(remarks(copy))
    assert f"warning: 1 of 4 clips differ: {names[0]} @ test.txt" in told
    assert f"note: 1 of 4 clips have none: {names[1]} @ test.txt" in told


def test_statistics_of_other_data_are_found(copy: Path) -> None:
    std = np.load(copy / "Std.npy")
    np.save(copy / "Std.npy", std * np.linspace(1, 2, 263, dtype=np.float32))
    assert "features 67 to 192" in found(remarks(copy)), "a std for each feature"
    np.save(copy / "Std.npy", std)
    (copy / "meta").mkdir()
    np.save(copy / "meta" / "mean.npy", np.load(copy / "Mean.npy"))
    np.save(copy / "meta" / "std.npy", std)
    assert "25 times that for turn (the data's own)" in found(remarks(copy))


def test_wrong_units_are_found(copy: Path) -> None:
    for name in (copy / "train.txt").read_text().split()[:-1]:
        file = copy / "new_joint_vecs" / f"{name}.npy"
        np.save(file, np.load(file) * 100)
    assert "m in the median @ train" in found(remarks(copy))


def test_broken_files_are_listed_one_by_one(data: Call, copy: Path) -> None:
    names = (copy / "test.txt").read_text().split()
    for name in names[:2]:
        np.save(copy / "new_joint_vecs" / f"{name}.npy", np.zeros((60, 251), np.float32))
    status, out, _ = data("validate", copy)
    assert status == 1
    assert all(f"{name}.npy" in out for name in names[:2])
    assert "found: shape (60, 251)" in out
    status, _, _ = data("repair", copy, "--to", "mended")
    assert status == 0
    report = json.loads(Path("mended/repair.json").read_text())
    assert report["left_out"]["unreadable"] == names[:2]


def test_wrapped_headings_in_repaired_data_are_an_error(copy: Path) -> None:
    (copy / "meta.json").write_text(json.dumps({"mode": "repaired"}))
    assert "error: " in found([r for r in remarks(copy) if "turned wrongly" in r.found])


def test_a_folder_of_word_vectors_is_used_or_named(copy: Path) -> None:
    (copy / "glove").mkdir()
    np.save(copy / "glove" / FILES[0], np.zeros((3, 300)))
    module = HumanML3DDataModule(root=str(copy), num_workers=0)
    with pytest.raises(ValueError, match="no our_vab_words.pkl"):
        module.setup("validate")


@pytest.mark.slow
def test_generate_writes_the_embedded_set(data: Call) -> None:
    status, out, _ = data("generate", "null", "--to", "to")
    assert (status, out) == (0, "written: to\n")
    assert len(Path("to/all.txt").read_text().split()) == 512
    splits = [len(Path(f"to/{s}.txt").read_text().split()) for s in ("train", "val", "test")]
    assert splits == [256, 128, 128]
    assert remarks(Path("to")) == []


def first(root: Path, split: str) -> str:
    return (root / f"{split}.txt").read_text().split()[0]
