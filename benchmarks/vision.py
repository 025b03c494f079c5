"""Inference of Vim beside transformers and VMamba over image sizes: time, memory, and their growth.

The claim "2.8 times as fast as DeiT with 86.8 % less memory at 1248 pixels" (arXiv 2401.09417,
figure 1) is about Vim-Tiny beside DeiT-Tiny with attention written out. Fused attention keeps no
matrix of tokens times tokens, so it stands here as a row of its own. Position tables are resized to
each image size; weights are random, which neither time nor memory notices.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks.memory import peak_bytes
from benchmarks.model import deit_tiny, inference, network
from benchmarks.settings import Settings, Tell, chosen
from benchmarks.timing import Row, compare, interleave, reason

VISION_PEERS = ("deit_tiny_naive", "deit_tiny_fused", "vmamba_tiny")
OURS = "vim_tiny"
PATCH = 16
_SIZES = {"cpu": (224, 384, 512, 768), "cuda": (224, 512, 640, 738, 1024, 1248)}
_BATCHES = {"cpu": (1, 2), "cuda": (64, 8, 1)}
_QUICK_SIZES, _QUICK_BATCHES = (32, 48), (1, 2)


def measure_vision(settings: Settings, tell: Tell) -> dict[str, Any]:
    """Measures forward passes without gradients.

    Args:
        settings: How.
        tell: Hears what is being done.

    Returns:
        `sizes` in pixels; `parameters` of each network; `rows` by batch, network and size, each
        with `tokens`, seconds and memory or the reason why it was `skipped`; `fits` of memory per
        token by batch and network; `claims` by batch: ours beside each peer at the largest size
        that both did.
    """
    kind = torch.device(settings.device).type
    sizes = _QUICK_SIZES if settings.quick else _SIZES[kind]
    batches = _QUICK_BATCHES if settings.quick else _BATCHES[kind]
    networks, missing = _networks(settings)
    rows: dict[str, dict[str, dict[str, Row]]] = {}
    for batch in batches:
        found: dict[str, dict[str, Row]] = {name: {} for name in networks}
        for size in sizes:
            tell(f"{', '.join(networks)}: batch {batch}, {size} pixels")
            for name, row in _measure(networks, batch, size, settings).items():
                found[name][str(size)] = row
        rows[str(batch)] = found
    return {
        "sizes": list(sizes),
        "parameters": {n: sum(p.numel() for p in net.parameters()) for n, net in networks.items()},
        "missing": missing,
        "rows": rows,
        "fits": {batch: _each(found, memory_fit) for batch, found in rows.items()},
        "claims": {batch: claims(found) for batch, found in rows.items()},
    }


def memory_fit(rows: Mapping[str, Row]) -> dict[str, float] | None:
    """Straight line through peak memory against tokens, both of one image.

    Args:
        rows: One network's, by size.

    Returns:
        `bytes_per_token`, `bytes_at_zero`, and `worst_residual`, the largest distance from the line
        as a share of the value: small only where memory is linear in tokens. `None` below two
        points.
    """
    points = [(row["tokens"], row["peak_bytes_per_image"]) for row in rows.values() if _is(row)]
    if len(points) < 2:
        return None
    tokens, peaks = np.array(points, dtype=float).T
    slope, start = np.polyfit(tokens, peaks, 1)
    residual = np.abs(slope * tokens + start - peaks) / peaks
    return {
        "bytes_per_token": float(slope),
        "bytes_at_zero": float(start),
        "worst_residual": float(residual.max()),
    }


def claims(found: Mapping[str, Mapping[str, Row]]) -> dict[str, dict[str, float]]:
    """Ours beside each peer at the largest size that both did.

    Args:
        found: Rows by network and size.

    Returns:
        By peer: `pixels`, `speed` (times as fast as the peer) and `memory` (share of the peer's).
    """
    ours = {size: row for size, row in found[OURS].items() if _is(row) and "ratio" in row}
    table: dict[str, dict[str, float]] = {}
    for name, rows in found.items():
        both = [int(size) for size in ours if _is(rows[size]) and "ratio" in rows[size]]
        if name != OURS and both:
            size = str(max(both))
            memory = ours[size]["peak_bytes"] / rows[size]["peak_bytes"]
            table[name] = {
                "pixels": max(both), "speed": rows[size]["ratio"], "memory": memory
            }  # fmt: skip
    return table


def _networks(settings: Settings) -> tuple[dict[str, nn.Module], dict[str, Row]]:
    names = chosen(settings, VISION_PEERS)
    torch.manual_seed(0)
    small = {"depth": 2} if settings.quick else {}
    makers: dict[str, Callable[[], nn.Module]] = {
        "deit_tiny_naive": lambda: deit_tiny(fused=False, **small),
        "deit_tiny_fused": lambda: deit_tiny(fused=True, **small),
        "vmamba_tiny": lambda: _vmamba(settings.quick),
    }
    networks: dict[str, nn.Module] = {OURS: network("vision/vim_tiny.yaml", **small)}
    missing: dict[str, Row] = {}
    for name in names:
        try:
            networks[name] = makers[name]()
        except Exception as error:  # Another timm may have other names.
            missing[name] = {"skipped": reason(error)}
    return networks, missing


def _vmamba(quick: bool) -> nn.Module:
    import timm

    from lightning_modules.vision.networks import timm_vmamba  # noqa: F401 registers it

    small = {"depths": (1, 1, 1, 1), "dim": 16} if quick else {}
    model: nn.Module = timm.create_model("vmamba_tiny_s1l8", **small)
    return model


def _measure(
    networks: Mapping[str, nn.Module], batch: int, size: int, settings: Settings
) -> dict[str, Row]:
    """Memory first, one network at a time; who fits is timed, in turns."""
    images = torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(0))
    images = images.to(settings.device)
    rows: dict[str, Row] = {}
    steps: dict[str, Callable[[], object]] = {}
    for name, model in networks.items():
        if callable(resize := getattr(model, "set_input_size", None)):
            resize((size, size))
        try:
            step = inference(model.to(settings.device), images, settings)
            step()
            rows[name] = _memory(step, batch, settings.device)
            steps[name] = step
        except (RuntimeError, MemoryError) as error:  # CUDA's OutOfMemoryError is one.
            rows[name] = {"skipped": _why(error)}
        model.to("cpu")
        if settings.device != "cpu":
            torch.cuda.empty_cache()
    for name in steps:
        networks[name].to(settings.device)
    timed = compare(interleave(steps, settings), OURS) if OURS in steps else {}
    tokens = (size // PATCH) ** 2
    for name, row in rows.items():
        row["tokens"] = tokens
        row |= timed.get(name, {})
        if "median_seconds" in row:
            row["seconds_per_image"] = row["median_seconds"] / batch
            row["seconds_per_pixel"] = row["seconds_per_image"] / size**2
    for name in steps:
        networks[name].to("cpu")
    return rows


def _memory(step: Callable[[], object], batch: int, device: str) -> Row:
    peak = peak_bytes(step, device)
    row: Row = {"peak_bytes": peak, "peak_bytes_per_image": peak / batch}
    if torch.device(device).type == "cuda":
        # With the weights, the images and what the allocator keeps: what a monitor shows.
        row["allocated_bytes"] = torch.cuda.max_memory_allocated(device)
        row["reserved_bytes"] = torch.cuda.max_memory_reserved(device)
    return row


def _why(error: BaseException) -> str:
    text = str(error).lower()
    full = isinstance(error, torch.OutOfMemoryError | MemoryError) or "alloc" in text
    return "out of memory" if full else reason(error)


def _is(row: Row) -> bool:
    return "peak_bytes" in row


def _each(
    found: Mapping[str, Mapping[str, Row]], fit: Callable[[Mapping[str, Row]], Any]
) -> dict[str, Any]:
    return {name: fit(rows) for name, rows in found.items()}
