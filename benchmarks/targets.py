"""The figures the suite has promised, beside what was measured.

They hold for 2 CPU cores, float32 and the shapes of record; another run reports them unmeasured.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from statistics import median
from typing import Any, Literal

from benchmarks.scan import SHAPES
from benchmarks.scan_peers import SCAN_PEERS
from benchmarks.settings import Settings
from benchmarks.timing import Row

# Forward with backward: times as fast as the best eager peer, by shape; then the stretch goal.
_BEST_EAGER = ((18, 25), (10, 14), (40, 60))


@dataclass(frozen=True)
class Target:
    """One promised figure.

    Args:
        figure: What is measured.
        sense: Which side of the limit is good.
        limit: The limit.
        measured: `None` if this run did not measure it.
        note: Which peer or shape decided, or why nothing was measured.
    """

    figure: str
    sense: Literal[">=", "<="]
    limit: float
    measured: float | None = None
    note: str = ""

    @property
    def holds(self) -> bool | None:
        """Whether the figure is reached; `None` if it was not measured."""
        if self.measured is None:
            return None
        return self.measured >= self.limit if self.sense == ">=" else self.measured <= self.limit

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self) | {"holds": self.holds}


def targets(subject: str, results: Mapping[str, Any], settings: Settings) -> list[Target]:
    """The promised figures of a subject.

    Args:
        subject: `scan`, `mixer`, `model` or `vision`; nothing is promised of the last two.
        results: What its measurement returned.
        settings: How it was run.
    """
    record = settings.device == "cpu" and settings.dtype == "float32" and not settings.quick
    makers: dict[str, Callable[[Mapping[str, Any], bool], list[Target]]] = {
        "scan": _scan, "mixer": _mixer, "loading": _loading,
        "retrieval": _retrieval, "pose": _pose, "scannet": _scannet,
    }  # fmt: skip
    return makers[subject](results, record) if subject in makers else []


def _scan(results: Mapping[str, Any], record: bool) -> list[Target]:
    shapes = ["x".join(map(str, shape)) for shape in SHAPES]
    found, compiled, forward = [], [], []
    for key, (least, stretch) in zip(shapes, _BEST_EAGER, strict=True):
        shape = results["shapes"].get(key, {}) if record else {}
        rows = shape.get("forward_backward", {})
        measured, name = _best(rows, "eager")
        figure = f"scan {key}: speed, best eager peer = 1"
        found += [
            Target(figure, ">=", least, measured, name),
            Target(f"{figure} (stretch)", ">=", stretch, measured, name),
        ]
        ratio, _ = _best(rows, "compiled")
        compiled += [(ratio, key)] if ratio is not None else []
        over = shape.get("forward_over_exp_roofline")
        forward += [(over, key)] if over is not None else []
    slowest = min(compiled, default=(None, "not measured"))
    farthest = max(forward, default=(None, "not measured"))
    return [
        *found,
        Target("scan: speed, best compiled peer = 1, at its worst shape", ">=", 5, *slowest),
        Target("scan forward: time / exp roofline, at its worst shape", "<=", 2.5, *farthest),
        *_first_call("scan", results, record),
    ]


def _mixer(results: Mapping[str, Any], record: bool) -> list[Target]:
    table = results["table"] if record else {}
    rows, memory = table.get("forward_backward", {}), table.get("memory", {})
    frozen = rows.get("frozen_mixer", {}).get("ratio")
    ours, two_call = (memory.get(name, {}).get("peak_bytes") for name in ("bimamba", "two_call"))
    sweep = results["sweep"]["mixers"].get("bimamba", {}) if record else {}
    short, long = (sweep.get(key, {}).get("ratios") for key in ("1024", "16384"))
    return [
        _measured("mixer: time / frozen mixer without a scan", "<=", 1.4, frozen and 1 / frozen),
        _measured("mixer: speed, mambapy = 1", ">=", 60, rows.get("mambapy", {}).get("ratio")),
        _measured("mixer: peak memory / two-call form", "<=", 0.6, ours and two_call
                  and ours / two_call),
        _measured("mixer: time per token at 16,384 / at 1,024", "<=", 1.3, short and long
                  and median(b / a for a, b in zip(short, long, strict=False)) / 16),
        *_first_call("mixer", results, record),
    ]  # fmt: skip


def _loading(results: Mapping[str, Any], record: bool) -> list[Target]:
    return [
        _measured(f"loading, {mode}: speed, timm = 1", ">=", 0.95,
                  results[mode].get("timm", {}).get("ratio") if record else None)
        for mode in ("training", "evaluation")
    ]  # fmt: skip


def _retrieval(results: Mapping[str, Any], record: bool) -> list[Target]:
    row = results["protocols"]["cmc_camera"].get("200000", {}) if record else {}
    seconds, peak = row.get("seconds"), row.get("peak_bytes")
    figure = "20,000 queries x 200,000 images"
    return [
        _measured(f"{figure}: minutes", "<=", 5, seconds and seconds / 60),
        _measured(f"{figure}: GB of memory", "<=", 4, peak and peak / 1e9),
    ]


def _pose(results: Mapping[str, Any], record: bool) -> list[Target]:
    stream, training = results["stream"], results["training"]["rows"]
    speed = stream["rows"].get("hybrid_causal_xs", {}).get("frames_per_second")
    ratio = training.get("plain_agformer_b", {}).get("ratio")
    memory, difference = stream["state_bytes"] / 2**20, stream["difference"]
    found = [
        _measured("stream of hybrid_causal_xs: frames a second", ">=", 60, speed),
        _measured("stream: MiB of memory", "<=", 2, memory),
        _measured("stream: difference to the whole clip", "<=", 1e-5, difference),
        _measured("a training step of MotionAGFormer-B, 81 frames: speed, plain transcription = 1",
                  ">=", 1, ratio),
    ]  # fmt: skip
    return found if record else [replace(t, measured=None, note="not measured") for t in found]


def _scannet(results: Mapping[str, Any], record: bool) -> list[Target]:
    row = results["backbones"]["forward_backward"].get("res16unet34c", {}) if record else {}
    judged = results["average_precision"] if record else {}
    seconds = judged.get("seconds")
    return [
        _measured("Res16UNet34C, 15,000 voxels, forward and backward: seconds", "<=", 1.2,
                  row.get("median_seconds")),
        _measured("average precision: speed, pair by pair = 1", ">=", 20, judged.get("ratio")),
        _measured("average precision, 2,780 frames x 100 masks: minutes", "<=", 3,
                  seconds and seconds / 60),
    ]  # fmt: skip


def _first_call(subject: str, results: Mapping[str, Any], record: bool) -> list[Target]:
    calls: Mapping[str, Row] = results["first_call"] if record else {}
    seconds = {name: calls.get(name, {}).get("first_seconds") for name in ("cold", "warm")}
    return [
        _measured(f"{subject}: first step, cold, seconds", "<=", 20, seconds["cold"]),
        _measured(f"{subject}: first step, warm, seconds", "<=", 1, seconds["warm"]),
    ]


def _best(rows: Mapping[str, Row], kind: str) -> tuple[float | None, str]:
    """Ratio and name of the fastest peer of a kind."""
    peers = [n for n, row in rows.items() if n in SCAN_PEERS and SCAN_PEERS[n].kind == kind]
    timed = [(rows[name]["ratio"], name) for name in peers if "ratio" in rows[name]]
    return min(timed, default=(None, "not measured"))


def _measured(figure: str, sense: Literal[">=", "<="], limit: float, value: float | None) -> Target:
    return Target(figure, sense, limit, value, "" if value is not None else "not measured")
