"""Scores of generated motion over a whole evaluation, the same on any number of processes.

Embeddings are gathered, put in the order of the data set, shuffled by the number of the replication
and cut into batches of 32, so that neither the processes nor their order matter. How many samples
there were is part of every figure: a record of the protocol goes with the scores.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from lightning_modules.motion.scores import (
    BATCH,
    DIVERSITY_PAIRS,
    MULTIMODALITY_PAIRS,
    TOP,
    diversity,
    draw_pairs,
    frechet_distance,
    multimodality,
    retrieval,
    with_interval,
)

_STATES = ("text", "motion", "caption", "index", "copy")


class Embedded:
    """Embeddings in the order of the data set.

    No dataclass, for torchmetrics would look into one and flatten a single sample.

    Args:
        text: (N, C).
        motion: (N, C).
        caption: Codes of the captions, (N,): equal where the captions are.
        index: Places in the split, ascending, (N,).
    """

    def __init__(self, text: Tensor, motion: Tensor, caption: Tensor, index: Tensor) -> None:
        self.text, self.motion, self.caption, self.index = text, motion, caption, index

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, rows: Tensor) -> "Embedded":
        """The chosen samples."""
        return Embedded(self.text[rows], self.motion[rows], self.caption[rows], self.index[rows])


class GenerationScores(Metric):
    """Collects embeddings of pairs of caption and motion.

    A sample that several processes saw counts once. Several motions of one caption, for
    MultiModality, are told apart by `copy`.

    Args:
        dim: Width C of the embeddings.
    """

    full_state_update = False

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim
        for name in _STATES:
            self.add_state(name, [], dist_reduce_fx="cat")
        self.reset()

    def reset(self) -> None:
        """Forgets everything but an empty row, without which an idle process could not gather."""
        super().reset()
        nothing = torch.zeros(0, dtype=torch.int64, device=self.device)
        embedding = torch.zeros(0, self.dim, device=self.device)
        for name in _STATES:
            empty = embedding if name in ("text", "motion") else nothing
            setattr(self, name, [empty])

    def update(
        self,
        text: Tensor,
        motion: Tensor,
        captions: Sequence[str],
        index: Tensor,
        copy: Tensor | None = None,
    ) -> None:
        """Adds samples.

        Args:
            text: (B, C).
            motion: (B, C).
            captions: B texts.
            index: Places in the split, (B,).
            copy: Which motion of its caption each is, (B,); the first by default.
        """
        codes = torch.tensor([caption_code(caption) for caption in captions], dtype=torch.int64)
        copy = torch.zeros_like(index) if copy is None else copy
        given = (text.float(), motion.float(), codes, index, copy)
        for name, values in zip(_STATES, given, strict=True):
            getattr(self, name).append(values.detach().to(self.device))

    def compute(self) -> Embedded:
        """All samples, by place and copy."""
        text, motion, caption, index, copy = (
            dim_zero_cat(getattr(self, name)).cpu() for name in _STATES
        )
        keys = torch.stack((index, copy)).numpy()
        _, first = np.unique(keys, axis=1, return_index=True)
        return Embedded(text, motion, caption, index)[torch.from_numpy(first)]


def caption_code(caption: str) -> int:
    """A number of 63 bits for a caption, so that it can travel between processes."""
    digest = hashlib.sha256(caption.encode("utf-8", "surrogateescape")).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def matching_scores(found: Embedded, replication: int = 0) -> dict[str, float]:
    """R-precision, plain and aware of equal captions, and MM-Dist.

    Args:
        found: Pairs; at least 32, else the figures are NaN.
        replication: Decides the order, and with it which 32 compete.
    """
    names = [f"r_precision_{k}" for k in range(1, TOP + 1)]
    aware = [f"{name}_captions" for name in names]
    if len(found) < BATCH:
        return dict.fromkeys((*names, *aware, "mm_dist"), float("nan"))
    order = torch.from_numpy(np.random.RandomState(replication).permutation(len(found)))
    mixed = found[order]
    shares, distance = retrieval(mixed.text, mixed.motion)
    codes = [str(code) for code in mixed.caption.tolist()]
    shares_aware, _ = retrieval(mixed.text, mixed.motion, codes)
    return {
        **dict(zip(names, shares.tolist(), strict=True)),
        **dict(zip(aware, shares_aware.tolist(), strict=True)),
        "mm_dist": distance,
    }


def generation_scores(
    found: Embedded, real: Embedded, replication: int = 0, several: Embedded | None = None
) -> dict[str, float]:
    """All figures of a set of motions.

    Args:
        found: What is judged, one motion a caption.
        real: Ground truth of the whole evaluation, for FID.
        replication: Decides order and pairs.
        several: Many motions of few captions, for MultiModality.
    """
    rng = np.random.RandomState(replication)
    enough = len(found) > 1 and len(real) > 1
    scores = {
        "fid": frechet_distance(real.motion, found.motion) if enough else float("nan"),
        **matching_scores(found, replication),
        "diversity": float("nan"),
    }
    if pairs := diversity_pairs(len(found)):
        scores["diversity"] = diversity(found.motion, *draw_pairs(len(found), pairs, rng))
    if several is not None and len(several):
        scores["multimodality"] = _multimodality(several, rng)
    return scores


def diversity_pairs(samples: int) -> int:
    """How many pairs Diversity draws: 300, of small sets half their size."""
    return min(DIVERSITY_PAIRS, samples // 2)


def replicated(scores: Sequence[dict[str, float]]) -> dict[str, tuple[float, float]]:
    """Mean and half width of the 95 % interval over replications, by name.

    A figure that some replications lack, as MultiModality after the fifth, has those that do.
    """
    names = list(dict.fromkeys(name for one in scores for name in one))
    return {name: with_interval([one[name] for one in scores if name in one]) for name in names}


@dataclass(frozen=True)
class ProtocolRecord:
    """What a figure was measured with; figures of unlike records do not compare.

    Args:
        n_real: Clips of ground truth behind FID.
        n_generated: Generated clips.
        replications: How often all was repeated.
        evaluator: Hash of the evaluator.
        statistics: Hash of the statistics it normalises with.
        several: Captions and motions of each, for MultiModality; 0 and 0 without.
    """

    n_real: int
    n_generated: int
    replications: int
    evaluator: str
    statistics: str
    several: tuple[int, int] = (0, 0)

    def __str__(self) -> str:
        captions, motions = self.several
        parts = [
            f"{self.n_generated} generated against {self.n_real} real clips",
            f"replications {self.replications}",
            f"batches of {BATCH}",
            f"diversity over {diversity_pairs(self.n_generated)} pairs",
            *([f"multimodality {captions}x{motions}"] if captions else []),
            f"evaluator {self.evaluator}",
            f"statistics {self.statistics}",
        ]
        return ", ".join(parts)


def _multimodality(several: Embedded, rng: np.random.RandomState) -> float:
    """Over captions with equally many motions each."""
    _, counts = torch.unique(several.index, return_counts=True)
    motions = int(counts[0])
    grouped = several.motion.view(len(counts), motions, -1)
    pairs = min(MULTIMODALITY_PAIRS, motions)
    return multimodality(grouped, *draw_pairs(motions, pairs, rng))
