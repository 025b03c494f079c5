"""Raw clips: frames of a database, in pixels, before normalisation and augmentation.

A clip is a dict of arrays, T frames of J joints:

| key        | type    | shape     | meaning                          |
|------------|---------|-----------|----------------------------------|
| keypoints  | float32 | (T, J, 2) | detected joints, pixels          |
| confidence | float32 | (T, J)    | of the detector; ones if unknown |
| pose       | float32 | (T, J, 3) | x, y and depth, pixels           |
| size       | float64 | (2,)      | width and height of the image    |
| source     | str     |           | name of the video                |
| index      | int     |           | number of the clip               |

and in evaluation target, factor, frame, group and scored, see `PoseDataModule`.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from blocks.errors import SuiteError
from blocks.files import load_pickle
from datamodules.pose.clips import Indices
from datamodules.pose.database import PoseSplit

Clip = dict[str, Any]


class ClipReader:
    """Clips cut from a database when they are asked for.

    Args:
        split: The frames.
        clips: Their numbers, (clips, T).
        evaluate: Whether to give what evaluation needs.
        factors: Millimetres per pixel of each video, where the database has none of each frame:
            its poses are millimetres then, and are divided by them.
        scored: From the name of a video and T to which frames of its clips count, (T,).
    """

    def __init__(
        self,
        split: PoseSplit,
        clips: Indices,
        evaluate: bool,
        factors: Sequence[float] | None = None,
        scored: Callable[[str, int], npt.NDArray[np.bool_]] | None = None,
    ) -> None:
        self.split, self.clips, self.evaluate = split, clips, evaluate
        self.factors = None if factors is None else np.asarray(factors, dtype=np.float64)
        self.scored = scored
        starts = np.array([video.start for video in split.videos])
        groups = {name: number for number, name in enumerate(split.groups)}
        self.group_of_video = [groups[video.group] for video in split.videos]
        self.video_of_clip = np.searchsorted(starts, clips[:, 0], side="right") - 1

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, index: int) -> Clip:
        split, frames = self.split, self.clips[index]
        number = self.video_of_clip[index]
        video = split.videos[number]
        keypoints = split.keypoints[frames]
        pose = split.pose[frames]
        if self.factors is not None:
            pose = pose / np.float32(self.factors[number])
        clip: Clip = {
            "keypoints": keypoints,
            "confidence": np.ones(keypoints.shape[:2], np.float32)
            if split.confidence is None
            else split.confidence[frames],
            "pose": pose,
            "size": np.array([video.width, video.height], dtype=np.float64),
            "source": video.name,
            "index": index,
        }
        if not self.evaluate:
            return clip
        count = len(frames)
        factor = np.ones(count) if self.factors is None else np.full(count, self.factors[number])
        return clip | {
            "target": (split.pose if split.target is None else split.target)[frames].astype(float),
            "factor": factor if split.factor is None else split.factor[frames].astype(float),
            "frame": frames,
            "group": self.group_of_video[number],
            "scored": np.ones(count, bool)
            if self.scored is None
            else self.scored(video.name, count),
        }


class ClipFolderReader:
    """Training clips that MotionBERT or MotionAGFormer cut beforehand: one pickle each.

        %08d.pkl    dict(data_input (T, 17, 3): x, y, confidence;  data_label (T, 17, 3))

    They are normalised already and do not tell the size of their image: pixels here are halves of
    its width, and normalisation gives back what was stored.

    Args:
        folder: With the files.
        num_frames: Frames that each must have, T.
    """

    def __init__(self, folder: Path, num_frames: int) -> None:
        self.folder, self.num_frames = folder, num_frames
        self.names = sorted(path.name for path in folder.glob("*.pkl"))

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Clip:
        path = self.folder / self.names[index]
        content = load_pickle(path)
        shape = (self.num_frames, 17, 3)
        try:
            x, y = (np.asarray(content[k], np.float32) for k in ("data_input", "data_label"))
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise _broken(path, shape, f"{type(error).__name__}: {error}") from error
        if x.shape != shape or y.shape != shape:
            raise _broken(path, shape, f"{x.shape} and {y.shape}")
        return {
            "keypoints": x[..., :2] + 1,
            "confidence": x[..., 2],
            "pose": y + np.array([1, 1, 0], np.float32),
            "size": np.array([2.0, 2.0]),
            "source": path.stem,
            "index": index,
        }


def _broken(path: Path, shape: tuple[int, ...], found: str) -> SuiteError:
    return SuiteError(
        expected=f"a dict with data_input and data_label of shape {shape}",
        found=found,
        where=str(path),
        cure="cut the clips again, set data.init_args.num_frames to their length, or let the suite "
        "cut them itself: data.init_args.layout: pickle",
    )
