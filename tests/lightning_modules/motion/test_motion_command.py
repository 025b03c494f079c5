"""Text-to-motion by the command: fit, test, and motions for one's own captions."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from bimamba.main import main
from datamodules.motion.miniatures import write_miniature
from lightning_modules.motion import CachedText, TextToMotion
from tests.conftest import ROOT
from tests.lightning_modules.motion.text_encoders.towers import write_bert, write_clip

DEMO = ROOT / "configs" / "demo" / "motion.yaml"
NETWORK = "--model.init_args.network.init_args"
SMALL = [
    *(f"{NETWORK}.dim", "16", f"{NETWORK}.num_heads", "2", f"{NETWORK}.dim_feedforward", "16"),
    *("--model.init_args.diffusion_steps", "10", "--model.init_args.sampler.steps", "2"),
]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A HumanML3D of eight clips."""
    root = tmp_path_factory.mktemp("humanml3d") / "data"
    write_miniature(root, odd=False)
    return root


def words(verb: str, output: Path, data: Path, name: str, *more: str) -> list[str]:
    found = [verb, "--config", str(DEMO), *SMALL, "--output", str(output), "--run_name", name]
    found += ["--data.init_args.root", str(data), "--data.init_args.batch_size", "4"]
    found += ["--trainer.max_epochs", "1", "--trainer.check_val_every_n_epoch", "1"]
    return [*found, *more]


def test_from_training_to_motions_for_own_captions(
    tmp_path: Path, data: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(words("fit", tmp_path, data, "fit")) in (0, None)
    said = capfd.readouterr().out
    assert said.count("==================== CMDM Architecture Info ====================") == 1
    run = tmp_path / "demo_motion" / "fit"
    last = run / "checkpoints" / "last.ckpt"
    assert json.loads((run / "summary.json").read_text())["monitor"] == "val/loss"
    assert (run / "pictures" / "val_motions.png").is_file()
    assert main(words("test", tmp_path, data, "test", "--ckpt_path", str(last))) in (0, None)
    # Captions alone: words and statistics are those of the checkpoint.
    own = ["predict", "--config", str(DEMO), *SMALL, "--output", str(tmp_path), "--run_name", "own"]
    own += ["--ckpt_path", str(last), "--data.class_path", "PromptsDataModule"]
    own += ["--data.init_args.prompt", "[a person walks, someone hops]"]
    own += ["--data.init_args.duration", "2"]
    own += ["--trainer.callbacks+=MotionFiles", "--trainer.callbacks.video", "none"]
    assert main(own) in (0, None)
    (folder,) = tmp_path.glob("demo_motion/own*/motions")
    files = sorted(folder.glob("*_features.npy"))
    module = TextToMotion.load_from_checkpoint(last)
    captions = list(json.loads((folder / "captions.json").read_text()).values())
    expected = module.denormalised(module.generate(captions, torch.tensor([40, 40])))
    assert [np.load(path).shape for path in files] == [(40, 263)] * 2
    for path, motion in zip(files, expected, strict=True):
        np.testing.assert_allclose(np.load(path), motion, rtol=1e-3, atol=1e-3)


@pytest.mark.slow
def test_an_evaluator_decides_which_weights_are_best(tmp_path: Path) -> None:
    root = tmp_path / "data"
    write_miniature(root, clips=32, odd=False)
    judge = ["fit", "--config", str(DEMO.with_name("motion_evaluator.yaml")), "--run_name", "fit"]
    judge += ["--output", str(tmp_path), "--data.init_args.root", str(root)]
    judge += ["--data.init_args.batch_size", "8", "--trainer.max_epochs", "1"]
    assert main([*judge, "--trainer.check_val_every_n_epoch", "1"]) in (0, None)
    file = tmp_path / "demo_motion_evaluator" / "fit" / "evaluator"
    more = ["--model.init_args.evaluator", str(file), "--trainer.limit_train_batches", "2"]
    assert main(words("fit", tmp_path, root, "judged", *more)) in (0, None)
    run = tmp_path / "demo_motion" / "judged"
    summary = json.loads((run / "summary.json").read_text())
    assert summary["monitor"] == "val/fid" and summary["metrics"]["best"]["val/fid"] > 0
    assert len(list((run / "checkpoints").glob("best-*.ckpt"))) == 1


@pytest.mark.parametrize("kind", ["CLIPText", "BERTText", "CachedText"])
def test_each_frozen_encoder_trains(tmp_path: Path, data: Path, kind: str) -> None:
    write = write_bert if kind == "BERTText" else write_clip
    folder = write(tmp_path / "tower")
    encoder: dict[str, object] = {"class_path": kind, "init_args": {"path": str(folder)}}
    if kind == "CachedText":
        clip = {"class_path": "CLIPText", "init_args": {"path": str(folder)}}
        given = {"path": str(tmp_path / "text.safetensors"), "encoder": clip}
        encoder["init_args"] = given
    more = ["--model.init_args.text_encoder", json.dumps(encoder), f"{NETWORK}.text_dim", "16"]
    assert main(words("fit", tmp_path, data, "fit", *more)) in (0, None)
    last = torch.load(tmp_path / "demo_motion/fit/checkpoints/last.ckpt", weights_only=True)
    assert not any(key.startswith("text_encoder.") for key in last["state_dict"])
    if kind == "CachedText":
        captions = ["a person walks forward"]
        assert CachedText(str(tmp_path / "text.safetensors"))(captions)[0].shape == (1, 1, 16)
