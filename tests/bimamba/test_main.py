"""The door: fast help, verbs, and errors without tracebacks."""

import subprocess
import sys

import pytest

from bimamba.main import main


def test_help_imports_neither_torch_nor_numpy() -> None:
    code = (
        "import sys; from bimamba.main import main; main(['--help']); "
        "assert 'torch' not in sys.modules and 'numpy' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "bimamba fit --config" in done.stdout


def test_module_and_console_script_are_one_command() -> None:
    done = subprocess.run([sys.executable, "-m", "bimamba"], capture_output=True, text=True)
    assert done.returncode == 0
    assert done.stdout.startswith("usage: bimamba")


def test_version_is_the_installed_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("bimamba-suite 0.")


def test_a_mistyped_verb_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fitt"]) == 2
    error = capsys.readouterr().err
    assert "did you mean fit?" in error
    assert "Traceback" not in error


def test_help_of_a_verb_lists_our_options_with_their_meaning(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["fit", "--help"]) == 0
    out = capsys.readouterr().out
    assert "--experiment" in out
    assert "--save_top_k" in out
    assert "--data.init_args" in out or "--data CONFIG" in out
