"""Whole processes: the console script, two processes that report what one does, README's words."""

import csv
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.demo import TINY

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


TWO = ("--trainer.strategy", "ddp", "--trainer.devices", "2")


def test_two_processes_report_what_one_reports(tmp_path: Path) -> None:
    words = [*TINY, "--output", str(tmp_path)]
    bimamba("fit", *words, *TWO, "--run", "fit")
    assert sorted(p.name for p in (tmp_path / "demo_vision").iterdir()) == ["fit"]
    checkpoint = tmp_path / "demo_vision" / "fit" / "checkpoints" / "last.ckpt"
    whole = [*words, "--trainer.limit_val_batches", "null", "--ckpt_path", str(checkpoint)]
    bimamba("test", *whole, "--run", "one")
    bimamba("test", *whole, *TWO, "--run", "two")
    one, two = (summary(tmp_path / "demo_vision" / name) for name in ("one", "two"))
    assert one.keys() == two.keys()
    for name, value in one.items():
        assert two[name] == pytest.approx(value, abs=1e-5), name
    tables = []
    for name in ("one", "two"):
        with (tmp_path / "demo_vision" / name / "predictions.csv").open() as file:
            tables.append([(r["index"], r["prediction"]) for r in csv.DictReader(file)])
    assert len(tables[0]) == 355
    assert tables[0] == tables[1]


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

    words = [str(SCRIPT), "fit", *TINY, "--output", str(tmp_path), "--run", "cut"]
    words += ["--trainer.max_epochs", "1000", "--trainer.limit_train_batches", "null"]
    process = subprocess.Popen(words, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    last = tmp_path / "demo_vision" / "cut" / "checkpoints" / "last.ckpt"
    deadline = time.monotonic() + 120
    while not last.exists() and time.monotonic() < deadline:
        time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode != 0
    assert "Traceback" not in said
    content = json.loads((tmp_path / "demo_vision" / "cut" / "summary.json").read_text())
    assert content["status"] == "interrupted"
    done = bimamba(
        "validate", *TINY, "--ckpt_path", str(last), "--output", str(tmp_path), "--run", "after"
    )
    assert "val/top1" in done.stdout


def test_the_python_of_the_readme_runs() -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert len(blocks) == 1
    scope: dict[str, object] = {}
    exec(blocks[0], scope)
    assert [tuple(m.shape) for m in scope["maps"]] == [(1, 192, 14, 20)] * 4  # type: ignore[attr-defined]
