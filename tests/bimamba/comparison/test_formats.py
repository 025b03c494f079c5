"""Each format says the same: numbers, units, the best, the runs; and whatever a name is made of."""

import csv
import io
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from rich.console import Console

from bimamba.comparison.formats import (
    escape_latex,
    escape_markdown,
    to_csv,
    to_latex,
    to_markdown,
    to_rich,
    write_table,
)
from bimamba.comparison.table import Cell, Column, Row, Table

TOP1 = Column("val/top1", "val/top1", "%", "max")
PARAMS = Column("params", "parameters", "count")
MEMORY = Column("peak_memory", "peak memory", "bytes")
TIME = Column("seconds", "time", "s")
TABLE = Table(
    "digits & more",
    (TOP1, PARAMS, MEMORY, TIME),
    (
        Row(
            "depth_4 | v2",
            {
                "val/top1": Cell(97.123456, 0.4321, 3),
                "params": Cell(154826.0),
                "peak_memory": Cell(3 * 2**29, None, 1),
                "seconds": Cell(90.0),
            },
            ("digits/a", "digits/b_1", "digits/c"),
        ),
        Row(
            "depth_8",
            {"val/top1": Cell(98.5), "params": Cell(1_250_000.0), "seconds": "killed"},
            ("digits/d",),
        ),
    ),
    ("Crop of 87.5 %.",),
)


def shown(table: Table, width: int = 200) -> str:
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(to_rich(table))
    return console.export_text()


def test_csv_holds_the_numbers_as_they_are() -> None:
    first, second = csv.DictReader(to_csv(TABLE).splitlines())
    assert first["variant"] == "depth_4 | v2"
    assert float(first["val/top1"]) == 97.123456
    assert (float(first["val/top1_ci95"]), first["val/top1_n"]) == (0.4321, "3")
    assert (first["params"], first["peak_memory"]) == ("154826", str(3 * 2**29))
    assert first["runs"].split() == ["digits/a", "digits/b_1", "digits/c"]
    assert (second["val/top1_ci95"], second["val/top1_n"]) == ("", "1")
    assert (second["peak_memory"], second["seconds"]) == ("", "killed")
    assert list(second)[-1] == "runs"


def test_markdown_is_a_table_with_units_and_the_best_bold() -> None:
    lines = to_markdown(TABLE).splitlines()
    rows = [re.split(r"(?<!\\)\|", line) for line in lines if line.startswith("|")]
    assert {len(row) for row in rows} == {8}
    assert [cell.strip() for cell in rows[0][2:6]] == [
        "val/top1 (%)",
        "parameters (k)",
        "peak memory (GiB)",
        "time (min)",
    ]
    assert rows[2][2].strip() == "97.12 ± 0.43"
    assert rows[3][2].strip() == "**98.50**"
    assert rows[2][4].strip() == "1.500"
    assert rows[3][4].strip() == ""
    assert rows[2][-2].strip() == "`digits/a`<br>`digits/b_1`<br>`digits/c`"
    assert lines[-1] == "- Crop of 87.5 %."


def test_latex_is_booktabs_with_everything_escaped() -> None:
    text = to_latex(TABLE)
    assert r"97.12 $\pm$ 0.43" in text
    assert r"\textbf{98.50}" in text
    assert r"depth\_4 \textbar{} v2" in text
    assert r"\caption{digits \& more. Crop of 87.5 \%.}" in text
    for rule in (r"\toprule", r"\midrule", r"\bottomrule"):
        assert text.count(rule) == 1
    body = text[text.index(r"\toprule") : text.index(r"\bottomrule")]
    for line in body.splitlines():
        if "&" in line and "midrule" not in line:
            assert len(re.findall(r"(?<!\\)&", line)) == 5
    assert text.count("{") == text.count("}")
    assert "digits/b\\_1" in text
    assert not [line for line in text.splitlines()[1:] if re.search(r"(?<!\\)[%#_]", line)]


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no pdflatex here")
def test_latex_compiles(tmp_path: Path) -> None:
    document = r"\documentclass{article}\usepackage{booktabs}\begin{document}"
    (tmp_path / "t.tex").write_text(document + to_latex(TABLE) + r"\end{document}")
    command = ["pdflatex", "-halt-on-error", "t.tex"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)


