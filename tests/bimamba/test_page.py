"""The page of a run: complete, self-contained, harmless, and there for half-written runs too."""

import base64
import json
import re
from collections.abc import Callable
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from bimamba.console import print_results
from bimamba.curves import chart, thinned
from bimamba.formats import duration, memory, short
from bimamba.main import main
from bimamba.page import write_page
from bimamba.run_files import Point, read_run

SUMMARY: dict[str, Any] = {
    "schema": 1,
    "run": "first",
    "experiment": "digits",
    "workload": "ImageClassification",
    "status": "finished",
    "seed": 3,
    "monitor": "val/top1",
    "mode": "max",
    "units": {"top1": "%"},
    "metrics": {
        "best": {"val/top1": 97.125, "val/loss": 0.25, "train/loss": 0.5},
        "last": {"val/top1": 96.5, "val/loss": None, "train/loss": 0.375},
        "raw": {},
    },
    "best_step": 40,
    "epochs": 3,
    "steps": 60,
    "params": 154826,
    "trainable_params": 154826,
    "seconds": 165.43,
    "samples_per_second": 218.5,
    "peak_memory": 3 * 2**30 // 2,
    "protocol": "355 images, centre crop",
    "data": {"root": "/data/digits", "synthetic": True, "hash": "ac790297cd68"},
    "versions": {"python": "3.11.7", "torch": "2.15.0"},
    "git": {"rev": "8ae5de7d02a9", "dirty": True},
}
HEADER = "epoch,step,lr/decay,lr/no_decay,train/loss,train/loss_step,val/loss,val/top1"
ROWS = (
    ",9,0.001,0.001,,,,",
    "0,9,,,,2.25,,",
    "0,19,,,,,0.75,61.5",
    "0,19,,,1.5,,,",
    ",29,0.002,0.002,,,,",
    "1,29,,,,1.125,,",
    "1,39,,,,,0.5,97.125",
    "1,39,,,0.5,,,",
)


class Tags(HTMLParser):
    """Collects tags with their attributes, and fails on a tag closed out of order."""

    EMPTY = ("meta", "img", "path", "line", "br")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in self.EMPTY:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., Path]:
    """Writes a run directory; `None` leaves a file out."""

    def write(
        summary: Any = SUMMARY, config: Any = None, rows: tuple[str, ...] | None = ROWS
    ) -> Path:
        folder = tmp_path / "digits" / "first"
        (folder / "pictures").mkdir(parents=True)
        if summary is not None:
            (folder / "summary.json").write_text(json.dumps(summary))
        if config is not None:
            (folder / "config.yaml").write_text(yaml.safe_dump(config))
        if rows is not None:
            (folder / "metrics.csv").write_text("\n".join((HEADER, *rows)) + "\n")
        return folder

    return write


def page(folder: Path) -> str:
    return write_page(folder).read_text(encoding="utf-8")


def test_shows_results_cost_origin_and_configuration(run: Callable[..., Path]) -> None:
    folder = run(config={"model": {"init_args": {"depth": 4}}, "seed_everything": 3})
    (folder / "config_changes.yaml").write_text("model:\n  init_args:\n    depth: 4\n")
    text = re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]*>", " ", page(folder))))
    for words in (
        "digits first ImageClassification, finished",
        "best val/top1 97.12 % at step 40",
        "last val/top1 96.5 % higher is better",
        "val/loss 0.25 not finite",
        "time 2 min 45 s 60 steps, 3 epochs",
        "training speed 218.5 samples per second",
        "peak memory 1.50 GiB",
        "parameters 154,826",
        "8ae5de7d02a9, with changes that were not committed",
        "python 3.11.7, torch 2.15.0",
        "data /data/digits",
        "hash of the data ac790297cd68",
        "protocol 355 images, centre crop",
        "seed 3",
        "depth: 4",
        "seed_everything: 3",
    ):
        assert words in text, words


def test_draws_each_metric_once_with_its_data(run: Callable[..., Path]) -> None:
    text = page(run())
    assert re.findall(r"<h3>([\w ]*\w)", text) == ["top1", "loss", "learning rate"]
    assert 'data-steps="19 39" data-values="61.5 97.125"' in text
    assert 'class="thin" data-steps="9 29" data-values="2.25 1.125"' in text
    assert "lr/no_decay" not in text  # the same curve as lr/decay


def test_embeds_pictures(run: Callable[..., Path]) -> None:
    folder = run()
    Image.new("RGB", (4, 3), "red").save(folder / "pictures" / "val_grid.png")
    (folder / "pictures" / "notes.txt").write_text("no picture")
    images = [attributes for tag, attributes in Tags(page(folder)).found if tag == "img"]
    assert [image["alt"] for image in images] == ["val grid"]
    kind, _, data = str(images[0]["src"]).partition(",")
    assert kind == "data:image/png;base64"
    assert base64.b64decode(data) == (folder / "pictures" / "val_grid.png").read_bytes()


