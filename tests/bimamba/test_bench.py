"""`bimamba bench` through the real command, on shapes that measure nothing."""

import json
import struct
from pathlib import Path

import pytest

from bimamba.main import main

PNG = b"\x89PNG\r\n\x1a\n"


def width_of(picture: Path) -> int:
    head = picture.read_bytes()[:24]
    assert head.startswith(PNG)
    width: int = struct.unpack(">I", head[16:20])[0]
    return width


@pytest.mark.parametrize(
    ("subject", "peers", "expected"),
    [
        ("scan", None, ("torch_loop", "associative_scan", "mamba_ssm_formula")),
        ("mixer", "frozen_mixer,two_call,attention_naive,attention_fused", ("frozen_mixer",)),
        ("model", None, ("deit_tiny_naive", "deit_tiny_fused")),
        ("vision", None, ("deit_tiny_naive", "deit_tiny_fused", "vmamba_tiny")),
    ],
)
def test_a_quick_run_writes_json_and_a_picture(
    subject: str,
    peers: str | None,
    expected: tuple[str, ...],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = ["bench", subject, "--quick", "--rounds", "1", "--threads", "1"]
    words += ["--output", str(tmp_path), *(["--peers", peers] if peers else [])]
    assert main(words) == 0, capsys.readouterr().err
    out = capsys.readouterr().out
    name = f"{subject}_cpu_quick{'_partial' if peers else ''}"
    document = json.loads((tmp_path / f"{name}.json").read_text())
    assert width_of(tmp_path / f"{name}.png") == 1600
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"{name}.json", f"{name}.png"]
    assert document["subject"] == subject
    assert document["threads"] == 1
    assert document["backend"]["name"]
    assert {"machine", "versions", "date", "git", "settings", "targets"} <= document.keys()
    assert all(target["holds"] is None for target in document["targets"])
    for peer in expected:
        assert peer in out
        assert f'"{peer}"' in json.dumps(document["results"])


def test_partial_results_of_every_kind_can_be_drawn(tmp_path: Path) -> None:
    words = ["--quick", "--rounds", "1", "--output", str(tmp_path)]
    assert main(["bench", "scan", *words, "--peers", "mamba_ssm_formula"]) == 0
    assert width_of(tmp_path / "scan_cpu_quick_partial.png") == 1600


@pytest.mark.parametrize(
    ("words", "advice"),
    [
        (["scam"], "did you mean scan?"),
        (["scan", "--peers", "torch_lop"], "did you mean torch_loop?"),
        (["mixer", "--peers", "two_call,mambapi"], "did you mean mambapy?"),
        (["vision", "--peers", "deit_tiny"], "did you mean deit_tiny_"),
        (["scan", "--rounds", "-1"], "found: -1"),
        (["scan", "--rounds", "many"], "found: many"),
        (["scan", "--threads", "0"], "where: --threads"),
        (["scan", "--dtype", "bfloat"], "did you mean bfloat16?"),
        (["scan", "--device", "gpu"], "expected: a device"),
        (["scan", "--device", "cuda:77"], "use --device cpu"),
        (["scan", "--device", "meta"], "use --device cpu"),
    ],
)
def test_bad_words_are_refused_with_a_cure(
    words: list[str], advice: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["bench", *words, "--quick", "--output", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("bimamba: error\nexpected: ")
    assert advice in error
    assert "Traceback" not in error
    assert not list(tmp_path.iterdir())


def test_an_output_that_is_a_file_is_refused_before_anything_is_measured(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("mine")
    assert main(["bench", "scan", "--output", str(tmp_path / "file")]) == 2
    assert "is a file" in capsys.readouterr().err
    assert (tmp_path / "file").read_text() == "mine"


def test_without_a_subject_the_usage_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench"]) == 2
    assert "usage: bimamba bench" in capsys.readouterr().err
