"""The one call for GPU figures: its order, its budget, and its words, those of the bench."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from benchmarks.cuda import main
from tests.conftest import ROOT


def test_subjects_begin_while_there_is_time_and_failures_do_not_stop_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    seen: list[Sequence[str]] = []
    now = 0.0

    def measure(words: Sequence[str]) -> int:
        nonlocal now
        seen.append(words)
        now += 150
        return int(words[0] == "mixer")

    assert main(["--quick"], measure, lambda: now) == 1
    assert [words[0] for words in seen] == ["scan", "mixer", "model"]
    assert all(words[1:3] == ["--device", "cuda"] and words[-1] == "--quick" for words in seen)
    assert capsys.readouterr().err == "not measured: mixer, vision\n"


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_the_call_works_without_a_gpu_when_told_so(tmp_path: Path) -> None:
    words = ["--device", "cpu", "--quick", "--rounds", "1", "--output", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.cuda", *words], cwd=ROOT, capture_output=True, text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    names = {path.stem for path in tmp_path.glob("*.json")}
    assert names == {f"{s}_cpu_bfloat16_quick" for s in ("scan", "mixer", "model", "vision")}
