"""One evaluation under way: which captions get motion, how often, and from which noise.

Noise belongs to a sample, a replication and a copy, so that neither batches nor processes matter.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from blocks.errors import SuiteError
from lightning_modules.motion.generation_metrics import (
    Embedded,
    GenerationScores,
    generation_scores,
)
from lightning_modules.motion.motion_judge import MotionJudge

# Motions of one caption that are told apart by their noise, at most.
_COPIES = 2**20


@dataclass(frozen=True)
class GenerationProtocol:
    """How much is generated for an evaluation.

    Args:
        samples: Captions, spread over the split, that motion is generated for; null takes all.
        replications: How often, with other noise and another order of the batches of 32.
        captions: Of these, how many get several motions, for MultiModality; 0 leaves it out.
        motions: Motions of each of them.
        several_replications: Replications in which that is done.
    """

    samples: int | None = None
    replications: int = 20
    captions: int = 100
    motions: int = 30
    several_replications: int = 5

    def __post_init__(self) -> None:
        if min(self.replications, self.motions, self.samples or 1) < 1 or self.captions < 0:
            raise SuiteError(
                expected="at least one sample, replication and motion",
                found=str(self),
                where="GenerationEvaluation",
                cure="correct it; captions: 0 leaves MultiModality out",
            )


WHILE_TRAINING = GenerationProtocol(500, 1, 10, 10, 1)
PUBLISHED = GenerationProtocol()


class GenerationRound:
    """One evaluation under way.

    Args:
        judge: The evaluator.
        protocol: How much is generated.
        size: Samples that will be seen.
        seed: Of the noise.
    """

    def __init__(
        self, judge: MotionJudge, protocol: GenerationProtocol, size: int, seed: int
    ) -> None:
        self.judge, self.protocol, self.seed = judge, protocol, seed
        order = np.random.RandomState(seed).permutation(size)
        count = size if protocol.samples is None else min(protocol.samples, size)
        self.chosen = {int(index) for index in order[:count]}
        self.repeated = {int(index) for index in order[: min(protocol.captions, count)]}
        repeats = min(protocol.several_replications, protocol.replications)
        self.real = self._collector()
        self.generated = [self._collector() for _ in range(protocol.replications)]
        self.several = [self._collector() for _ in range(repeats if self.repeated else 0)]
        self.counts, self.several_counts = (0, 0), (0, 0)

    def take(self, module: Any, batch: Mapping[str, Any]) -> None:
        """Embeds a batch and what is generated for it."""
        text = self.judge.embed_text(batch)
        motion = self.judge.embed_motion(batch["motion"], batch["length"])
        self.real.update(text, motion, batch["caption"], batch["index"])
        indices = batch["index"].tolist()
        rows = [row for row, index in enumerate(indices) if index in self.chosen]
        for replication, collector in enumerate(self.generated):
            self._generate(module, batch, text, rows, 1, replication, collector)
        rows = [row for row, index in enumerate(indices) if index in self.repeated]
        for replication, collector in enumerate(self.several):
            for row in rows:
                count = self.protocol.motions
                self._generate(module, batch, text, [row] * count, count, replication, collector)

    def scores(self) -> tuple[list[dict[str, float]], list[dict[str, float]]]:
        """Figures of ground truth for the same captions, and of what was generated."""
        real: Embedded = self.real.compute()
        chosen = torch.tensor([int(i) in self.chosen for i in real.index.tolist()])
        truth, generated = [], []
        for replication, collector in enumerate(self.generated):
            found: Embedded = collector.compute()
            several = (
                self.several[replication].compute() if replication < len(self.several) else None
            )
            truth.append(generation_scores(real[chosen], real, replication))
            generated.append(generation_scores(found, real, replication, several))
            self.counts = len(real), len(found)
            if several is not None:
                captions = len(set(several.index.tolist()))
                self.several_counts = captions, len(several) // max(captions, 1)
        return truth, generated

    def _collector(self) -> GenerationScores:
        return GenerationScores(self.judge.dim).to(next(self.judge.network.parameters()).device)

    def _generate(
        self,
        module: Any,
        batch: Mapping[str, Any],
        text: Tensor,
        rows: list[int],
        copies: int,
        replication: int,
        collector: GenerationScores,
    ) -> None:
        """Generates for some rows of a batch and embeds the result."""
        if not rows:
            return
        part = rows_of(batch, rows)
        copy = torch.arange(len(rows), device=text.device) % copies
        keys = (part["index"] * _COPIES + copy).tolist()
        motion = generate_for(module, part, keys, self.seed + replication)
        found = self.judge.embed_motion(motion, part["length"])
        collector.update(text[rows], found, part["caption"], part["index"], copy)


def rows_of(batch: Mapping[str, Any], rows: list[int]) -> dict[str, Any]:
    """A batch of the given rows, which may repeat."""
    return {
        name: values[rows] if isinstance(values, Tensor) else [values[row] for row in rows]
        for name, values in batch.items()
    }


def generate_for(module: Any, batch: Mapping[str, Any], keys: list[int], seed: int) -> Tensor:
    """Motion for the captions and lengths of a batch, from noise that belongs to its keys.

    Args:
        module: A `TextToMotion`.
        batch: Captions, lengths and, where the network sees them, scenes.
        keys: A number for each sample.
        seed: Of all of them.

    Returns:
        (B, L, D), normalised with the data's statistics.
    """
    scene = {name: batch[name] for name in ("points", "contact") if name in batch}
    lengths, captions = batch["length"], batch["caption"]
    found: Tensor = module.generate(captions, lengths, keys=keys, seed=seed, **scene)
    return found
