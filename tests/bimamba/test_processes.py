"""Whole processes: the console script, two processes that report what one does, README's words."""

import csv
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from tests.conftest import ROOT
from tests.demo import NETWORK, TINY

pytestmark = pytest.mark.slow
SCRIPT = Path(sys.executable).parent / "bimamba"


def bimamba(*words: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Runs the installed command, each process on one thread."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    for name in ("PL_GLOBAL_SEED", "BIMAMBA_RUN_DIRECTORY", "LOCAL_RANK"):
        environment.pop(name, None)
    done = subprocess.run(
        [str(SCRIPT), *words], cwd=cwd, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done


def summary(run: Path) -> dict[str, object]:
    content: dict[str, object] = json.loads((run / "summary.json").read_text())["metrics"]["last"]
    return content


def processes(count: int, strategy: str = "ddp") -> tuple[str, ...]:
    return ("--trainer.strategy", strategy, "--trainer.devices", str(count))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Output folder of a fit on two processes, on a set of 13 validation images."""
    output = tmp_path_factory.mktemp("runs")
    data = output / "data"
    for split, count in (("train", 12), ("val", 7)):
        for label in range(2):
            (data / split / str(label)).mkdir(parents=True)
            for i in range(count - label * (split == "val")):
                picture = Image.effect_noise((16, 16), 10 + 40 * label + i)
                picture.save(data / split / str(label) / f"{i}.png")
    bimamba("fit", *words(output), *processes(2), "--run_name", "fit")
    return output


def words(output: Path) -> tuple[str, ...]:
    small = ("--data.init_args.root", str(output / "data"), "--data.init_args.batch_size", "4")
    return (*TINY, *small, f"{NETWORK}.num_classes", "2", "--output", str(output))


def test_children_of_a_run_make_no_folders_of_their_own(trained: Path) -> None:
    assert sorted(p.name for p in (trained / "demo_vision").iterdir()) == ["fit"]


def test_one_two_and_three_processes_report_the_same(trained: Path) -> None:
    checkpoint = str(trained / "demo_vision" / "fit" / "checkpoints" / "last.ckpt")
    given = (*words(trained), "--ckpt_path", checkpoint, "--data.init_args.val_batch_size", "3")
    metrics, tables, classes = [], [], []
    for count in (1, 2, 3):
        strategy = processes(count) if count > 1 else ()
        bimamba("test", *given, *strategy, "--run_name", f"test{count}")
        folder = trained / "demo_vision" / f"test{count}"
        found = summary(folder)
        metrics.append({k: v for k, v in found.items() if k.startswith("test/")})
        with (folder / "predictions.csv").open() as file:
            tables.append([(r["index"], r["prediction"]) for r in csv.DictReader(file)])
        classes.append((folder / "per_class.csv").read_text())
    assert len(tables[0]) == 13
    assert tables[0] == tables[1] == tables[2]
    assert classes[0] == classes[1] == classes[2]
    assert [row["count"] for row in csv.DictReader(classes[0].splitlines())] == ["7", "6"]
    for other in metrics[1:]:
        assert other == pytest.approx(metrics[0], rel=1e-6, abs=1e-6)


def test_torchrun_starts_one_run(trained: Path) -> None:
    torchrun = [str(SCRIPT.parent / "torchrun"), "--nproc_per_node", "2", str(SCRIPT)]
    given = [*words(trained), *processes(2), "--run_name", "torchrun"]
    done = subprocess.run(
        [*torchrun, "fit", *given],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert (trained / "demo_vision" / "torchrun" / "checkpoints" / "last.ckpt").is_file()
    assert sum("torchrun" in p.name for p in (trained / "demo_vision").iterdir()) == 1


def test_sharded_parameters_train_to_the_same_weights(trained: Path) -> None:
    fragment = str(ROOT / "configs" / "trainer" / "fsdp2.yaml")
    bimamba(
        "fit",
        *words(trained),
        "--config",
        fragment,
        "--trainer.devices",
        "2",
        "--run_name",
        "fsdp2",
    )
    folder = trained / "demo_vision"
    one, other = (
        torch.load(folder / name / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
        for name in ("fit", "fsdp2")
    )
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert torch.allclose(value, other[name], atol=1e-5), name
    path = str(folder / "fsdp2" / "checkpoints" / "last.ckpt")
    bimamba("test", *words(trained), "--ckpt_path", path, "--run_name", "reload")


def test_the_commands_of_the_readme_parse(tmp_path: Path) -> None:
    text = (ROOT / "README.md").read_text().replace("\\\n", " ")
    commands = re.findall(r"^bimamba ((?:fit|test|validate|predict) .*)$", text, re.MULTILINE)
    assert len(commands) >= 4
    for command in commands:
        words = [w for w in command.split("#")[0].split() if w not in {"...", "…"}]
        done = bimamba(*words, "--print_config")
        assert "class_path" in done.stdout, command


def test_interrupting_a_run_keeps_its_last_checkpoint(tmp_path: Path) -> None:
    import signal
    import time

    words = [str(SCRIPT), "fit", *TINY, "--output", str(tmp_path), "--run_name", "cut"]
    words += ["--trainer.max_epochs", "1000", "--trainer.limit_train_batches", "null"]
    process = subprocess.Popen(words, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    last = tmp_path / "demo_vision" / "cut" / "checkpoints" / "last.ckpt"
    deadline = time.monotonic() + 120
    while not last.exists() and time.monotonic() < deadline:
        time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=90)
    assert process.returncode != 0
    assert "Traceback" not in said
    content = json.loads((tmp_path / "demo_vision" / "cut" / "summary.json").read_text())
    assert content["status"] == "interrupted"
    done = bimamba(
        "validate",
        *TINY,
        "--ckpt_path",
        str(last),
        "--output",
        str(tmp_path),
        "--run_name",
        "after",
    )
    assert "val/top1" in done.stdout


def test_the_python_of_the_readme_runs() -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert len(blocks) == 1
    scope: dict[str, object] = {}
    exec(blocks[0], scope)
    assert [tuple(m.shape) for m in scope["maps"]] == [(1, 192, 14, 20)] * 4  # type: ignore[attr-defined]
