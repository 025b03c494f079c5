"""Runs as archives: there and back, and what an archive may not do."""

import zipfile
from pathlib import Path

import pytest

from bimamba.main import main
from bimamba.run_archive import import_run
from bimamba.run_files import read_run
from blocks.errors import SuiteError
from tests.demo import TINY


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("made")
    assert main(["fit", *TINY, "--output", str(root), "--run_name", "one"]) == 0
    return root / "demo_vision" / "one"


def test_a_run_comes_back_with_its_weights(made: Path, tmp_path: Path) -> None:
    path = tmp_path / "one.zip"
    assert main(["runs", "export", str(made), "--to", str(path)]) == 0
    assert main(["runs", "import", str(path), "--output", str(tmp_path / "in")]) == 0
    back = tmp_path / "in" / "demo_vision" / "one"
    assert read_run(back).summary == read_run(made).summary
    assert (back / "weights.safetensors").stat().st_size and not (back / "checkpoints").exists()
    assert (back / "page.html").exists() and (back / "config.yaml").exists()
    with pytest.raises(SuiteError, match="holds files"):
        import_run(path, tmp_path / "in")


def test_with_checkpoints_training_goes_on(made: Path, tmp_path: Path) -> None:
    path = tmp_path / "one.zip"
    assert main(["runs", "export", str(made), "--to", str(path), "--checkpoints"]) == 0
    back = import_run(path, tmp_path / "in")
    epochs = read_run(back).number("epochs")
    assert epochs is not None
    words = ["runs", "resume", str(back), "--trainer.max_epochs", str(int(epochs) + 1)]
    assert main(words) == 0
    assert read_run(back).number("epochs") == epochs + 1


@pytest.mark.parametrize(
    "names",
    [
        ["../../../evil.txt", "a/b/summary.json"],
        ["/a/b/summary.json"],
        ["a/b/summary.json", "a/c/summary.json"],
        ["a/b/notes.txt"],
        ["summary.json"],
    ],
)
def test_archives_that_are_no_run_write_nothing(names: list[str], tmp_path: Path) -> None:
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, "{}")
    with pytest.raises(SuiteError, match="expected: an archive"):
        import_run(path, tmp_path / "in")
    assert not (tmp_path / "in").exists() and not (tmp_path / "evil.txt").exists()


def test_what_is_no_zip_is_told(tmp_path: Path) -> None:
    (tmp_path / "x.zip").write_text("no")
    with pytest.raises(SuiteError, match="no zip"):
        import_run(tmp_path / "x.zip", tmp_path)


def test_an_existing_file_is_not_overwritten(made: Path, tmp_path: Path) -> None:
    path = tmp_path / "x.zip"
    path.write_text("mine")
    assert main(["runs", "export", str(made), "--to", str(path)]) == 2
    assert path.read_text() == "mine"
