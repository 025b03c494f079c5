"""`bimamba report`: many runs as one page that loads nothing, and as Markdown."""

import json
import re
from pathlib import Path

import pytest

from bimamba.main import main
from bimamba.reporting.contents import gather
from tests.demo import TINY


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("runs")
    for name, seed in (("one", "0"), ("two", "1")):
        words = ["--run_name", name, "--seed_everything", seed]
        assert main(["fit", *TINY, "--output", str(root), *words]) == 0
    failed = root / "demo_vision" / "three"
    failed.mkdir()
    summary = json.loads((root / "demo_vision" / "one" / "summary.json").read_text())
    summary |= {"run": "three", "status": "failed", "metrics": {"best": {}, "last": {}, "raw": {}}}
    (failed / "summary.json").write_text(json.dumps(summary))
    return root / "demo_vision"


def test_a_page_of_many_runs_is_whole_in_itself(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", str(runs)]) == 0
    page, text = (Path(line) for line in capsys.readouterr().out.split())
    html = page.read_text()
    assert not re.findall(r'(?:src|href)="(?:https?:)?//', html)
    assert "default-src 'none'" in html
    for part in ("demo_vision/one", "demo_vision/two", "samples/s", "Architecture of", "synthetic"):
        assert part in html
    assert "demo_vision/three" in html and "ended with an error" in html
    assert all((page.parent / link).exists() for link in re.findall(r'href="\./([^"]+)"', html))
    markdown = text.read_text()
    assert "VisionMamba" in markdown and "`demo_vision/one`" in markdown


def test_one_run_gets_its_own_page(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(runs / "one")]) == 0
    assert capsys.readouterr().out.strip() == str(runs / "one" / "page.html")


def test_runs_of_other_data_have_a_section_of_their_own(runs: Path, tmp_path: Path) -> None:
    other = tmp_path / "elsewhere" / "four"
    other.mkdir(parents=True)
    for name in ("summary.json", "config.yaml", "metrics.csv"):
        (other / name).write_bytes((runs / "one" / name).read_bytes())
    summary = json.loads((other / "summary.json").read_text())
    summary["data"]["hash"] = "another"
    (other / "summary.json").write_text(json.dumps(summary))
    contents = gather([str(runs), str(tmp_path / "elsewhere")])
    assert [len(group.runs) for group in contents.groups] == [2, 1]
    assert list(contents.groups[0].variants.values())[0].__len__() == 2, "they differ in the seed"


def test_a_sweep_shows_its_table_and_pictures(runs: Path, tmp_path: Path) -> None:
    (runs / "sweep.json").write_text("{}")
    table = (
        "|  | val/top1 (%) | runs |\n|---|--:|---|\n| a\\|b | **1.5 ± 0.25** | `x/1`<br>`x/2` |\n"
    )
    (runs / "trials.md").write_text(f"**x: 2 of 2 trials**\n\n{table}\n- Mean.\n")
    try:
        contents = gather([str(runs)])
    finally:
        (runs / "sweep.json").unlink()
        (runs / "trials.md").unlink()
    assert contents.experiments[0].kind == "sweep"
    assert contents.experiments[0].rows == [
        ["", "val/top1 (%)", "runs"],
        ["a|b", "1.5 ± 0.25", "x/1, x/2"],
    ]


def test_an_evaluation_without_what_training_looks_at_is_shown(runs: Path, tmp_path: Path) -> None:
    """As after `bimamba test`, which logs no val/..."""
    tested = tmp_path / "tested" / "test-one"
    tested.mkdir(parents=True)
    summary = json.loads((runs / "one" / "summary.json").read_text())
    summary["data"]["hash"], summary["metrics"] = "another", {"best": {}, "last": {"test/top1": 50}}
    (tested / "summary.json").write_text(json.dumps(summary))
    (tested / "config.yaml").write_bytes((runs / "one" / "config.yaml").read_bytes())
    contents = gather([str(runs), str(tmp_path / "tested")])
    assert [c.name for c in contents.groups[1].table.columns][0] == "test/top1"


def test_nothing_to_report_is_told(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(tmp_path)]) == 2
    assert "no run there" in capfd.readouterr().err
