"""Your own 2-D joints, to be lifted: overlapping windows over videos of any length."""

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from lightning.pytorch.utilities import rank_zero_warn
from torch.utils.data import DataLoader

from blocks.errors import SuiteError
from blocks.geometry.cameras import normalise
from datamodules.info import digest
from datamodules.pose.keypoint_files import Joints, Track, read_keypoints
from datamodules.pose.pose_info import PoseInfo
from datamodules.sampling import EvalSampler, SeededDataset

Batch = dict[str, Any]

_SUFFIXES = (".json", ".npz", ".npy")
# A person may stand at the edge of the image; more than this share of joints outside is a mistake.
_MANY_OUTSIDE = 0.05


class KeypointsDataModule(LightningDataModule):
    """2-D joints of your own videos; for `bimamba predict` alone.

    A batch:

    | key       | type      | shape         | meaning                                              |
    |-----------|-----------|---------------|------------------------------------------------------|
    | keypoints | float32   | (B, T, 17, 3) | x, y in halves of the image's width from its centre, |
    |           |           |               | and confidence, in the joints of Human3.6M           |
    | size      | float64   | (B, 2)        | width and height of the image, pixels                |
    | frame     | int64     | (B, T)        | number of the frame in its video                     |
    | valid     | bool      | (B, T)        | false where the last frame is repeated to fill T     |
    | source    | list[str] | B             | file, with the person's number if there are several  |
    | index     | int64     | (B,)          | number of the window over all videos                 |

    Windows follow each other by `stride`; the last one of a video ends at its end. A video shorter
    than T repeats its last frame. There is no scale: poses come out in pixels.

    Args:
        root: File of joints (.json of AlphaPose or MMPose, .npz or .npy arrays), folder of OpenPose
            with one file a frame, or folder of several of these.
        size: [width, height] of the videos in pixels.
        joints: Whose joints they are; null tells by their number. Arrays with 17 joints are taken
            for COCO's: say h36m if they are Human3.6M's.
        num_frames: Frames of a window, T: what the network was trained with.
        stride: Frames from one window to the next; null for half of `num_frames`.
        batch_size: Windows per step.
        num_workers: Loader processes.
    """

    def __init__(
        self,
        root: str,
        size: tuple[int, int],
        joints: Joints | None = None,
        num_frames: int = 243,
        stride: int | None = None,
        batch_size: int = 16,
        num_workers: int = 0,
    ) -> None:
        super().__init__()
        self.root = root
        width, height = size
        self.size = (width, height)
        self.joints: Joints | None = joints
        self.num_frames = num_frames
        self.stride = max(num_frames // 2, 1) if stride is None else stride
        if not 1 <= self.stride <= num_frames:
            raise SuiteError(
                expected=f"a stride from 1 to num_frames, {num_frames}",
                found=str(stride),
                where="data.init_args.stride",
                cure="correct it: with a longer one frames would be left out",
            )
        self.batch_size, self.num_workers = batch_size, num_workers
        self._windows: WindowReader | None = None

    @property
    def info(self) -> PoseInfo:
        """Facts about the joints."""
        windows = self._opened()
        return PoseInfo(
            batch_size=self.batch_size,
            protocol="prediction on given 2-D joints",
            root=self.root,
            synthetic=False,
            hash=digest(f"{track.name} {len(track.joints)}" for track in windows.tracks),
            num_frames=self.num_frames,
            frames=0,  # Nothing is evaluated.
            groups=tuple(track.name for track in windows.tracks),
            average="frames",
            skeleton="h36m",
            pck_joints=tuple(range(1, 17)),
            input="detected",
            fps=None,
            in_features=3,
            root_relative=True,
            baselines={},
            num_train=0,
            num_eval=len(windows),
        )

    def setup(self, stage: str) -> None:
        """Reads the joints.

        Args:
            stage: `predict`; there is no truth for anything else.

        Raises:
            SuiteError: Another stage, or files that the readers do not know.
        """
        if stage != "predict":
            raise SuiteError(
                expected="bimamba predict",
                found=stage,
                where=type(self).__name__,
                cure="train on Human36MDataModule or MPIINF3DHPDataModule: joints have no truth",
            )
        tracks = [track for path in _files(Path(self.root)) for track in self._read(path)]
        _warn_of_size(tracks, self.size)
        self._windows = WindowReader(_named_apart(tracks), self.num_frames, self.stride)

    def predict_dataloader(self) -> DataLoader[Batch]:
        """Every window once, in order."""
        windows = self._opened()
        rank, world = (0, 1)
        if self.trainer is not None:
            rank, world = self.trainer.global_rank, self.trainer.world_size
        size = torch.tensor(self.size, dtype=torch.float64)
        return DataLoader(
            SeededDataset(windows, Normalise(size), seed=0),
            batch_size=self.batch_size,
            sampler=EvalSampler(len(windows), rank=rank, world=world),
            num_workers=self.num_workers,
        )

    def _read(self, path: Path) -> list[Track]:
        return read_keypoints(path, self.joints)

    def _opened(self) -> "WindowReader":
        if self._windows is None:
            raise SuiteError(
                expected="a datamodule that has read its joints",
                found="none before setup",
                where=type(self).__name__,
                cure="call setup('predict') first, or let a Trainer do it",
            )
        return self._windows


def _warn_of_size(tracks: list[Track], size: tuple[int, int]) -> None:
    """Tells of joints outside the image: too small a size makes poses too large and off-centre."""
    joints = np.concatenate([track.joints.reshape(-1, 3) for track in tracks])
    seen = joints[joints[:, 2] > 0, :2]
    outside = ((seen < 0) | (seen > size)).any(1)
    if len(seen) and outside.mean() > _MANY_OUTSIDE:
        width, height = seen.max(0)
        rank_zero_warn(
            f"{outside.mean():.0%} of the joints lie outside an image of {size[0]} x {size[1]} "
            f"pixels, as far as {width:.0f}, {height:.0f}: check data.init_args.size, and that "
            "joints are pixels of the full image."
        )


def _named_apart(tracks: list[Track]) -> list[Track]:
    """Numbers tracks of the same name, as those of a.json and a.npz: a name stands for a person."""
    seen: Counter[str] = Counter()
    found = []
    for track in tracks:
        seen[track.name] += 1
        number = seen[track.name]
        found.append(track if number == 1 else replace(track, name=f"{track.name}-{number}"))
    return found


class WindowReader:
    """Windows over tracks.

    Args:
        tracks: Persons.
        num_frames: Frames of a window.
        stride: Frames from one to the next.
    """

    def __init__(self, tracks: list[Track], num_frames: int, stride: int) -> None:
        self.tracks, self.num_frames = tracks, num_frames
        self.places: list[tuple[int, int]] = []
        for number, track in enumerate(tracks):
            last = max(len(track.joints) - num_frames, 0)
            starts = sorted({*range(0, last + 1, stride), last})
            self.places += [(number, start) for start in starts]

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> dict[str, Any]:
        number, start = self.places[index]
        track = self.tracks[number]
        frames = np.arange(start, start + self.num_frames)
        inside = frames < len(track.joints)
        frames = frames.clip(max=len(track.joints) - 1)
        return {
            "joints": track.joints[frames],
            "frame": frames,
            "valid": inside,
            "source": track.name,
            "index": index,
        }


class Normalise:
    """From a raw window to a sample of `KeypointsDataModule`.

    Args:
        size: Width and height, (2,).
    """

    def __init__(self, size: torch.Tensor) -> None:
        self.size = size

    def __call__(self, window: dict[str, Any]) -> dict[str, Any]:
        """The sample."""
        joints = torch.from_numpy(window["joints"])
        xy = normalise(joints[..., :2], self.size)
        return {
            "keypoints": torch.cat((xy, joints[..., 2:]), -1),
            "size": self.size,
            "frame": torch.from_numpy(window["frame"]),
            "valid": torch.from_numpy(window["valid"]),
            "source": window["source"],
            "index": window["index"],
        }


def _files(root: Path) -> list[Path]:
    """Each video's file or folder."""
    if root.is_file():
        return [root]
    inside = sorted(root.iterdir()) if root.is_dir() else []
    if any(path.name.endswith("_keypoints.json") for path in inside):
        return [root]
    videos = [path for path in inside if path.is_dir() or path.suffix in _SUFFIXES]
    if not videos:
        raise SuiteError(
            expected="files of joints (.json, .npz, .npy) or folders of OpenPose",
            found="none" if root.is_dir() else "no such file or folder",
            where=str(root),
            cure="correct data.init_args.root",
        )
    return videos
