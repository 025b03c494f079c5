"""What the motion data modules share: batches, loaders, and facts about them."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch.utils.data import DataLoader

from blocks.errors import SuiteError
from blocks.geometry.motion_features import Mode
from blocks.geometry.motion_skeleton import MotionSkeleton
from datamodules.info import digest
from datamodules.inspection import Progress, Remark
from datamodules.motion.captions import CLASSES, vocabulary
from datamodules.motion.clip_index import clip_facts
from datamodules.motion.clip_transform import UNIT, ClipTransform, Collate, SampleReader
from datamodules.motion.contact_maps import Contacts, Scene
from datamodules.motion.embedded_motion import Preset, generate_motion
from datamodules.motion.motion_conversion import convert_features, convert_joints, is_own_joints
from datamodules.motion.motion_folder import SPLITS, EvaluatorStatistics, MotionFolder
from datamodules.motion.motion_info import MotionInfo
from datamodules.motion.motion_inspection import describe_motion, validate_motion
from datamodules.motion.motion_repair import repair_motion
from datamodules.motion.samples import TOO_LONG, Left, Sample, list_samples
from datamodules.motion.word_vectors import WordVectors, word_vectors
from datamodules.resumable import Batch, ResumableDataModule
from datamodules.sampling import global_seed


class MotionDataModule(ResumableDataModule[MotionInfo]):
    """Captioned motion in HumanML3D's layout.

    A batch:

    | key             | type      | shape        | meaning                                         |
    |-----------------|-----------|--------------|-------------------------------------------------|
    | motion          | float32   | (B, L, D)    | normalised features, zeros beyond the length   |
    | padding         | bool      | (B, L)       | true beyond the length                         |
    | length          | int64     | (B,)         | frames, a multiple of 4                        |
    | caption         | list[str] | B            | one of the sample's captions                   |
    | tokens          | list[str] | B            | its words, `word/TAG word/TAG ...`             |
    | name            | list[str] | B            | clip; with -<line> for the seconds of a caption|
    | index           | int64     | (B,)         | place in the split                             |
    | words           | float32   | (B, 22, 300) | word vectors: sos, at most 20 words, eos, unk  |
    | word_classes    | float32   | (B, 22, 15)  | one-hot, `info.pos_classes`                    |
    | word_count      | int64     | (B,)         | places in use, sos and eos included            |
    | points          | float32   | (B, N, 3)    | scene, with contacts only                      |
    | contact         | float32   | (B, N, 6)    | contact maps, with contacts only               |

    Training drops the last incomplete batch. Evaluation sees each sample once on any number of
    processes, padded to `max_frames`. `validate` reads val, `test` and `predict` read test.

    Args:
        root: Folder of the data set; null for the embedded one.
        preset: Size of the embedded set, in clips that also come mirrored.
        batch_size: Training samples per process and step; a smaller set is one batch.
        val_batch_size: Evaluation samples per process and step; null for `batch_size`.
        max_frames: Longest sample; longer ones are cut.
        too_long: Clips of so many frames or more are left out, as published; null keeps them.
        pad_to: Training batches end with their longest sample, or at `max_frames`.
        shorten: Take four frames less in one of three draws, as the loaders of T2M, MDM, MoMask.
        evaluation: `fixed`: first caption, from the first frame; `drawn`: as in training, by seed
            and `replication`.
        replication: Number of the evaluation, where it is drawn.
        mode: How features must have been extracted; null takes what the data says.
        evaluator_statistics: Folder with an evaluator's mean.npy and std.npy; null looks beside the
            data, and derives them (Std / 25) if there are none.
        num_workers: Loader processes per training process; 0 loads in the training process. The
            number does not change the samples.
        pin_memory: Page-locked batches, for faster copies to a CUDA device.
    """

    skeleton: ClassVar[MotionSkeleton]

    def __init__(
        self,
        root: str | None,
        preset: Preset,
        batch_size: int,
        val_batch_size: int | None,
        max_frames: int,
        too_long: int | None,
        pad_to: Literal["longest", "max_frames"],
        shorten: bool,
        evaluation: Literal["fixed", "drawn"],
        replication: int,
        mode: Mode | None,
        evaluator_statistics: str | None,
        num_workers: int,
        pin_memory: bool,
    ) -> None:
        super().__init__(num_workers, pin_memory)
        if max_frames < UNIT or max_frames % UNIT:
            raise SuiteError(
                expected=f"a multiple of {UNIT}",
                found=str(max_frames),
                where="data.init_args.max_frames",
                cure="take 196, as published",
            )
        self.root, self.preset = root, preset
        self.batch_size, self.val_batch_size = batch_size, val_batch_size or batch_size
        self.max_frames, self.too_long, self.pad_to = max_frames, too_long, pad_to
        self.shorten, self.evaluation, self.replication = shorten, evaluation, replication
        self.mode, self.evaluator_statistics = mode, evaluator_statistics
        self.contacts: Contacts = "none"
        self.scene: Scene | None = None
        self._splits: dict[str, list[Sample]] = {}
        self._folder: MotionFolder | None = None
        self._vectors: WordVectors | None = None
        self._split = "val"

    def prepare_data(self) -> None:
        """Writes the embedded set, and looks through all clips once."""
        folder = self.opened()
        for split in SPLITS:
            clip_facts(folder, folder.names(split))

    def setup(self, stage: str) -> None:
        """Lists samples; reads no motion.

        Args:
            stage: `fit`, `validate`, `test` or `predict`.

        Raises:
            SuiteError: Files are missing or of another kind, or a split has no sample.
        """
        folder = self.opened()
        if self.mode is not None and self.mode != folder.mode:
            raise SuiteError(
                expected=f"features extracted in mode {self.mode}",
                found=f"mode {folder.mode}",
                where=str(folder.root),
                cure="leave data.init_args.mode out to take them as they are, or extract them "
                f"again: bimamba data convert --form {self.mode} --to DIR",
            )
        self._folder, self._vectors = folder, word_vectors(folder.root / "glove")
        self._split = {"fit": "val", "validate": "val"}.get(stage, "test")
        wanted = ("train", self._split) if stage == "fit" else (self._split,)
        left: dict[str, Left] = {}
        for split in wanted:
            self._splits[split], left[split] = self.listed(folder, split)
        statistics = self._evaluator_statistics(folder)
        if statistics.source == "Std / 25":
            rank_zero_info(
                "evaluator statistics: Std / 25 for the root's features and contacts, for there "
                "are no mean.npy and std.npy of an evaluator"
            )
        train = self._splits.get("train", [])
        texts = [caption.text for sample in train for caption in sample.captions]
        listed = [
            f"{s.name} {s.start} {s.stop} {c.text}"
            for split in wanted
            for s in self._splits[split]
            for c in s.captions
        ]
        hashed = digest([*listed, *map(str, folder.mean), *map(str, folder.std), folder.mode])
        self._info = MotionInfo(
            batch_size=self.batch_size,
            protocol=self._protocol(folder),
            root=str(folder.root),
            synthetic=self.root is None,
            hash=hashed,
            features=self.skeleton.num_features,
            joints=self.skeleton.num_joints,
            skeleton=self.skeleton.name,
            fps=self.skeleton.fps,
            metre=self.skeleton.metre,
            mode=folder.mode,
            mean=tuple(folder.mean.tolist()),
            std=tuple(folder.std.tolist()),
            evaluator_mean=tuple(statistics.mean.tolist()),
            evaluator_std=tuple(statistics.std.tolist()),
            evaluator_source=statistics.source,
            max_frames=self.max_frames,
            words=vocabulary(texts),
            pos_classes=CLASSES,
            word_vectors=self._vectors.kind,
            contact=self.contacts,
            counts={split: len(self._splits[split]) for split in wanted},
            left_out={split: dict(left[split].counts) for split in wanted},
        )

    def train_dataloader(self) -> DataLoader[Batch]:
        """Shuffled samples in batches of equal size."""
        transform = self._transform(draw=True)
        collate = Collate("longest" if self.pad_to == "longest" else self.max_frames)
        return self._train_loader(
            self._reader("train"), transform, self.batch_size, "samples", collate=collate
        )

    def val_dataloader(self) -> DataLoader[Batch]:
        """Every sample of the evaluated split once, in order."""
        transform = self._transform(draw=self.evaluation == "drawn")
        reader = self._reader(self._split)
        collate = Collate(self.max_frames)
        loader = self._eval_loader(
            reader, transform, self.val_batch_size, "samples", collate=collate
        )
        if self.replication:
            words = np.random.SeedSequence([global_seed(), self.replication]).generate_state(1)
            loader.dataset.seed = int(words[0])  # type: ignore[attr-defined]
        return loader

    def describe(self) -> Mapping[str, str | int | float]:
        """Facts: mode, statistics, and for each split its clips, captions and what is left out."""
        folder = self.opened()
        return describe_motion(
            folder,
            lambda split: self._samples(folder, split),
            self._evaluator_statistics(folder),
            self.root is None,
        )

    def validate(self, sample: int | None = None) -> Iterator[Remark | Progress]:
        """Reads the clips and yields what is wrong, as it is found.

        Args:
            sample: Clips of each split to read at most; null reads all.
        """
        return validate_motion(
            self.opened,
            lambda folder, split: self._samples(folder, split)[1],
            self._evaluator_statistics,
            sample,
        )

    def repair(self, to: Path) -> Iterator[Path | Progress]:
        """Writes a copy with turns put right and joints recovered, without broken clips.

        Args:
            to: Folder to write to.
        """
        return repair_motion(self.opened(), to)

    def convert(
        self, to: Path, form: Literal["repaired", "compat"] = "repaired"
    ) -> Iterator[Path | Progress]:
        """Writes joints of your own as a data set, or a data set with features of another mode.

        Args:
            to: Folder to write to.
            form: How features are extracted.
        """
        if self.root is not None and is_own_joints(Path(self.root)):
            return convert_joints(Path(self.root), to, self.skeleton, form)
        return convert_features(self.opened(), to, form)

    def opened(self) -> MotionFolder:
        """The data set on disk; writes the embedded one if it is missing."""
        root = generate_motion(self.preset, self.skeleton) if self.root is None else Path(self.root)
        return MotionFolder(root, self.skeleton)

    def listed(self, folder: MotionFolder, split: str) -> tuple[list[Sample], Left]:
        """Samples of a split and what is left out of it, which is also warned of.

        Raises:
            SuiteError: There is no sample.
        """
        names = folder.names(split)
        samples, left = self._samples(folder, split)
        if not samples:
            raise SuiteError(
                expected=f"samples of the split {split}",
                found=f"none of {len(names)} clips: {left}" if names else "no names in its list",
                where=str(folder.root / f"{split}.txt"),
                cure="complete the data set; bimamba data validate tells what is missing",
            )
        if left.counts and self.root is not None:
            rank_zero_warn(f"{split}: {len(samples):,} samples; left out: {left}")
        return samples, left

    def _samples(self, folder: MotionFolder, split: str) -> tuple[list[Sample], Left]:
        names = folder.names(split)
        return list_samples(folder, names, clip_facts(folder, names), self.too_long)

    def _evaluator_statistics(self, folder: MotionFolder) -> EvaluatorStatistics:
        given = self.evaluator_statistics
        return folder.evaluator_statistics(Path(given) if given else None)

    def _protocol(self, folder: MotionFolder) -> str:
        parts = [f"{self.skeleton.name} {self._split}, {folder.mode}, at most {self.max_frames}"]
        parts.append("first caption" if self.evaluation == "fixed" else "drawn caption and crop")
        if self.evaluation == "drawn" and self.replication:
            parts[-1] += f" (replication {self.replication})"
        if self.shorten:
            parts.append("a third shortened by 4")
        if self.contacts != "none":
            parts.append(f"contacts {self.contacts}")
        if self.too_long != TOO_LONG:
            parts.append(f"clips below {self.too_long} frames" if self.too_long else "all lengths")
        synthetic = f"synthetic ({self.preset}), " if self.root is None else ""
        return synthetic + ", ".join(parts)

    def _reader(self, split: str) -> SampleReader:
        assert self._folder is not None, "setup opens the data set"
        return SampleReader(self._folder, self._splits[split])

    def _transform(self, draw: bool) -> ClipTransform:
        assert self._folder is not None and self._vectors is not None
        return ClipTransform(
            self._folder, self._vectors, self.max_frames, draw, self.shorten, self.scene
        )
