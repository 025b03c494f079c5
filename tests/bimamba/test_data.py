"""`bimamba data` through the real command, on the digits and on miniatures."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from bimamba.main import main
from datamodules.vision.miniatures import wnid, write_folder_layout
from tests.conftest import ROOT

DEMO = ("--config", str(ROOT / "configs" / "demo" / "vision.yaml"))
ROOT_KEY = "--data.init_args.root"

BARE_DATA = """
from lightning.pytorch import LightningDataModule


class Bare(LightningDataModule):
    def __init__(self, root: str | None = None) -> None:
        super().__init__()


class OneForm(Bare):
    def convert(self, to):
        to.mkdir()
        yield to / "one"

    def repair(self, to):
        yield to / "two"
        yield to / "three"
"""


@pytest.fixture
def data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Runs the verb in an empty folder; only `to` may appear in it."""
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)

    def call(*words: str) -> tuple[int, str, str]:
        status = main(["data", *words])
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err
        assert {path.name for path in work.iterdir()} <= {"to"}
        return status, out, err

    return call


@pytest.fixture
def images(tmp_path: Path) -> Path:
    root = tmp_path / "images"
    write_folder_layout(root, classes=3, per_class=3, size=16)
    return root


@pytest.fixture
def foreign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Data modules of the user's own, which offer less."""
    (tmp_path / "my_data.py").write_text(BARE_DATA)
    monkeypatch.syspath_prepend(tmp_path)


def test_describe_prints_facts_as_lines_and_as_json(data: Callable[..., tuple]) -> None:
    status, out, _ = data("describe", *DEMO)
    assert status == 0
    assert "training images              1,442\n" in out
    status, out, _ = data("describe", *DEMO, "--json")
    assert status == 0
    assert json.loads(out)["training images"] == 1442


def test_flags_of_fit_choose_the_data(data: Callable[..., tuple], images: Path) -> None:
    status, out, _ = data(
        "describe", *DEMO, ROOT_KEY, str(images), "--data.init_args.layout=folder"
    )
    assert status == 0
    assert f"root                         {images}\n" in out


def test_data_of_a_configuration_for_absent_gpus_is_looked_at(data: Callable[..., tuple]) -> None:
    words = ("--trainer.accelerator", "cuda", "--trainer.devices", "8")
    assert data("describe", *DEMO, *words)[0] == 0


def test_sound_data_passes(data: Callable[..., tuple], images: Path) -> None:
    status, out, _ = data("validate", *DEMO, ROOT_KEY, str(images))
    assert (status, out) == (0, "18 images read: 0 errors, 0 warnings, 0 notes\n")
    status, out, _ = data("validate", *DEMO, ROOT_KEY, str(images), "--sample", "2")
    assert (status, out) == (0, "4 images read: 0 errors, 0 warnings, 0 notes\n")


def test_every_broken_image_is_listed_with_its_cure(
    data: Callable[..., tuple], images: Path
) -> None:
    broken = sorted(images.glob("*/*/*"))[::5]
    for path in broken:
        path.write_bytes(path.read_bytes()[:200])
    status, out, _ = data("validate", *DEMO, ROOT_KEY, str(images))
    assert status == 1
    assert [line for line in out.splitlines() if line.startswith("✗")] == [
        f"✗ error            {path}" for path in broken
    ]
    assert out.count("cure: copy or download the file again") == len(broken) == 4
    assert out.endswith("18 images read: 4 errors, 0 warnings, 0 notes\n")
    status, out, _ = data("validate", *DEMO, ROOT_KEY, str(images), "--json")
    document = json.loads(out)
    assert status == 1
    assert document["counts"] == {"error": 4}
    assert [remark["where"] for remark in document["remarks"]] == list(map(str, broken))


