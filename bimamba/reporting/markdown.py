"""The report as Markdown, for a repository or a paper's appendix."""

from collections.abc import Sequence

from bimamba.comparison.formats import escape_markdown, to_markdown
from bimamba.reporting.contents import Contents, Group
from bimamba.reporting.diagram import outline
from bimamba.reporting.facts import cost_rows, setup_rows


def report_markdown(contents: Contents, title: str) -> str:
    """The text.

    Args:
        contents: What it says.
        title: Of the report.
    """
    lines = [f"# {title}", ""]
    for experiment in contents.experiments:
        lines += [f"## {experiment.kind.capitalize()} {experiment.directory.name}", ""]
        lines += _table(experiment.rows)
    for group in contents.groups:
        lines += _group(group)
    for heading, remarks in (
        ("What failed or is missing", contents.left_out),
        ("To be read with care", contents.doubtful),
    ):
        if remarks:
            lines += [f"## {heading}", ""]
            lines += [f"- `{run}`: {escape_markdown(text)}" for run, text in remarks] + [""]
    return "\n".join(lines).rstrip() + "\n"


def _group(group: Group) -> list[str]:
    lines = [f"## {escape_markdown(group.title)}", ""]
    lines += [f"- {name}: {escape_markdown(text)}" for name, text in setup_rows(group)]
    lines += ["", to_markdown(group.table), "### Cost", "", *_table(cost_rows(group))]
    for label, runs in group.variants.items():
        if found := outline(runs[0].directory):
            lines += [f"### Architecture of {escape_markdown(label)}", "", *found, ""]
    return lines


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    if not rows:
        return []
    lines = [f"| {' | '.join(escape_markdown(cell) for cell in row)} |" for row in rows]
    return [lines[0], f"|{'---|' * len(rows[0])}", *lines[1:], ""]