def test_the_terminal_shows_numbers_units_and_runs() -> None:
    text = shown(TABLE)
    for words in ("val/top1", "(%)", "97.12 ± 0.43", "1.500", "killed", "digits/b_1"):
        assert words in text


def test_names_that_look_like_markup_are_shown_as_they_are() -> None:
    table = Table("[red]x[/]", (TOP1,), (Row("[bold]a", {}, ("e/[b]",)),))
    assert {"[red]x[/]", "[bold]a", "e/[b]"} <= set(re.findall(r"\S+", shown(table)))


@pytest.mark.parametrize(
    ("text", "latex"),
    [
        ("50 % of a_b & c#1 {x}", r"50 \% of a\_b \& c\#1 \{x\}"),
        ("~^\\", r"\textasciitilde{}\textasciicircum{}\textbackslash{}"),
        ("1 ± 2, <3>, $", r"1 $\pm$ 2, \textless{}3\textgreater{}, \$"),
    ],
)
def test_latex_escapes(text: str, latex: str) -> None:
    assert escape_latex(text) == latex


@pytest.mark.parametrize(
    ("text", "markdown"),
    [
        ("a_b", "a_b"),
        ("_a_", r"\_a\_"),
        ("a|b *c*", r"a\|b \*c\*"),
        ("<b>&", "&lt;b&gt;&amp;"),
        ("[x](y)", r"[x]\(y)"),
        ("# x\ny", r"\# x y"),
    ],
)
def test_markdown_escapes(text: str, markdown: str) -> None:
    assert escape_markdown(text) == markdown


@pytest.mark.parametrize(
    ("cell", "digits", "text"),
    [
        (Cell(97.123456), None, "97.12"),
        (Cell(0.000123456), None, "0.0001235"),
        (Cell(12345.678), None, "12,346"),
        (Cell(100.0), None, "100"),
        (Cell(0.0), None, "0"),
        (Cell(97.123456, 12.3, 2), None, "97 ± 12"),
        (Cell(97.123456, 0.0123, 2), None, "97.123 ± 0.012"),
        (Cell(2.0, 0.0, 2), None, "2 ± 0"),
        (Cell(97.123456, 0.5, 2), 1, "97.1 ± 0.5"),
        (Cell(None, None, 0), None, "–"),
        (Cell(-1.5), None, "-1.500"),
    ],
)
def test_digits_are_those_that_mean_something(cell: Cell, digits: int | None, text: str) -> None:
    column = Column("m", "m", digits=digits)
    runs = tuple(f"e/{i}" for i in range(cell.count))
    line = to_markdown(Table("", (column,), (Row("r", {"m": cell}, runs),))).splitlines()[2]
    assert line.split("|")[2].strip() == text


def test_counts_on_which_all_runs_agree_have_no_interval() -> None:
    row = Row("r", {"params": Cell(5000.0, 0.0, 2), "val/top1": Cell(2.0, 0.0, 2)}, ("a", "b"))
    line = to_markdown(Table("", (PARAMS, TOP1), (row,))).splitlines()[2]
    assert line.startswith("| r | 5 | 2 ± 0 |")


def test_a_mean_of_fewer_runs_than_the_row_says_so() -> None:
    table = Table("", (TOP1,), (Row("r", {"val/top1": Cell(1.0, 0.5, 2)}, ("a", "b", "c")),))
    assert "(n = 2)" in to_markdown(table)


def test_writes_three_files(tmp_path: Path) -> None:
    paths = write_table(TABLE, tmp_path / "new", "results")
    assert [path.name for path in paths] == ["results.csv", "results.md", "results.tex"]
    assert paths[0].read_text(encoding="utf-8") == to_csv(TABLE)
    assert paths[1].read_text(encoding="utf-8") == to_markdown(TABLE)


def test_an_empty_table_is_a_heading() -> None:
    table = Table("", (TOP1,), ())
    assert to_csv(table) == "variant,val/top1,runs\n"
    assert to_markdown(table).count("\n") == 2
    assert r"\midrule" in to_latex(table)
    assert "val/top1" in shown(table)