def test_hostile_names_stay_text(run: Callable[..., Path]) -> None:
    evil = "</script></pre><script>alert(1)</script><img src=x onerror=alert(2)>\"'&"
    summary = json.loads(json.dumps(SUMMARY).replace("digits", "x"))
    summary |= {"experiment": evil, "run": evil, "workload": evil, "status": evil}
    summary |= {"monitor": evil, "protocol": evil, "data": {"root": evil}, "versions": {evil: evil}}
    summary["metrics"] = {"best": {evil: 1.0}, "last": {evil: 2.0}}
    folder = run(summary, {"data": {"class_names": [evil]}}, None)
    (folder / "config_changes.yaml").write_text(evil)
    (folder / "metrics.csv").write_text('step,"' + evil.replace('"', '""') + '"\n1,2\n2,3\n')
    Image.new("L", (2, 2)).save(folder / "pictures" / "<script>'\".png")
    found = Tags(page(folder)).found
    assert [tag for tag, _ in found].count("script") == 1
    assert len([tag for tag, _ in found if tag == "img"]) == 1
    assert not [a for _, attributes in found for a in attributes if a.startswith("on")]


def test_needs_no_network_and_allows_none(run: Callable[..., Path]) -> None:
    folder = run(config={"homepage": "https://example.org/model"})
    Image.new("L", (2, 2)).save(folder / "pictures" / "val_grid.png")
    text = page(folder)
    found = Tags(text).found
    for tag, attributes in found:
        assert tag not in {"link", "iframe", "object", "base"}
        for name in ("src", "href", "srcset", "data", "action"):
            value = attributes.get(name)
            assert value is None or value.startswith(("data:image/", "./")), value
    addresses = re.findall(r"\w+://[^\s<]*", text)
    assert addresses == ["https://example.org/model"]  # text of the configuration
    assert "url(" not in text
    assert "@import" not in text
    policy = next(a["content"] for _, a in found if "http-equiv" in a)
    assert policy and policy.startswith("default-src 'none'")


def test_the_script_it_allows_is_the_one_it_has(run: Callable[..., Path]) -> None:
    import hashlib

    text = page(run())
    script = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script[0].encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in text


@pytest.mark.parametrize(
    ("status", "words"),
    [
        ("running", "had not ended"),
        ("failed", "ended with an error"),
        ("interrupted", "was interrupted"),
    ],
)
def test_says_when_a_run_is_not_finished(run: Callable[..., Path], status: str, words: str) -> None:
    empty = {"best": {}, "last": {}, "raw": {}}
    text = page(run({**SUMMARY, "status": status, "metrics": empty, "git": None}, rows=None))
    Tags(text)
    assert words in text
    assert "No metrics yet." in text
    assert "metrics.csv is not there." in text


@pytest.mark.parametrize(
    "summary",
    ["null", "[]", "{}", '{"metrics": 3, "git": "x", "params": "many"', '{"seconds": NaN}'],
)
def test_a_damaged_summary_is_no_reason_to_fail(run: Callable[..., Path], summary: str) -> None:
    folder = run(None)
    (folder / "summary.json").write_text(summary)
    text = page(folder)
    Tags(text)
    assert "Nothing tells how the run ended." in text
    assert 'data-values="61.5 97.125"' in text


def test_a_row_that_is_being_written_is_left_out(run: Callable[..., Path]) -> None:
    read = read_run(run(rows=(*ROWS, "2,5")))
    assert read.curves["val/top1"] == [Point(19, 61.5), Point(39, 97.125)]
    assert read.problems == ["config.yaml is not there."]


def test_diverged_values_leave_a_gap(run: Callable[..., Path]) -> None:
    rows = tuple(
        f"0,{step},,,,{value},,"
        for step, value in enumerate(["1.0", "2.0", "nan", "inf", "1e300", "3"])
    )
    text = page(run(rows=rows))
    Tags(text)
    assert 'data-values="1 2 nan nan nan 3"' in text
    assert text.count('<path class="c0"') == 1 + 1  # the legend's, and the stretch before the gap
    assert text.count('<path class="c0 dot"') == 1


def test_nothing_finite_is_said_not_drawn() -> None:
    text = chart("loss", "", {"train/loss": [Point(1, float("nan")), Point(2, float("inf"))]})
    assert "not a finite value" in text
    assert "<svg" not in text


@pytest.mark.parametrize(
    "values",
    [[0.0, 0.0], [1e-30, 2e-30], [5.0], [-1e38, 1e38], [1.0, 1.0 + 1e-15], [98.87, 98.8701]],
)
def test_any_range_of_values_can_be_drawn(values: list[float]) -> None:
    text = chart("x", "mm", {"val/x": [Point(i, value) for i, value in enumerate(values)]})
    Tags(text)
    places = [float(y) for y in re.findall(r"[ML][\d.]+ ([-\d.]+)", text.split("<ul")[0])]
    assert places
    assert all(0 <= place <= 236 for place in places)
    labels = re.findall(r'text-anchor="end">([^<]*)<', text)
    assert len(set(labels)) == len(labels) >= 3


