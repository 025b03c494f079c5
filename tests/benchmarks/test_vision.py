"""The arithmetic of the vision benchmark, and what it does when memory runs out."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from benchmarks import vision
from benchmarks.memory import peak_bytes
from benchmarks.settings import Settings
from benchmarks.tables import tables
from benchmarks.vision import claims, measure_vision, memory_fit


def rows(curve: Callable[[int], float]) -> dict[str, dict[str, float]]:
    found = {size: (size // 16) ** 2 for size in (224, 512, 1024)}
    return {str(s): {"tokens": n, "peak_bytes": 1, "peak_bytes_per_image": curve(n)}
            for s, n in found.items()}  # fmt: skip


def test_a_line_is_found_and_a_parabola_is_told_from_it() -> None:
    line = memory_fit(rows(lambda n: 3.0 * n + 50))
    assert line is not None
    assert line["bytes_per_token"] == pytest.approx(3)
    assert line["bytes_at_zero"] == pytest.approx(50)
    assert line["worst_residual"] < 1e-9
    parabola = memory_fit(rows(lambda n: float(n * n)))
    assert parabola is not None and parabola["worst_residual"] > 0.1
    assert memory_fit({"224": {"skipped": "out of memory"}}) is None


def test_claims_are_made_at_the_largest_size_that_both_did() -> None:
    def row(ratio: float, peak: float) -> dict[str, Any]:
        return {"ratio": ratio, "peak_bytes": peak}

    found = {
        "vim_tiny": {"224": row(1, 10), "512": row(1, 20), "1024": row(1, 40)},
        "deit_tiny_naive": {"224": row(0.5, 5), "512": row(2, 80), "1024": {"skipped": "full"}},
        "deit_tiny_fused": dict.fromkeys(("224", "512", "1024"), {"skipped": "gone"}),
    }
    expected = {"deit_tiny_naive": {"pixels": 512, "speed": 2, "memory": 0.25}}
    assert claims(found) == expected


def test_a_network_that_does_not_fit_is_a_row_and_stops_nobody(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(step: Callable[[], object], device: str) -> int:
        if full.calls == 1:  # type: ignore[attr-defined]
            full.calls += 1  # type: ignore[attr-defined]
            raise torch.OutOfMemoryError("tried to allocate 80 GiB")
        full.calls += 1  # type: ignore[attr-defined]
        return peak_bytes(step, device)

    full.calls = 0  # type: ignore[attr-defined]
    monkeypatch.setattr(vision, "peak_bytes", full)
    settings = Settings(quick=True, rounds=1, peers=("deit_tiny_fused",))
    results = measure_vision(settings, lambda text: None)
    first = results["rows"]["1"]
    assert first["deit_tiny_fused"]["32"]["skipped"] == "out of memory"
    assert "seconds_per_image" in first["deit_tiny_fused"]["48"]
    assert "ratio" in first["vim_tiny"]["32"]
    assert results["fits"]["1"]["deit_tiny_fused"] is None
    captions = [str(table.caption) for table in tables("vision", results)]
    assert any("deit_tiny_fused at 32 pixels: out of memory" in text for text in captions)


def test_naive_attention_needs_memory_in_the_square_of_the_tokens() -> None:
    """Four times the tokens: near four times the memory where it is linear, more where not."""
    from benchmarks.model import deit_tiny, inference

    growth = {}
    for fused in (False, True):
        model = deit_tiny(fused=fused, depth=1)
        peaks = []
        for size in (256, 512):
            model.set_input_size((size, size))  # type: ignore[operator]
            step = inference(model, torch.randn(1, 3, size, size), Settings())
            step()
            peaks.append(peak_bytes(step))
        growth[fused] = peaks[1] / peaks[0]
    assert growth[False] > 8 > growth[True]
