"""What people get wrong: each mistake ends with its cure, without a traceback or a half file."""

import argparse
import os
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

from bimamba.main import main
from tests.demo import NETWORK, TINY


@pytest.fixture
def complaint(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs the command, expects it to refuse, and returns what it said."""

    def call(*words: str, verb: str = "fit") -> str:
        output = tmp_path / "runs"
        status = main([verb, *TINY, "--output", str(output), *words])
        said = capfd.readouterr().err
        assert status == 2, said
        assert "Traceback" not in said
        assert all(part in said for part in ("expected: ", "found: ", "where: ", "cure: ")), said
        half = [p for p in output.rglob("*") if p.suffix in {".csv", ".ckpt", ".png"}]
        assert not half
        return said

    return call


def image_folder(root: Path, classes: str = "ab", count: int = 40, size: int = 16) -> Path:
    for split in ("train", "val"):
        for label in classes:
            folder = root / split / label
            folder.mkdir(parents=True)
            for i in range(count):
                Image.new("RGB", (size, size), (i, 100, 200)).save(folder / f"{i:03d}.png")
    return root


@pytest.mark.parametrize(
    ("words", "cure"),
    [
        (["--model.init_args.netwrk", "x"], "did you mean network?"),
        ([f"{NETWORK}.dpth", "3"], "did you mean depth?"),
        (["--model.class_path", "ImageClasification"], "did you mean ImageClassification?"),
        (["--model.init_args.network.class_path", "VisionMmba"], "did you mean VisionMamba?"),
        (["--trainer.max_epoch", "3"], "did you mean trainer.max_epochs?"),
        (["--data.init_args.bach_size", "3"], "did you mean batch_size?"),
        (["--config", "nope.yaml"], "check the path"),
    ],
)
def test_a_mistyped_key_or_class_names_the_nearest(
    complaint: Callable[..., str], words: list[str], cure: str
) -> None:
    assert cure in complaint(*words)


def test_a_mistyped_key_in_a_file_names_the_nearest(
    complaint: Callable[..., str], tmp_path: Path
) -> None:
    (tmp_path / "bad.yaml").write_text("model:\n  init_args:\n    optimizr: {lr: 1.0}\n")
    assert "did you mean optimizer?" in complaint("--config", str(tmp_path / "bad.yaml"))


def test_broken_yaml_is_named(complaint: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text("model: [\n")
    assert "parsing" in complaint("--config", str(tmp_path / "bad.yaml"))


def test_a_value_of_the_wrong_type_names_its_key(complaint: Callable[..., str]) -> None:
    said = complaint("--model.init_args.optimizer.lr", "fast")
    assert "model.optimizer.lr" in said
    assert "fast" in said


def test_no_config_at_all_asks_for_one(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["fit"]) == 2
    assert "--config configs/demo/vision.yaml" in capfd.readouterr().err


def test_a_missing_data_root_shows_the_expected_tree(
    complaint: Callable[..., str], tmp_path: Path
) -> None:
    said = complaint("--data.init_args.root", str(tmp_path / "nowhere"))
    assert "train/<class>" in said
    assert str(tmp_path / "nowhere") in said


def test_an_empty_class_folder_is_named(complaint: Callable[..., str], tmp_path: Path) -> None:
    root = image_folder(tmp_path / "data", count=1)
    (root / "train" / "c").mkdir()
    assert str(root / "train" / "c") in complaint("--data.init_args.root", str(root))


def test_a_wrong_class_count_says_what_to_set(
    complaint: Callable[..., str], tmp_path: Path
) -> None:
    root = image_folder(tmp_path / "data", count=1)
    said = complaint("--data.init_args.root", str(root))
    assert "num_classes 2" in said
    assert "model.init_args.network.init_args.num_classes" in said


@pytest.mark.parametrize("workers", ["0", "1"])
@pytest.mark.parametrize("kind", ["truncated", "text"])
def test_an_image_that_cannot_be_read_is_named(
    complaint: Callable[..., str], tmp_path: Path, kind: str, workers: str
) -> None:
    root = image_folder(tmp_path / "data")
    broken = root / "val" / "a" / "000.png"
    broken.write_bytes(broken.read_bytes()[:50] if kind == "truncated" else b"I am a text file")
    said = complaint(
        *("--data.init_args.root", str(root), f"{NETWORK}.num_classes", "2"),
        *("--data.init_args.num_workers", workers),
    )
    assert str(broken) in said


def test_a_taken_run_directory_is_not_reused(complaint: Callable[..., str], tmp_path: Path) -> None:
    taken = tmp_path / "runs" / "demo_vision" / "mine"
    taken.mkdir(parents=True)
    (taken / "summary.json").write_text("precious")
    assert "choose another --run_name" in complaint("--run_name", "mine")
    assert (taken / "summary.json").read_text() == "precious"


class Hostile:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("where", ["--ckpt_path", "--model.init_args.pretrained"])
@pytest.mark.parametrize("raw", [False, True])
def test_a_malicious_checkpoint_does_nothing(
    complaint: Callable[..., str], tmp_path: Path, where: str, raw: bool
) -> None:
    file, trace = tmp_path / "gift.ckpt", tmp_path / "pwned"
    if raw:
        file.write_bytes(pickle.dumps(Hostile(trace)))
    else:
        torch.save({"state_dict": {"a": torch.zeros(1)}, "x": Hostile(trace)}, file)
    said = complaint(where, str(file))
    assert "system" in said
    assert str(file) in said
    assert not trace.exists()


def test_foreign_weights_as_ckpt_path_point_to_pretrained(
    complaint: Callable[..., str], tmp_path: Path
) -> None:
    file = tmp_path / "vim.pth"
    torch.save({"model": {"a": torch.zeros(1)}, "args": argparse.Namespace(lr=1)}, file)
    assert "--model.init_args.pretrained" in complaint("--ckpt_path", str(file), verb="test")


def test_a_checkpoint_of_another_model_is_refused(
    complaint: Callable[..., str], tmp_path: Path
) -> None:
    assert main(["fit", *TINY, "--output", str(tmp_path), "--run_name", "small"]) == 0
    file = tmp_path / "demo_vision" / "small" / "checkpoints" / "last.ckpt"
    said = complaint("--ckpt_path", str(file), f"{NETWORK}.dim", "32", verb="validate")
    assert "(1, 1, 16) in the file, (1, 1, 32) in the model" in said


def test_a_damaged_checkpoint_is_named(complaint: Callable[..., str], tmp_path: Path) -> None:
    file = tmp_path / "half.ckpt"
    torch.save({"state_dict": {"a": torch.zeros(1000)}}, file)
    file.write_bytes(file.read_bytes()[:700])
    assert "cut short" in complaint("--ckpt_path", str(file), verb="test")


def test_predicting_a_folder_with_untrained_weights_asks_for_a_checkpoint(
    complaint: Callable[..., str], tmp_path: Path
) -> None:
    Image.new("RGB", (16, 16)).save(tmp_path / "a.png")
    said = complaint("--data.init_args.predict_root", str(tmp_path), verb="predict")
    assert "--ckpt_path" in said


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no such folder"):
        main(["fit", *TINY, "--debug", "--data.init_args.root", "/nowhere", "--output", "/tmp"])


def test_an_output_that_cannot_hold_folders_is_named(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    assert main(["fit", *TINY, "--output", str(tmp_path / "file")]) == 2
    said = capfd.readouterr().err
    assert "set --output to a folder you may write to" in said


def test_a_full_disk_keeps_the_last_checkpoint_and_says_how_to_go_on(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import errno

    from lightning.fabric.plugins.io import torch_io

    save, calls = torch_io._atomic_save, []

    def full(content: object, path: object) -> None:
        calls.append(path)
        if len(calls) > 2:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        save(content, path)

    monkeypatch.setattr(torch_io, "_atomic_save", full)
    assert main(["fit", *TINY, "--output", str(tmp_path), "--run_name", "full"]) == 1
    said = capfd.readouterr().err
    assert "--resume auto" in said
    assert "Traceback" not in said
    checkpoint = tmp_path / "demo_vision" / "full" / "checkpoints" / "last.ckpt"
    assert torch.load(checkpoint, weights_only=True)["global_step"] == 3


def test_a_diverging_run_names_layer_and_step(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    words = ["--model.init_args.optimizer.lr", "1e30", "--trainer.max_epochs", "3"]
    words += ["--model.init_args.schedule.warmup_epochs", "0"]
    assert main(["fit", *TINY, *words, "--output", str(tmp_path)]) == 2
    said = capfd.readouterr().err
    assert "layer network." in said
    assert "optimiser step" in said
