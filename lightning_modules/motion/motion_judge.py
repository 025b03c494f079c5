"""An evaluator with the two normalisations between it and the data.

A data set normalises with its `Mean` and `Std`, an evaluator with statistics of its own: those of
the official one are smaller by 25 on the root and the contacts. Confusing them is the classic
mistake of this field; here motion always goes by way of real features.

Axes: B samples, L frames, D features.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import Tensor, nn

from blocks.errors import SuiteError
from blocks.geometry.motion_skeleton import skeleton_of
from lightning_modules.motion.evaluator_files import EvaluatorFile, load_evaluator, statistics_hash
from lightning_modules.motion.networks.motion_evaluator import UNIT, MotionEvaluator

Batch = Mapping[str, Any]
# The published statistics differ from the data's by half a percent.
_FOREIGN = 0.05


class EvaluatorInput(nn.Module):
    """Brings motion from the data's normalisation to the evaluator's.

    Args:
        data_mean: Statistics that the batches are normalised with, (D,).
        data_std: The same.
        mean: Those of the evaluator, (features,), at most D: it may read the first ones alone.
        std: The same.
        max_frames: Longest clip of the data: one as long as this ends at the border in every
            evaluation, and all others at zeros.
    """

    data_mean: Tensor
    data_std: Tensor
    mean: Tensor
    std: Tensor

    def __init__(
        self,
        data_mean: Sequence[float] | Tensor,
        data_std: Sequence[float] | Tensor,
        mean: Sequence[float] | Tensor,
        std: Sequence[float] | Tensor,
        max_frames: int,
    ) -> None:
        super().__init__()
        self.max_frames = max_frames
        given = {"data_mean": data_mean, "data_std": data_std, "mean": mean, "std": std}
        for name, values in given.items():
            # Statistics travel with the data and the evaluator, not with checkpoints.
            self.register_buffer(name, torch.as_tensor(values).float(), persistent=False)

    def forward(self, motion: Tensor, length: Tensor) -> Tensor:
        """Brings (B, L, D) over.

        Args:
            motion: Normalised with the data's statistics.
            length: Frames of each sample, (B,).

        Returns:
            (B, L', features), zeros beyond each length.
        """
        features = len(self.mean)
        real = motion[..., :features] * self.data_std[:features] + self.data_mean[:features]
        out = (real - self.mean) / self.std
        # One more snippet of zeros equals any number of them.
        frames = min(int(length.max()) + UNIT, self.max_frames)
        out = F.pad(out, (0, 0, 0, max(frames - out.shape[1], 0)))[:, :frames]
        beyond = torch.arange(frames, device=out.device) >= length.unsqueeze(1)
        return out.masked_fill(beyond.unsqueeze(-1), 0)


def evaluator_statistics(info: Mapping[str, Any], features: int) -> tuple[Tensor, Tensor]:
    """Statistics of a new evaluator: upstream's for all features, plain for the essential ones.

    Args:
        info: Facts of the data.
        features: What the evaluator reads of a frame.

    Raises:
        SuiteError: The data has neither so many features nor so many essential ones.
    """
    total = len(info["mean"])
    essential = 3 * skeleton_of(total).num_joints + 1
    if features == total:
        names = ("evaluator_mean", "evaluator_std")
    elif features == essential:
        names = ("mean", "std")
    else:
        raise SuiteError(
            expected=f"an evaluator of {total} features, or of the {essential} essential ones",
            found=f"in_features {features}",
            where="the evaluator and the data",
            cure="use an evaluator that was trained on such data",
        )
    mean, std = (torch.tensor(info[name], dtype=torch.float32)[:features] for name in names)
    return mean, std


class MotionJudge(nn.Module):
    """Embeds motion and captions of a data set with a trained evaluator; never trained itself.

    Args:
        file: The evaluator.
        info: Facts of the data whose batches it will see.
    """

    def __init__(self, file: EvaluatorFile, info: Mapping[str, Any]) -> None:
        super().__init__()
        self.network: MotionEvaluator = file.network.requires_grad_(False)
        own = evaluator_statistics(info, self.network.in_features)
        if file.mean is None or file.std is None:
            rank_zero_info(
                f"{file.path} has no statistics nearby: those of the data are used, divided by 25 "
                "on the root and the contacts unless it reads essential features alone"
            )
            mean, std = own
        else:
            mean, std = file.mean, file.std
        self.input = EvaluatorInput(info["mean"], info["std"], mean, std, info["max_frames"])
        self.hash, self.statistics_hash = file.hash, statistics_hash(mean, std)
        self.foreign = file.foreign
        self._compare(file, info)

    @classmethod
    def load(cls, path: str, info: Mapping[str, Any]) -> "MotionJudge":
        """Reads the evaluator for some data.

        Args:
            path: File, or a folder with one inside.
            info: Facts of the data.
        """
        file = load_evaluator(path)
        rank_zero_info(f"evaluator: {file.path}")
        return cls(file, info)

    @property
    def dim(self) -> int:
        """Width of the embeddings."""
        return self.network.dim

    def embed_motion(self, motion: Tensor, length: Tensor) -> Tensor:
        """Motion (B, L, D), normalised with the data's statistics, to (B, dim)."""
        self.network.eval()
        return self.network.embed_motion(self.input(motion.float(), length), length)

    def embed_text(self, batch: Batch) -> Tensor:
        """Captions of a batch to (B, dim)."""
        self.network.eval()
        return self.network.embed_text(batch["words"], batch["word_classes"], batch["word_count"])

    def train(self, mode: bool = True) -> "MotionJudge":
        """Stays in evaluation mode."""
        return super().train(False)

    def _compare(self, file: EvaluatorFile, info: Mapping[str, Any]) -> None:
        """Warns or refuses where evaluator and data do not belong together."""
        for name in ("mode", "word_vectors"):
            trained, given = file.facts.get(name), info.get(name)
            if trained is not None and given is not None and trained != given:
                raise SuiteError(
                    expected=f"data with {name} {trained}, on which the evaluator was trained",
                    found=f"{name} {given}",
                    where=str(file.path),
                    cure="train an evaluator on this data: configs/motion/evaluator.yaml",
                )
        own = evaluator_statistics(info, self.network.in_features)[1]
        if (self.input.std / own - 1).abs().max() > _FOREIGN:
            rank_zero_warn(
                f"The statistics of {file.path} are not those of this data: it was trained on "
                "other data, and its figures compare with those of the same evaluator alone."
            )
