"""Pictures of the figures, readable at 800 pixels and without telling red from green.

Colours are those of Okabe and Ito (2008); ours is always the blue. Lines carry their name at their
end, bars their value, so that there is no legend to match.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import LogLocator

from benchmarks.tables import number
from blocks.files import atomic_path

_COLOURS = {
    "bimamba": "#0072B2",
    "two_call": "#E69F00",
    "attention_naive": "#D55E00",
    "attention_fused": "#009E73",
    "vim_tiny": "#0072B2",
    "deit_tiny_naive": "#D55E00",
    "deit_tiny_fused": "#009E73",
    "vmamba_tiny": "#CC79A7",
}
_OURS, _OTHERS = "#0072B2", "#A7B1BA"
_LABELS = {
    "ours": "BiMamba suite",
    "ours_shards": "ours, from shards",
    "timm_uint8": "timm, 8-bit batches",
    "bimamba": "BiMamba",
    "vim_tiny": "Vim-Tiny, ours",
    "two_call": "two scans with flips",
    "torch_loop": "PyTorch loop",
    "associative_scan_compiled": "associative_scan, compiled",
    "associative_scan": "associative_scan, eager",
    "mamba_ssm_formula": "mamba-ssm formula",
    "attention_naive": "attention, naive",
    "attention_fused": "attention, fused",
    "deit_tiny_naive": "DeiT-Tiny, naive attention",
    "deit_tiny_fused": "DeiT-Tiny, fused attention",
    "vmamba_tiny": "VMamba-Tiny",
    "hybrid_causal_xs": "hybrid, causal, XS",
    "agformer_xs_window": "MotionAGFormer-XS,\n27 frames again",
    "agformer_b": "MotionAGFormer-B,\nours",
    "plain_agformer_b": "plain transcription",
    "res16unet34c": "Res16UNet34C",
    "serialized_mamba": "SerializedMambaUNet",
    "serialized_mamba_small": "SerializedMambaUNet,\nsmall",
}
_STYLE = {
    "font.size": 9,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#8a939b",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e4e8eb",
    "xtick.color": "#4a5259",
    "ytick.color": "#4a5259",
}
_PIXELS_PER_INCH = 200


def draw(subject: str, document: Mapping[str, Any], path: Path) -> None:
    """Draws the picture of a benchmark.

    Args:
        subject: `scan`, `mixer`, `model` or `vision`.
        document: What stands in its JSON.
        path: PNG to write.
    """
    makers = {
        "scan": _scan,
        "mixer": _mixer,
        "model": _model,
        "vision": _vision,
        "loading": _loading,
        "retrieval": _retrieval,
        "motion": _motion,
        "pose": _pose,
        "scannet": _scannet,
    }
    draw_results = makers[subject]
    with matplotlib.rc_context(_STYLE):
        figure = draw_results(document["results"])
        figure.text(0.995, 0.008, _origin(document), ha="right", size=6.5, color="#6b747c")
        with atomic_path(path) as temporary:
            figure.savefig(temporary, dpi=_PIXELS_PER_INCH, facecolor="white")


def _scan(results: Mapping[str, Any]) -> Figure:
    shapes = results["shapes"]
    figure = _figure(1.1 + 1.25 * len(shapes))
    plots = figure.subplots(len(shapes), 1, sharex=True, squeeze=False)[:, 0]
    everything = [part["forward_backward"] for part in shapes.values()]
    ratios = [row["ratio"] for rows in everything for row in rows.values() if "ratio" in row]
    for plot, name, rows in zip(plots, shapes, everything, strict=True):
        batch, channels, length, states = name.split("x")
        _bars(plot, {n: row.get("ratio") for n, row in rows.items()}, " ×")
        plot.set_title(f"batch {batch}, {channels} channels, length {length}, {states} states")
        plot.set_xscale("log")
        plot.set_xlim(min(ratios) / 2, max(ratios) * 2.5)
        plot.xaxis.set_major_formatter("{x:g}")
        plot.xaxis.set_minor_formatter("")
    plots[-1].set_xlabel("time of forward + backward, ours = 1")
    return figure


def _model(results: Mapping[str, Any]) -> Figure:
    figure = _figure(2.4)
    plots = figure.subplots(1, 2, sharey=True)
    vim = results["vim_tiny"]
    for plot, mode in zip(plots, ("training", "inference"), strict=True):
        _bars(plot, {n: row.get("images_per_second") for n, row in vim[mode].items()})
        plot.set_title(f"{mode}, batch {vim['batch']}, {vim['pixels']} pixels")
        plot.set_xlabel("images per second")
        plot.margins(x=0.15)
    return figure


def _mixer(results: Mapping[str, Any]) -> Figure:
    mixers = results["sweep"]["mixers"]
    figure = _figure(3.7)
    times, memory = figure.subplots(1, 2)
    _lines(times, mixers, "seconds_per_token", 1e6)
    times.set_title("time of a training step per token, µs")
    _lines(memory, mixers, "peak_bytes", 2**-20)
    memory.set_title("peak memory of a training step, MiB")
    for plot in (times, memory):
        plot.set_xlabel("tokens in one sequence")
    return figure


def _loading(results: Mapping[str, Any]) -> Figure:
    figure = _figure(2.4)
    plots = figure.subplots(1, 2, sharey=True)
    for plot, mode in zip(plots, ("training", "evaluation"), strict=True):
        rows = results[mode]
        _bars(plot, {name: row.get("images_per_second") for name, row in rows.items()})
        plot.set_title(f"{mode}, one worker, {results['bytes'] / 1e3:.0f} kB photos")
        plot.set_xlabel("images per second")
        plot.margins(x=0.15)
    return figure


def _vision(results: Mapping[str, Any]) -> Figure:
    """A row of pictures for each batch: time and memory against the size of the images."""
    batches = results["rows"]
    figure = _figure(3.3 * len(batches))
    plots = figure.subplots(len(batches), 2, squeeze=False)
    for (times, memory), (batch, networks) in zip(plots, batches.items(), strict=True):
        _lines(times, networks, "seconds_per_image", 1e3, str)
        times.set_title(f"batch {batch}: time per image, ms")
        _lines(memory, networks, "peak_bytes", 2**-20, str)
        memory.set_title(f"batch {batch}: peak memory, MiB")
        for plot in (times, memory):
            plot.set_xlabel("height and width of the images, pixels")
    return figure


def _retrieval(results: Mapping[str, Any]) -> Figure:
    figure = _figure(3.3)
    times, memory = figure.subplots(1, 2)
    protocols = results["protocols"]
    _lines(times, protocols, "seconds", 1, "{:,}".format)
    times.set_title("time to rank, a query for ten images, s")
    _lines(memory, protocols, "peak_bytes", 2**-20, "{:,}".format)
    memory.set_title("peak memory of the process, MiB")
    for plot in (times, memory):
        plot.set_xlabel("images in the gallery")
    return figure


def _pose(results: Mapping[str, Any]) -> Figure:
    figure = _figure(2.4)
    stream, steps = figure.subplots(1, 2)
    rows = results["stream"]["rows"]
    _bars(stream, {name: row.get("frames_per_second") for name, row in rows.items()})
    stream.set_title("a stream, one call per frame")
    stream.set_xlabel("frames per second")
    training = results["training"]
    _bars(steps, {name: row.get("median_seconds") for name, row in training["rows"].items()}, " s")
    steps.set_title(f"a training step, {training['frames']} frames")
    steps.set_xlabel("seconds")
    for plot in (stream, steps):
        plot.margins(x=0.2)
    return figure


def _motion(results: Mapping[str, Any]) -> Figure:
    lengths = results["lengths"]
    figure = _figure(2.2 * len(lengths))
    rows = figure.subplots(len(lengths), 2, sharey=True)
    titles = {"training": "training step", "sampling": "sampling, 20 steps with guidance"}
    for plots, (frames, modes) in zip(rows, lengths.items(), strict=True):
        for plot, (mode, title) in zip(plots, titles.items(), strict=True):
            times = {name: row.get("median_seconds") for name, row in modes[mode].items()}
            _bars(plot, times, " s")
            plot.set_title(f"{title}, {int(frames):,} frames")
            plot.set_xlabel("seconds")
            plot.margins(x=0.2)
    return figure


def _scannet(results: Mapping[str, Any]) -> Figure:
    figure = _figure(2.4)
    plots = figure.subplots(1, 2, sharey=True)
    modes = {"forward": "forward", "forward_backward": "forward + backward"}
    for plot, (mode, title) in zip(plots, modes.items(), strict=True):
        rows = results["backbones"][mode]
        _bars(plot, {name: row.get("median_seconds") for name, row in rows.items()}, " s")
        plot.set_title(f"{title}, {results['frame']['voxels']:,} voxels")
        plot.set_xlabel("seconds")
        plot.margins(x=0.2)
    return figure


def _figure(height: float) -> Figure:
    """Eight inches wide, with a line at the bottom for where the figures come from."""
    below = 0.2 / height
    engine = ConstrainedLayoutEngine(rect=(0, below, 1, 1 - below))
    return Figure(figsize=(8, height), layout=engine)


def _bars(plot: Axes, values: Mapping[str, float | None], unit: str = "") -> None:
    """Horizontal bars from the top down; ours, which is the first, in its colour."""
    bars = plot.barh(
        [_label(name) for name in values],
        [value or 0 for value in values.values()],
        color=[_OURS if index == 0 else _OTHERS for index in range(len(values))],
        height=0.72,
    )
    texts = ["" if v is None else f"{number(v)}{unit}" for v in values.values()]
    plot.bar_label(bars, texts, padding=3, size=8.5)
    left = plot.get_yaxis_transform()
    for row, value in enumerate(values.values()):
        if value is None:
            plot.text(0.01, row, "not run", transform=left, va="center", size=8.5, color="#6b747c")
    plot.set_ylim(len(values) - 0.5, -0.5)
    plot.grid(False)
    plot.tick_params(axis="y", length=0)


def _lines(
    plot: Axes,
    mixers: Mapping[str, Any],
    key: str,
    factor: float,
    word: Callable[[int], str] = lambda n: f"{n // 1024}k" if n >= 1024 else str(n),
) -> None:
    """Lines over whole numbers, both axes logarithmic; `word` spells the numbers."""
    ends: list[tuple[str, float, float]] = []
    for name, rows in mixers.items():
        points = [(int(n), row[key] * factor) for n, row in rows.items() if key in row]
        if not points:
            continue
        colour = _COLOURS.get(name, _OTHERS)
        plot.plot(*zip(*points, strict=True), color=colour, marker="o", markersize=3.5, lw=1.8)
        ends.append((name, *points[-1]))
    plot.set_xscale("log", base=2)
    plot.set_yscale("log")
    lengths = sorted({int(n) for rows in mixers.values() for n in rows})
    plot.set_xticks(lengths, [word(n) for n in lengths])
    plot.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if _decades(plot) < 2 else (1,)))
    plot.yaxis.set_major_formatter("{x:g}")
    plot.minorticks_off()
    _name_ends(plot, ends)


def _name_ends(plot: Axes, ends: Sequence[tuple[str, float, float]]) -> None:
    """Writes the lines' names right of their ends, pushed apart where they would collide."""
    low, high = plot.get_ylim()
    apart = (high / low) ** 0.062
    heights: list[float] = []
    for name, x, y in sorted(ends, key=lambda end: end[2]):
        heights.append(max(y, heights[-1] * apart) if heights else y)
        plot.annotate(
            _label(name), (x, heights[-1]), xytext=(7, 0), textcoords="offset points",
            va="center", size=8.5, color=_COLOURS.get(name, "#4a5259"), weight="bold",
            annotation_clip=False,
        )  # fmt: skip


def _decades(plot: Axes) -> float:
    low, high = plot.get_ylim()
    return math.log10(high / low)


def _label(name: str) -> str:
    return _LABELS.get(name, name.replace("_", " "))


def _origin(document: Mapping[str, Any]) -> str:
    machine = document["machine"]
    where = machine.get("gpu") or f"{machine['processor']}, {document['threads']} threads"
    return (
        f"{where}; {document['settings']['dtype']}; torch {document['versions']['torch']}; "
        f"backend {document['backend']['name']}; {document['date'][:10]}"
    )
