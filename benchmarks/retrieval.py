"""Evaluation of a large retrieval set: time and memory, to 20,000 queries x 200,000 images.

Random unit features of 512 numbers, 10,000 identities, 15 cameras: like MSMT17, but larger. Only
ranking is measured, under either protocol, in a process of its own, so that its memory is that of
the features, the distances of a block of queries and the ranks.
"""

import multiprocessing
import time
from typing import Any

import torch

from benchmarks.settings import Settings, Tell

# Queries, gallery; identities are half the queries, so each has some 20 right images.
SIZES = ((2_000, 20_000), (5_000, 50_000), (20_000, 200_000))
_QUICK = ((20, 200), (50, 500))
_WIDTH, _CAMERAS = 512, 15
_PROTOCOLS = ("cmc_camera", "trapezoid")


def measure_retrieval(settings: Settings, tell: Tell) -> dict[str, Any]:
    """Measures both protocols over sizes, once each: the largest takes minutes.

    Args:
        settings: How; evaluation runs on the CPU whatever the device, with its threads.
        tell: Hears what is being done.

    Returns:
        `width`, and `protocols`: by protocol and size of the gallery a row with `queries`,
        `seconds`, `queries_per_second`, `peak_bytes` of the process, `feature_bytes` among them,
        and the `score`.
    """
    sizes = _QUICK if settings.quick else SIZES
    rows: dict[str, dict[str, Any]] = {}
    for protocol in _PROTOCOLS:
        for queries, gallery in sizes:
            tell(f"{protocol}, {queries:,} queries, {gallery:,} gallery images")
            row = _in_a_process(protocol, queries, gallery)
            rows.setdefault(protocol, {})[str(gallery)] = row
    return {"width": _WIDTH, "protocols": rows}


def _in_a_process(protocol: str, queries: int, gallery: int) -> dict[str, float]:
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        given = (protocol, queries, gallery, torch.get_num_threads())
        found: dict[str, float] = pool.apply(_evaluate, given)
    return found


def _evaluate(protocol: Any, queries: int, gallery: int, threads: int) -> dict[str, float]:
    from lightning_modules.vision.retrieval.evaluation import Samples, evaluate

    torch.set_num_threads(threads)
    generator = torch.Generator().manual_seed(0)

    def samples(count: int) -> Samples:
        # A person's features lie about a common point: ranks are those of a trained network.
        identity = torch.randint(max(queries // 2, 1), (count,), generator=generator)
        noise = torch.randn(count, _WIDTH, generator=generator)
        camera = torch.randint(_CAMERAS, (count,), generator=generator)
        return Samples(noise.add_(0.3 * centres[identity]), identity, camera)

    centres = torch.randn(max(queries // 2, 1), _WIDTH, generator=generator)
    query, images = samples(queries), samples(gallery)
    start = time.perf_counter()
    values = evaluate(query, images, protocol).values
    seconds = time.perf_counter() - start
    return {
        "queries": queries,
        "seconds": seconds,
        "queries_per_second": queries / seconds,
        "peak_bytes": _peak_bytes(),
        "feature_bytes": 4 * _WIDTH * (queries + gallery),
        "score": values.get("mAP", values.get("AP", 0.0)),
    }


def _peak_bytes() -> int:
    """Largest resident size of this process, everything imported included; 0 where unknown."""
    try:
        import resource
    except ImportError:  # Windows has none.
        return 0
    import sys

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak * (1 if sys.platform == "darwin" else 1024))
