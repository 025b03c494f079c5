"""The figures as tables for a terminal."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from benchmarks.targets import Target
from benchmarks.timing import Row

_MODES = {"forward": "forward", "forward_backward": "and back"}


def tables(subject: str, results: Mapping[str, Any]) -> list[Table]:
    """Every table of a benchmark.

    Args:
        subject: `scan`, `mixer`, `model` or `vision`.
        results: What its measurement returned.
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
    return makers[subject](results)


def targets_table(found: Sequence[Target]) -> Table:
    """Promised figures beside measured ones."""
    table = Table(title="targets", title_justify="left")
    table.add_column("figure")
    for column in ("measured", "promised", "holds"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("")
    for target in found:
        holds = {True: "yes", False: "no", None: "-"}[target.holds]
        measured = "-" if target.measured is None else number(target.measured)
        promised = f"{target.sense} {target.limit:g}"
        table.add_row(target.figure, measured, promised, holds, target.note)
    return table


def number(value: float) -> str:
    """Three digits, or all of a larger whole part."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _scan(results: Mapping[str, Any]) -> list[Table]:
    found = []
    for name, shape in results["shapes"].items():
        table = _table(f"scan, B x D x L x N = {name}", "", *_heads())
        _fill(table, [shape[mode] for mode in _MODES])
        over, least = shape["forward_over_exp_roofline"], shape["least_seconds"]
        line = (
            f"our forward is {over:.2f} x the exp roofline of {least['exp'] * 1e3:.3g} ms; "
            f"the streams alone need {least['streams'] * 1e3:.3g} ms"
        )
        _explain(table, [line])
        found.append(table)
    roofline = results["roofline"]
    rates = _table("this machine", "", "per second")
    rates.add_row("exponentials, float32", f"{roofline['exps_per_second']:.3g}")
    rates.add_row("bytes copied or added", f"{roofline['bytes_per_second']:.3g}")
    return [rates, *found, _first_call(results["first_call"])]


def _mixer(results: Mapping[str, Any]) -> list[Table]:
    part = results["table"]
    batch, length, dim = part["shape"]
    table = _table(f"mixer, batch {batch}, {length} tokens of {dim}", "", *_heads())
    table.add_column("saved\nMiB", justify="right")
    table.add_column("peak\nMiB", justify="right")
    memory = {
        name: [_mib(row.get("saved_bytes")), _mib(row.get("peak_bytes"))]
        for name, row in part["memory"].items()
    }
    _fill(table, [part[mode] for mode in _MODES], memory)
    return [table, *_sweep(results["sweep"]), _first_call(results["first_call"])]


def _sweep(sweep: Mapping[str, Any]) -> list[Table]:
    lengths = [str(length) for length in sweep["lengths"]]
    units = {"seconds_per_token": ("µs per token", 1e6), "peak_bytes": ("peak MiB", 2**-20)}
    found = []
    for key, (title, factor) in units.items():
        table = _table(f"{title} of a training step, by tokens in one sequence", "", *lengths)
        for name, rows in sweep["mixers"].items():
            cells = (number(rows[n][key] * factor) if key in rows[n] else "-" for n in lengths)
            table.add_row(name, *cells)
        found.append(table)
    reasons = {
        f"{name} at {n} tokens: {row['skipped']}"
        for name, rows in sweep["mixers"].items()
        for n, row in rows.items()
        if "skipped" in row
    }
    _explain(found[-1], sorted(reasons))
    return found


def _model(results: Mapping[str, Any]) -> list[Table]:
    found = []
    for name, part in results.items():
        title = f"{name}, batch {part['batch']}, {part['pixels']} pixels"
        units = ("img/s", "steps/s", "ours=1")
        heads = [f"{mode}\n{unit}" for mode in ("train", "infer") for unit in units]
        table = _table(title, "", *heads)
        for network in part["training"]:
            cells = []
            for mode in ("training", "inference"):
                row = part[mode][network]
                if "skipped" in row:
                    cells += [row["skipped"], "", ""]
                    continue
                numbers = (row["images_per_second"], row["steps_per_second"], row["ratio"])
                cells += [number(value) for value in numbers]
            table.add_row(network, *cells)
        for network, row in part.get("missing", {}).items():
            table.add_row(network, row["skipped"])
        found.append(table)
    return found


def _vision(results: Mapping[str, Any]) -> list[Table]:
    sizes = [str(size) for size in results["sizes"]]
    units = {
        "seconds_per_image": ("ms per image", 1e3),
        "seconds_per_pixel": ("ns per pixel", 1e9),
        "peak_bytes": ("peak MiB", 2**-20),
    }
    found = []
    for batch, networks in results["rows"].items():
        for key, (title, factor) in units.items():
            table = _table(f"inference, batch {batch}: {title}, by size in pixels", "", *sizes)
            for name, rows in networks.items():
                cells = (number(rows[n][key] * factor) if key in rows[n] else "-" for n in sizes)
                table.add_row(name, *cells)
            found.append(table)
        reasons = {
            f"{name} at {n} pixels: {row['skipped']}"
            for name, rows in networks.items()
            for n, row in rows.items()
            if "skipped" in row
        }
        _explain(found[-1], sorted(reasons))
        found.append(_growth(f"batch {batch}", results["fits"][batch], results["claims"][batch]))
    missing = [f"{name}: {row['skipped']}" for name, row in results["missing"].items()]
    _explain(found[-1], missing)
    return found


def _loading(results: Mapping[str, Any]) -> list[Table]:
    title = f"one worker, {results['images']} photos of {results['bytes'] / 1e3:.0f} kB"
    modes = ("training", "evaluation")
    heads = [f"{mode}\n{unit}" for mode in modes for unit in ("img/s", "ours=1")]
    table = _table(f"{title}, {results['pixels']} pixels", "", *heads)
    for name in results["training"]:
        cells: list[str] = []
        for mode in modes:
            row = results[mode][name]
            if "skipped" in row:
                cells += [row["skipped"], ""]
            else:
                cells += [number(row["images_per_second"]), number(row["ratio"])]
        table.add_row(name, *cells)
    return [table]


def _growth(
    batch: str, fits: Mapping[str, Mapping[str, float] | None], claims: Mapping[str, Any]
) -> Table:
    """A line through memory against tokens; and ours beside each at the largest common size."""
    heads = ("KiB\nper token", "MiB\nat none", "off\nby", "at\npixels", "our\nspeed", "our\nmemory")
    table = _table(f"{batch}: peak memory of an image as a line, and ours beside", "", *heads)
    _explain(table, ["speed and memory of Vim-Tiny, the row's network = 1"])
    for name, fit in fits.items():
        cells = ["-"] * 3
        if fit is not None:
            line = (fit["bytes_per_token"] / 2**10, fit["bytes_at_zero"] / 2**20)
            cells = [*(number(value) for value in line), f"{fit['worst_residual']:.1%}"]
        if (claim := claims.get(name)) is not None:
            cells += [str(claim["pixels"]), number(claim["speed"]), number(claim["memory"])]
        table.add_row(name, *cells)
    return table


def _retrieval(results: Mapping[str, Any]) -> list[Table]:
    found = []
    for protocol, rows in results["protocols"].items():
        heads = (
            "queries",
            "seconds",
            "queries\nper second",
            "peak\nMiB",
            "features\nMiB",
            "score\n%",
        )
        table = _table(f"ranking by {protocol}, {results['width']} numbers", "gallery", *heads)
        for gallery, row in rows.items():
            cells = [f"{row['queries']:,}"]
            cells += [number(row[key]) for key in ("seconds", "queries_per_second")]
            cells += [_mib(row["peak_bytes"]), _mib(row["feature_bytes"]), number(row["score"])]
            table.add_row(f"{int(gallery):,}", *cells)
        found.append(table)
    return found


def _pose(results: Mapping[str, Any]) -> list[Table]:
    stream, training = results["stream"], results["training"]
    live = _table("a stream, a call per frame", "", "frames/s", "ms", "ours\n= 1")
    for name, row in stream["rows"].items():
        cells = (row.get("frames_per_second"), row.get("median_seconds"), row.get("ratio"))
        scaled = (
            None if x is None else x * unit for x, unit in zip(cells, (1, 1e3, 1), strict=True)
        )
        live.add_row(name, *("-" if x is None else number(x) for x in scaled))
    memory, difference = stream["state_bytes"] / 2**20, stream["difference"]
    _explain(live, [f"memory {memory:.2f} MiB; {difference:.1e} from the whole clip at most"])
    title = f"a training step, {training['clips']} clip of {training['frames']} frames"
    steps = _table(title, "", "ms", "ours\n= 1")
    _fill(steps, [training["rows"]])
    _explain(steps, [f"poses differ by {training['difference']:.1e} at most"])
    return [live, steps]


def _motion(results: Mapping[str, Any]) -> list[Table]:
    found = []
    heads = ("M\nparams", "training step\nms", "ours\n= 1", "a clip\ns", "ours\n= 1")
    for frames, modes in results["lengths"].items():
        table = _table(f"a clip of {int(frames):,} frames", "", *heads)
        for name, count in results["parameters"].items():
            cells = [number(count / 1e6)]
            for mode, unit in (("training", 1e3), ("sampling", 1)):
                row = modes[mode][name]
                shown = "median_seconds" in row and "ratio" in row
                cells += [number(row["median_seconds"] * unit)] if shown else ["-"]
                cells += [number(row["ratio"])] if shown else ["-"]
            table.add_row(name, *cells)
        reasons = {n: r["skipped"] for m in modes.values() for n, r in m.items() if "skipped" in r}
        _explain(table, [f"{name}: {why}" for name, why in reasons.items()])
        found.append(table)
    return found


def _scannet(results: Mapping[str, Any]) -> list[Table]:
    frame, backbones = results["frame"], results["backbones"]
    title = f"backbones, a frame of {frame['voxels']:,} voxels of {frame['size'] * 100:g} cm"
    table = _table(title, "", *_heads(), "M\nparams", "G\nMACs")
    sizes = {
        name: [number(size["parameters"] / 1e6), number(size["macs"] / 1e9)]
        for name, size in backbones["sizes"].items()
    }
    _fill(table, [backbones[mode] for mode in _MODES], sizes)
    heads = ("voxels", "ours\nms", "spconv\nms", "ours\n= 1")
    layers = _table("a layer of 3 x 3 x 3, forward and back", "", *heads)
    for name, rows in results["layers"].items():
        channels, stride = name.split("x")
        ours, peer = rows["ours"], rows.get("spconv", {})
        cells = [number(row["median_seconds"] * 1e3) if "median_seconds" in row else "-"
                 for row in (ours, peer)]  # fmt: skip
        ratio = number(peer["ratio"]) if "ratio" in peer else "-"
        voxels = f"{frame['levels'][stride]:,}"
        layers.add_row(f"{channels} channels, stride {stride}", voxels, *cells, ratio)
    reasons = {rows.get("spconv", {}).get("skipped") for rows in results["layers"].values()}
    _explain(layers, sorted(f"spconv: {why}" for why in reasons if why))
    judged = results["average_precision"]
    precision = _table("average precision", "frames", "ours\ns", "pair by pair\ns", "ours\n= 1")
    precision.add_row(
        f"{judged['frames']:,}", number(judged["frame_seconds"] * judged["frames"]),
        number(judged["naive_seconds"]), number(judged["ratio"]),
    )  # fmt: skip
    precision.add_row(f"{judged['all_frames']:,}", number(judged["seconds"]), "-", "-")
    _explain(precision, [f"results differ by {judged['difference']:.1e} at most"])
    return [table, layers, precision]


def _first_call(calls: Mapping[str, Row]) -> Table:
    table = _table("a fresh process", "", "first step\ns", "second step\ns", "imports\ns")
    keys = ("first_seconds", "second_seconds", "import_seconds")
    for state, text in (("cold", "nothing compiled before"), ("warm", "compiled code on disk")):
        row = calls[state]
        table.add_row(text, *(number(row[key]) if key in row else "-" for key in keys))
    reasons = {row["skipped"] for row in calls.values() if "skipped" in row}
    _explain(table, sorted(reasons))
    return table


def _fill(
    table: Table,
    modes: Sequence[Mapping[str, Row]],
    more: Mapping[str, Sequence[str]] | None = None,
) -> None:
    """One row a contender: milliseconds and ratio in each mode; below the table, why not."""
    reasons: dict[str, str] = {}
    for name in modes[0]:
        cells: list[str] = []
        for rows in modes:
            row = rows[name]
            if "skipped" in row:
                cells += ["-", "-"]
                reasons[name] = row["skipped"]
            else:
                cells += [number(row["median_seconds"] * 1e3), number(row["ratio"])]
        table.add_row(name, *cells, *((more or {}).get(name, ())))
    _explain(table, [f"{name}: {why}" for name, why in reasons.items()])


def _explain(table: Table, lines: Sequence[str]) -> None:
    """Adds lines below a table."""
    table.caption = "\n".join(filter(None, [str(table.caption or ""), *lines])) or None


def _heads() -> list[str]:
    return [head for mode in _MODES.values() for head in (f"{mode}\nms", "ours\n= 1")]


def _table(title: str, first: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", caption_justify="left")
    table.add_column(first, no_wrap=True)
    for column in columns:
        table.add_column(column, justify="right")
    return table


def _mib(size: float | None) -> str:
    return "-" if size is None else f"{size / 2**20:.1f}"
