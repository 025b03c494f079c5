"""Your own captions, to be turned into motion."""

from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, default_collate

from blocks.errors import SuiteError
from blocks.geometry.motion_features import Mode
from blocks.geometry.motion_skeleton import SKELETONS
from datamodules.info import digest
from datamodules.motion.captions import CLASSES
from datamodules.motion.clip_transform import UNIT
from datamodules.motion.lexicon import tagged
from datamodules.motion.motion_info import MotionInfo
from datamodules.motion.prompt_files import Prompt, read_motion, read_prompts
from datamodules.sampling import EvalSampler, SeededDataset

Batch = dict[str, Any]


class PromptsDataModule(LightningDataModule):
    """Captions without motion; for `bimamba predict` alone.

    A batch; the last two rows only where a motion is given to start from:

    | key        | type      | shape     | meaning                                              |
    |------------|-----------|-----------|------------------------------------------------------|
    | caption    | list[str] | B         | the prompt                                           |
    | tokens     | list[str] | B         | its words, `word/TAG word/TAG ...`                   |
    | length     | int64     | (B,)      | frames to generate, a multiple of 4                  |
    | padding    | bool      | (B, L)    | true beyond the length                               |
    | name       | list[str] | B         | of the files to write                                |
    | index      | int64     | (B,)      | number of the prompt                                 |
    | known      | float32   | (B, L, D) | features to keep, not normalised; 0 elsewhere        |
    | known_mask | bool      | (B, L)    | frames in which they are given                       |

    Args:
        prompt: A caption, or several.
        prompt_file: File of captions: a line is `text` or `text<TAB>seconds`; or JSON, a list of
            texts or of objects with text, seconds, name, motion. They follow those of `prompt`.
        duration: Seconds, where a prompt does not say.
        skeleton: What the model was trained on: humanml3d (20 frames a second) or kit (12.5).
        samples: Motions for each prompt.
        motion: Motion of which parts are kept: `.npy` of joints (T, J, 3) or features (T, D).
        keep: `prefix`: its first seconds, to be continued; `between`: also its last seconds, with
            new motion between them.
        prefix_seconds: How much of its start is kept.
        suffix_seconds: How much of its end is kept, with `between`.
        mode: How joints are turned into features; must be that of the training data.
        max_frames: Longest motion that may be asked for.
        batch_size: Prompts per step.
        num_workers: Loader processes.
    """

    def __init__(
        self,
        prompt: list[str] | str = (),  # type: ignore[assignment]
        prompt_file: str | None = None,
        duration: float = 6.0,
        skeleton: Literal["humanml3d", "kit"] = "humanml3d",
        samples: int = 1,
        motion: str | None = None,
        keep: Literal["prefix", "between"] = "prefix",
        prefix_seconds: float = 1.0,
        suffix_seconds: float = 1.0,
        mode: Mode = "repaired",
        max_frames: int = 196,
        batch_size: int = 32,
        num_workers: int = 0,
    ) -> None:
        super().__init__()
        self.prompt = [prompt] if isinstance(prompt, str) else list(prompt)
        self.prompt_file, self.duration = prompt_file, duration
        self.skeleton = SKELETONS[skeleton]
        self.samples, self.motion, self.keep = samples, motion, keep
        self.prefix_seconds, self.suffix_seconds = prefix_seconds, suffix_seconds
        self.mode, self.max_frames = mode, max_frames
        self.batch_size, self.num_workers = batch_size, num_workers
        if samples < 1 or duration <= 0 or max_frames < UNIT or prefix_seconds < 0:
            raise SuiteError(
                expected="samples from 1, seconds above 0, max_frames from 4",
                found=f"samples {samples}, duration {duration}, max_frames {max_frames}",
                where="data.init_args",
                cure="correct them",
            )
        self._requests: list[dict[str, Any]] = []

    @property
    def info(self) -> MotionInfo:
        """Facts about the prompts; what they do not know is empty, and the checkpoint's."""
        return MotionInfo(
            batch_size=self.batch_size,
            protocol="prediction on given prompts",
            root=self.prompt_file or "",
            synthetic=False,
            hash=digest(f"{r['name']} {r['length']} {r['caption']}" for r in self._requests),
            features=self.skeleton.num_features,
            joints=self.skeleton.num_joints,
            skeleton=self.skeleton.name,
            fps=self.skeleton.fps,
            metre=self.skeleton.metre,
            mode=self.mode if self.motion else "",
            mean=(),
            std=(),
            evaluator_mean=(),
            evaluator_std=(),
            evaluator_source="",
            max_frames=self.max_frames,
            words=(),
            pos_classes=CLASSES,
            word_vectors="",
            contact="",
            counts={"predict": len(self._requests)},
            left_out={},
        )

    def setup(self, stage: str) -> None:
        """Reads the prompts.

        Args:
            stage: `predict`; there is no motion for anything else.

        Raises:
            SuiteError: Another stage, no prompts, or files that cannot be used.
        """
        if stage != "predict":
            raise SuiteError(
                expected="bimamba predict",
                found=stage,
                where=type(self).__name__,
                cure="train on HumanML3DDataModule or KITMLDataModule: prompts have no motion",
            )
        prompts = [Prompt(text.strip()) for text in self.prompt]
        if self.prompt_file is not None:
            prompts += read_prompts(Path(self.prompt_file))
        if not prompts:
            raise SuiteError(
                expected="something to generate",
                found="no prompts",
                where="data.init_args.prompt",
                cure='give --data.init_args.prompt "a person walks forward" or prompt_file',
            )
        self._requests = []
        for number, prompt in enumerate(prompts):
            for copy in range(self.samples):
                request = self._request(prompt, number)
                if self.samples > 1:
                    request["name"] += f"-{copy}"
                self._requests.append(request | {"index": len(self._requests)})
        names = [request["name"] for request in self._requests]
        if twice := {name for name in names if names.count(name) > 1}:
            raise SuiteError(
                expected="a name of its own for each motion",
                found=f"{', '.join(sorted(twice)[:3])} several times",
                where=self.prompt_file or "data.init_args.prompt",
                cure="correct the names, or leave them out",
            )

    def predict_dataloader(self) -> DataLoader[Batch]:
        """Every prompt once, in order."""
        rank, world = (0, 1)
        if self.trainer is not None:
            rank, world = self.trainer.global_rank, self.trainer.world_size
        return DataLoader(
            SeededDataset(_Requests(self._requests), dict, seed=0),
            batch_size=self.batch_size,
            sampler=EvalSampler(len(self._requests), rank=rank, world=world),
            num_workers=self.num_workers,
            collate_fn=_collate,
        )

    def _request(self, prompt: Prompt, number: int) -> dict[str, Any]:
        if not prompt.text:
            raise SuiteError(
                expected="a caption",
                found="nothing",
                where=prompt.where,
                cure="say what the motion shows",
            )
        request: dict[str, Any] = {
            "caption": prompt.text,
            "tokens": tagged(prompt.text),
            "name": prompt.name or f"{number:04d}",
        }
        source = prompt.motion or self.motion
        features = None
        seconds = prompt.seconds
        if source is not None:
            features = read_motion(Path(source), self.skeleton, self.mode)
            if seconds is None and self.keep == "between":
                seconds = len(features) / self.skeleton.fps
        length = self._frames(self.duration if seconds is None else seconds, prompt.where)
        request["length"] = length
        if features is not None:
            request |= self._known(features, length, str(source))
        return request

    def _frames(self, seconds: float, where: str) -> int:
        frames = max(round(seconds * self.skeleton.fps / UNIT), 1) * UNIT
        if frames > self.max_frames:
            raise SuiteError(
                expected=f"at most {self.max_frames / self.skeleton.fps:g} s "
                f"({self.max_frames} frames)",
                found=f"{seconds:g} s",
                where=where,
                cure="ask for less, or raise data.init_args.max_frames beyond what was trained",
            )
        return frames

    def _known(self, features: Tensor, length: int, where: str) -> dict[str, Tensor]:
        """What is kept of a motion: rows (length, D) and which of them are given."""
        fps = self.skeleton.fps
        first = min(round(self.prefix_seconds * fps), len(features))
        last = round(self.suffix_seconds * fps) if self.keep == "between" else 0
        if self.keep == "between" and len(features) < length:
            raise SuiteError(
                expected=f"a motion of {length} frames, whose end is kept",
                found=f"{len(features)} frames",
                where=where,
                cure="ask for a shorter one, or set data.init_args.keep: prefix",
            )
        if first + last >= length:
            raise SuiteError(
                expected="frames left to generate",
                found=f"{length} frames, of which {first + last} are kept",
                where=where,
                cure="lower data.init_args.prefix_seconds, or ask for a longer motion",
            )
        mask = torch.zeros(length, dtype=torch.bool)
        mask[:first] = True
        mask[length - last :] = True
        known = torch.zeros(length, features.shape[1])
        known[: len(features)] = features[:length]
        return {"known": known * mask.unsqueeze(1), "known_mask": mask}


class _Requests:
    """Gives prompts by index."""

    def __init__(self, requests: list[dict[str, Any]]) -> None:
        self.requests = requests

    def __len__(self) -> int:
        return len(self.requests)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.requests[index]


def _collate(requests: list[dict[str, Any]]) -> Batch:
    """Joins prompts; those without a motion keep nothing."""
    lengths = torch.tensor([request["length"] for request in requests])
    longest = int(lengths.max())
    batch: Batch = {"padding": torch.arange(longest) >= lengths.unsqueeze(1)}
    widths = [request["known"].shape[1] for request in requests if "known" in request]
    if widths:
        batch["known"] = torch.zeros(len(requests), longest, widths[0])
        batch["known_mask"] = torch.zeros(len(requests), longest, dtype=torch.bool)
        for row, request in enumerate(requests):
            if "known" in request:
                batch["known"][row, : request["length"]] = request["known"]
                batch["known_mask"][row, : request["length"]] = request["known_mask"]
    kept = ("caption", "tokens", "length", "name", "index")
    batch.update(default_collate([{key: r[key] for key in kept} for r in requests]))
    return batch
