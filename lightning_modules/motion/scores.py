"""How well motion matches text and looks like real motion, in the evaluator's space.

Definitions of Guo et al. (2022), EricGuo5513/text-to-motion. All take embeddings (N, C) and count
in float64. The number of samples is part of each figure: FID of few samples is biased upwards, and
R-precision gets harder with larger batches.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from blocks.errors import SuiteError

BATCH, TOP = 32, 3
DIVERSITY_PAIRS, MULTIMODALITY_PAIRS = 300, 10


def retrieval(
    text: Tensor, motion: Tensor, captions: Sequence[str] | None = None
) -> tuple[Tensor, float]:
    """R-precision at 1, 2, 3 and the mean distance of pairs (MM-Dist).

    Args:
        text: (N, C).
        motion: Of the same samples, (N, C).
        captions: Where given, motion of another sample with the same caption counts as a match.

    Returns:
        (3,) shares in 0..1, over consecutive batches of 32, and the distance; the last incomplete
        batch is left out.

    Raises:
        SuiteError: There is no complete batch.
    """
    batches = len(text) // BATCH
    if batches == 0:
        raise SuiteError(
            expected=f"at least {BATCH} samples: R-precision is defined over batches of them",
            found=f"{len(text)}",
            where="retrieval",
            cure="generate more samples",
        )
    hits, distance = torch.zeros(TOP, dtype=torch.float64), 0.0
    for start in range(0, batches * BATCH, BATCH):
        rows = slice(start, start + BATCH)
        distances = torch.cdist(text[rows].double(), motion[rows].double())
        nearest = distances.argsort(dim=1, stable=True)[:, :TOP].cpu()
        own = torch.arange(BATCH)
        if captions is not None:
            _, codes = np.unique(captions[start : start + BATCH], return_inverse=True)
            own = torch.from_numpy(codes)
            nearest = own[nearest]
        hits += (nearest == own.unsqueeze(1)).cummax(1).values.double().sum(0)
        distance += float(distances.diagonal().sum())
    return hits / (batches * BATCH), distance / (batches * BATCH)


def frechet_distance(real: Tensor, generated: Tensor) -> float:
    """FID: squared distance of two normal distributions fitted to the sets.

        |m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^1/2)

    The trace of the root is the sum of the roots of the eigenvalues of S1 S2, which stays sound
    with fewer samples than dimensions.
    """
    mean_r, mean_g = real.double().mean(0), generated.double().mean(0)
    cov_r, cov_g = torch.cov(real.double().T), torch.cov(generated.double().T)
    values, vectors = torch.linalg.eigh(cov_r)
    root = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
    # Symmetric, with the eigenvalues of S1 S2.
    product = torch.linalg.eigvalsh(root @ cov_g @ root).clamp(min=0)
    difference = (mean_r - mean_g).square().sum()
    distance = difference + cov_r.trace() + cov_g.trace() - 2 * product.sqrt().sum()
    return max(float(distance), 0.0)  # Rounding may leave 1e-5 below, of few samples.


def diversity(motion: Tensor, first: Tensor, second: Tensor) -> float:
    """Mean distance of random pairs, given by their indices; see `draw_pairs`."""
    difference = motion[first].double() - motion[second].double()
    return float(torch.linalg.vector_norm(difference, dim=1).mean())


def multimodality(motion: Tensor, first: Tensor, second: Tensor) -> float:
    """Mean distance of generations of one caption.

    Args:
        motion: (captions, generations, C).
        first: Generations of the pairs, the same for all captions.
        second: Their partners.
    """
    difference = motion[:, first].double() - motion[:, second].double()
    return float(torch.linalg.vector_norm(difference, dim=2).mean())


def draw_pairs(count: int, pairs: int, rng: np.random.RandomState) -> tuple[Tensor, Tensor]:
    """Indices of random pairs: two independent draws, each without repetition.

    Args:
        count: What there is to draw from, more than `pairs`.
        pairs: How many.
        rng: Source.

    Raises:
        SuiteError: There is too little.
    """
    if count < pairs:
        raise SuiteError(
            expected=f"at least {pairs} samples to draw pairs from",
            found=f"{count}",
            where="diversity",
            cure=f"generate more samples, or set the pairs to at most {count}",
        )
    first, second = (rng.choice(count, pairs, replace=False) for _ in range(2))
    return torch.from_numpy(first), torch.from_numpy(second)


def with_interval(values: Sequence[float]) -> tuple[float, float]:
    """Mean over replications and the half width of its 95 % interval, as the literature has it.

    1.96 sigma / sqrt(n) with the population's sigma; a t interval would be wider.
    """
    found = np.asarray(values, dtype=np.float64)
    return float(found.mean()), float(1.96 * found.std() / np.sqrt(len(found)))