def test_a_flood_of_remarks_is_cut(
    data: Callable[..., tuple], images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bimamba.data._MOST_SHOWN", 3)
    for path in images.glob("*/*/*"):
        path.write_bytes(b"")
    status, out, _ = data("validate", *DEMO, ROOT_KEY, str(images))
    assert status == 1
    assert out.count("✗ error") == 3
    assert "... and 15 more of level error\n18 images read: 18 errors" in out


def test_warnings_alone_pass(data: Callable[..., tuple], images: Path) -> None:
    shutil.copy(
        images / "train" / wnid(0) / f"{wnid(0)}_1.JPEG", images / "val" / wnid(0) / "copy.JPEG"
    )
    status, out, _ = data("validate", *DEMO, ROOT_KEY, str(images))
    assert status == 0
    assert "19 images read: 0 errors, 1 warnings, 0 notes" in out


def test_generate_says_where_and_copies(data: Callable[..., tuple], images: Path) -> None:
    # The embedded set, even where the configuration has data of its own.
    status, out, _ = data("generate", *DEMO, ROOT_KEY, str(images))
    assert status == 0
    cached = Path(out.removeprefix("written: ").strip())
    assert (cached / "val").is_dir()
    status, out, _ = data("generate", *DEMO, "--to", "to")
    assert (status, out) == (0, "written: to\n")
    names = {path.relative_to(cached) for path in cached.rglob("*")}
    assert {path.relative_to("to") for path in Path("to").rglob("*")} == names
    assert data("describe", *DEMO, ROOT_KEY, "to")[0] == 0
    status, _, err = data("generate", *DEMO, "--to", "to")
    assert status == 2
    assert "found: a folder with files" in err


@pytest.mark.parametrize("form", ["shards", "parquet"])
def test_convert_writes_data_that_validates(
    data: Callable[..., tuple], images: Path, form: str
) -> None:
    status, out, _ = data("convert", *DEMO, ROOT_KEY, str(images), "--to", "to", "--form", form)
    assert status == 0
    count = sum(path.is_file() for path in Path("to").rglob("*"))
    assert out == f"written: {count} files in to\n"
    status, out, _ = data("validate", *DEMO, ROOT_KEY, "to")
    assert (status, out) == (0, "18 images read: 0 errors, 0 warnings, 0 notes\n")


@pytest.mark.parametrize(
    "words, advice",
    [
        (["convert", *DEMO], "name it with --to DIR"),
        (["convert", *DEMO, "--to", "to", "--form", "parket"], "did you mean parquet?"),
        (["repair", *DEMO, "--to", "to"], "which offers generate, describe, validate, convert"),
        (["validat", *DEMO], "did you mean validate?"),
        (["validate", *DEMO, "--sample", "0"], "found: 0"),
        (["describe", *DEMO, ROOT_KEY, "nowhere"], "found: no such folder"),
        (["describe", *DEMO, "--data.init_args.rooot", "x"], "did you mean"),
        (["describe"], "add a configuration"),
    ],
)
def test_bad_words_are_refused_with_a_cure(
    data: Callable[..., tuple], words: list[str], advice: str
) -> None:
    status, _, err = data(*words)
    assert status == 2
    assert err.startswith("bimamba: error\nexpected: ")
    assert advice in err


def test_a_target_that_cannot_be_written_is_refused(
    data: Callable[..., tuple], tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    status, _, err = data("convert", *DEMO, "--to", str(tmp_path / "file" / "to"))
    assert status == 2
    assert f"found: {tmp_path / 'file'} is a file" in err


@pytest.mark.usefixtures("foreign")
def test_data_of_ones_own_says_which_verbs_it_knows(data: Callable[..., tuple]) -> None:
    bare, one = (("--data", f"my_data.{name}") for name in ("Bare", "OneForm"))
    status, _, err = data("validate", *DEMO, *bare)
    assert status == 2
    assert "found: Bare, which offers generate\n" in err
    assert "datamodules.inspection.Inspectable" in err
    status, _, err = data("convert", *DEMO, *one, "--to", "to", "--form", "x")
    assert "no --form: there is only one" in err
    assert data("convert", *DEMO, *one, "--to", "to")[:2] == (0, "written: 1 files in to\n")
    assert data("repair", *DEMO, *one, "--to", "to")[:2] == (0, "written: 2 files in to\n")


def test_help_names_every_action(data: Callable[..., tuple]) -> None:
    for words in ((), ("--help",), ("describe", "-h")):
        status, out, _ = data(*words)
        assert status == 0
        assert all(f"\n  {action}" in out for action in ("describe", "validate", "repair"))
