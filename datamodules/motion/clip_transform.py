"""From a sample's features and captions to what a batch holds, and from samples to batches."""

import random
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import default_collate

from datamodules.motion.captions import Caption
from datamodules.motion.contact_maps import Scene, scene_of
from datamodules.motion.motion_folder import MotionFolder
from datamodules.motion.samples import Sample
from datamodules.motion.word_vectors import WordVectors, encoded

UNIT = 4  # Frames of a snippet, as evaluators see them; lengths are multiples of it.


class SampleReader:
    """Reads samples by index.

    Args:
        folder: The data set.
        samples: Of a split.
    """

    def __init__(self, folder: MotionFolder, samples: list[Sample]) -> None:
        self.folder, self.samples = folder, samples

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> dict[str, Any]:
        sample = self.samples[index]
        clip = torch.from_numpy(self.folder.features(sample.clip))
        return {"sample": sample, "clip": clip, "index": index}


class ClipTransform:
    """Chooses a caption and a stretch of frames, normalises, and reads the words.

    Args:
        folder: Its statistics normalise.
        vectors: Of words.
        max_frames: Longer samples are cut to so many.
        draw: Draw caption and stretch; false takes the first caption and starts at the first frame.
        shorten: Take four frames less in one of three draws.
        scene: What stands around, or null.
    """

    def __init__(
        self,
        folder: MotionFolder,
        vectors: WordVectors,
        max_frames: int,
        draw: bool,
        shorten: bool,
        scene: Scene | None,
    ) -> None:
        self.vectors, self.max_frames = vectors, max_frames
        self.draw, self.shorten, self.scene = draw, shorten, scene
        self.folder = folder
        self.mean, self.std = torch.from_numpy(folder.mean), torch.from_numpy(folder.std)

    def __call__(self, raw: dict[str, Any]) -> dict[str, Any]:
        """The sample of a batch, not padded."""
        sample: Sample = raw["sample"]
        clip: Tensor = raw["clip"]
        features = clip[sample.start : sample.stop]
        number = random.randrange(len(sample.captions)) if self.draw else 0
        caption: Caption = sample.captions[number]
        length = min(len(features) // UNIT * UNIT, self.max_frames)
        if self.shorten and random.randrange(3) == 0:
            length = max(length - UNIT, UNIT)
        start = random.randint(0, len(features) - length) if self.draw else 0
        words, classes, count = encoded(caption.tokens, self.vectors)
        found = {
            "motion": (features[start : start + length] - self.mean) / self.std,
            "length": length,
            "caption": caption.text,
            "tokens": caption.tokens,
            "name": sample.name,
            "index": raw["index"],
            "words": words,
            "word_classes": classes,
            "word_count": count,
        }
        if self.scene is not None:
            rows = (sample.start + start, sample.start + start + length)
            found |= scene_of(self.scene, self.folder, sample.clip, clip, rows, number, self.draw)
        return found


class Collate:
    """Joins samples, padded with zeros to a common length.

    Args:
        length: Of every batch, or `longest` for that of its longest sample.
    """

    def __init__(self, length: int | Literal["longest"]) -> None:
        self.length = length

    def __call__(self, samples: list[dict[str, Any]]) -> dict[str, Any]:
        """The batch."""
        lengths = torch.tensor([sample["length"] for sample in samples])
        longest = int(lengths.max())
        total = -(-longest // UNIT) * UNIT if self.length == "longest" else self.length
        motion = [F.pad(s["motion"], (0, 0, 0, total - s["length"])) for s in samples]
        rest = [{k: v for k, v in s.items() if k != "motion"} for s in samples]
        padding = torch.arange(total) >= lengths.unsqueeze(1)
        return {"motion": torch.stack(motion), "padding": padding, **default_collate(rest)}