@pytest.mark.parametrize(
    ("values", "labels"),
    [
        ([1017.0, 1120.0], ["1000", "1050", "1100", "1150"]),
        ([0.0, 0.002], ["0.0000", "0.0005", "0.0010", "0.0015", "0.0020"]),
        ([-0.3, 0.9], ["-0.5", "0.0", "0.5", "1.0"]),
        ([0.0, 2e-5], ["0", "5e-06", "1e-05", "1.5e-05", "2e-05"]),
        ([61.0, 97.0], ["60", "70", "80", "90", "100"]),
    ],
)
def test_an_axis_has_round_labels(values: list[float], labels: list[str]) -> None:
    text = chart("x", "", {"val/x": [Point(i, value) for i, value in enumerate(values)]})
    assert re.findall(r'text-anchor="end">([^<]*)<', text) == labels


def test_thinning_keeps_ends_peaks_and_gaps() -> None:
    values = [float(i % 7) for i in range(100_000)]
    values[31_415], values[64_000] = 1000.0, float("nan")
    points = [Point(i, value) for i, value in enumerate(values)]
    thin = thinned(points)
    assert len(thin) <= 400
    assert thin[0] == points[0]
    assert thin[-1] == points[-1]
    assert points[31_415] in thin
    assert points[64_000] in thin
    assert thin == sorted(thin, key=lambda point: point.step)


def test_is_small_for_a_long_run(run: Callable[..., Path]) -> None:
    rows = tuple(f"{i // 100},{i},,,,{1 / (i + 1)},," for i in range(30_000))
    assert len(page(run(rows=rows))) < 100_000


def test_a_large_picture_is_linked_instead(
    run: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = run()
    Image.effect_noise((64, 64), 50).save(folder / "pictures" / "val grid.png")
    monkeypatch.setattr("bimamba.html.LARGEST_PICTURE", 100)
    text = page(folder)
    assert '<a href="./pictures/val%20grid.png">pictures/val grid.png</a>' in text
    assert "data:image" not in text


def test_report_prints_the_paths_of_the_pages(
    run: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = run()
    assert main(["report", str(folder)]) == 0
    assert capsys.readouterr().out == f"{folder / 'page.html'}\n"
    assert (folder / "page.html").stat().st_mode & 0o444 == 0o444


def test_report_of_a_folder_with_one_run_is_that_of_the_run(
    run: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = run()
    assert main(["report", str(folder.parent)]) == 0
    assert capsys.readouterr().out.strip() == str(folder / "page.html")
    assert main(["report", str(folder / "nowhere")]) == 2
    assert "nothing there" in capsys.readouterr().err


def test_numbers_read_well() -> None:
    assert [short(x) for x in (0.14004, 98.8732, 154826, 12345.6, 1e-7, -0.0, None)] == [
        *("0.14", "98.87", "154,826", "12,346", "1e-07", "0", "not finite")
    ]
    assert [duration(x) for x in (2.34, 59.6, 165.4, 7260)] == [
        *("2.3 s", "1 min 0 s", "2 min 45 s", "2 h 1 min")
    ]
    assert [memory(x) for x in (300 * 2**20, 3 * 2**29)] == ["300 MiB", "1.50 GiB"]


def test_the_table_at_the_end_takes_diverged_and_partly_known_metrics(
    run: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = run()
    last = {**SUMMARY["metrics"]["last"], "val/new": 1.5}
    summary = {**SUMMARY, "metrics": {**SUMMARY["metrics"], "last": last}}
    (folder / "summary.json").write_text(json.dumps(summary))
    print_results(folder, folder / "page.html")
    out = capsys.readouterr().out
    assert "not finite" in out
    assert "val/new" in out
    assert out.splitlines()[-1] == f"open in a browser: {folder / 'page.html'}"


def test_small_tables_are_shown_and_large_ones_linked(run: Callable[..., Path]) -> None:
    folder = run()
    (folder / "per_action.csv").write_text("action,p1,count\nWalking,41.23456,12\n<b>,,\n")
    (folder / "predictions.csv").write_text("file,class\n" + "a.png,3\n" * 100)
    text = page(folder)
    assert "<h2>Per action</h2>" in text
    assert "<td>Walking</td><td>41.23</td><td>12</td>" in text
    assert "<td>&lt;b&gt;</td><td></td>" in text
    assert "a.png" not in text and '<a href="./predictions.csv">' in text
    assert "<h2>Metrics</h2>" in text and "Per action</h2>" in text


def test_pages_that_play_are_linked_and_a_few_of_many_suffice(
    run: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = run()
    assert "To play and turn" not in page(folder)
    (folder / "poses").mkdir()
    for number in range(20):
        (folder / "poses" / f"video {number:02}.html").touch()
    text = page(folder)
    assert '<a href="./poses/video%2000.html">poses/video 00.html</a>' in text
    assert "and 8 more" in text and "video 19" not in text
    print_results(folder, folder / "page.html")
    out = capsys.readouterr().out
    assert "video 07.html" in out and "video 08.html" not in out
    assert f"and 12 more in {folder / 'poses'}" in out
