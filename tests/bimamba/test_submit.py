"""`bimamba submit`: scripts that say what runs, and are handed to sbatch where there is one."""

import os
import shlex
from pathlib import Path

import pytest

from bimamba.main import main
from tests.conftest import ROOT

VISION = str(ROOT / "configs/demo/vision.yaml")
SWEEP = str(ROOT / "configs/sweep/pose_rate.yaml")


def written(capsys: pytest.CaptureFixture[str], *words: str) -> list[str]:
    assert main(["submit", "--dry-run", *words]) == 0
    return capsys.readouterr().out.splitlines()


def test_a_run_over_two_nodes_is_named_and_resumes(capsys: pytest.CaptureFixture[str]) -> None:
    lines = written(
        capsys, VISION, "--nodes", "2", "--devices", "4", "--run_name", "one", "--", "--debug"
    )
    assert lines[0] == "#!/bin/bash"
    wanted = ("--nodes=2", "--ntasks-per-node=4", "--gpus-per-node=4", "--requeue")
    assert {f"#SBATCH {option}" for option in wanted} <= {*lines}
    assert any(line.startswith("#SBATCH --signal=SIGUSR1@") for line in lines)
    words = shlex.split(lines[-1])
    assert words[0] == "srun" and words[3:5] == ["bimamba", "fit"]
    text = " ".join(words)
    for part in ("num_nodes=2", "devices=4", "strategy=ddp", "--run_name one --resume auto"):
        assert part in text
    assert words[-1] == "--debug"


def test_the_command_of_a_script_is_one_that_fit_takes(capsys: pytest.CaptureFixture[str]) -> None:
    lines = written(capsys, VISION, "--accelerator", "cpu", "--run_name", "one")
    words = shlex.split(lines[-1])[4:]
    assert not any("gpus" in line for line in lines)
    assert main([*words, "--print_config"]) == 0
    assert "resume: auto" in capsys.readouterr().out


def test_a_sweep_is_an_array_of_jobs_that_share_it(capsys: pytest.CaptureFixture[str]) -> None:
    lines = written(capsys, SWEEP, "--jobs", "4", "--partition", "gpu", "--before", "module load x")
    assert "#SBATCH --array=1-4" in lines and "#SBATCH --partition=gpu" in lines
    assert "module load x" in lines
    assert shlex.split(lines[-1])[4:6] == ["sweep", SWEEP]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["nothing.yaml"], "No such file"),
        ([VISION, "--jobs", "3"], "--nodes and --devices"),
        ([SWEEP, "--nodes", "2"], "--jobs N"),
    ],
)
def test_what_makes_no_job_is_refused(
    words: list[str], told: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["submit", *words]) == 2
    assert told in capfd.readouterr().err


@pytest.mark.parametrize("status", [0, 1])
def test_the_script_is_kept_and_handed_to_sbatch(
    status: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    stand_in = tmp_path / "bin" / "sbatch"
    stand_in.parent.mkdir()
    stand_in.write_text(
        f'#!/bin/sh\necho "Submitted $1"; echo no such partition >&2; exit {status}\n'
    )
    stand_in.chmod(0o755)
    monkeypatch.setenv("PATH", f"{stand_in.parent}:{os.environ['PATH']}")
    words = ["submit", VISION, "--output", str(tmp_path / "runs"), "--run_name", "one"]
    assert main(words) == (2 if status else 0)
    path = tmp_path / "runs" / "vision" / "jobs" / "one.sh"
    assert path.read_text().startswith("#!/bin/bash")
    said = capfd.readouterr()
    assert "no such partition" in said.err if status else f"Submitted {path}" in said.out
