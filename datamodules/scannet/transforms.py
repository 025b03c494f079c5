"""From a raw frame or scene to a training sample: pixels of the points, augmentation, tensors.

Recipe of OneFormer3D (filaPro/oneformer3d) and ESAM (xuxw98/ESAM). Random numbers come from numpy's
global state, which `datamodules.sampling` seeds for every sample.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from blocks.errors import SuiteError
from blocks.geometry.projection import in_view, project_points
from datamodules.scannet.elastic import STEPS, distorted

Array = npt.NDArray[Any]
Sample = dict[str, Any]

# Of ScanNet's colours (filaPro/oneformer3d), in 0..255.
COLOR_MEAN = 255 * np.array([0.47793125906962, 0.4303257521323044, 0.3749598901421883])
COLOR_STD = 255 * np.array([0.2834475483823543, 0.27566157565723015, 0.27018971370874995])
# Of CLIP (openai/CLIP), in 0..1.
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
_PATCH = 16
_VOXEL = 0.02
# Points come from the pixels of the very depth image; less means a wrong pose or unit.
_LEAST_IN_VIEW = 0.99


@dataclass(frozen=True)
class PointAugment:
    """Augmentation of a cloud; the defaults are those of OneFormer3D and ESAM.

    Args:
        flip: Probability of mirroring x, and again of mirroring y.
        rotate: Largest turn about the vertical axis, radians.
        scale: Smallest and largest factor.
        translate: Standard deviation of the shift along each axis, metres.
        elastic: Probability of an elastic distortion of the voxels' coordinates.
        max_points: Keep so many random points of a larger cloud; null keeps all.
    """

    flip: float = 0.5
    rotate: float = 3.14
    scale: tuple[float, float] = (0.8, 1.2)
    translate: float = 0.1
    elastic: float = 0.5
    max_points: int | None = None


NO_AUGMENT = PointAugment(flip=0, rotate=0, scale=(1, 1), translate=0, elastic=0)


class PointTransform:
    """From a raw sample to tensors, keys as in `ScanNetDataModule`.

    Args:
        augment: Augmentation.
        color: Whether points have their colour; zeros otherwise.
        evaluate: Whether to keep the colours as bytes, for pictures.
        image_height: Height of the image for CLIP; null where samples have none.
        all_in_view: Whether all points must lie in the image, as those of a single frame do.
    """

    def __init__(
        self,
        augment: PointAugment,
        color: bool,
        evaluate: bool,
        image_height: int | None,
        all_in_view: bool,
    ) -> None:
        self.augment, self.color, self.evaluate = augment, color, evaluate
        self.image_height, self.all_in_view = image_height, all_in_view

    def __call__(self, raw: Sample) -> Sample:
        """The sample."""
        original = torch.from_numpy(raw["xyz"])
        sample = {
            "original_xyz": original,
            "instance": torch.from_numpy(raw["instance"]),
            "semantic": torch.from_numpy(raw["semantic"]),
            "superpoint": torch.from_numpy(raw["superpoint"]),
        }
        if "uv" in raw:
            sample |= {"uv": torch.from_numpy(raw["uv"])}
            sample |= {"uv_valid": torch.from_numpy(raw["uv_valid"])}
        else:
            uv, valid = pixels_of(raw)
            sample |= {"uv": uv.float(), "uv_valid": valid}
        if self.all_in_view:
            _check_view(sample["uv_valid"], raw["frame"])
        color = (raw["rgb"] - COLOR_MEAN) / COLOR_STD
        sample["color"] = torch.from_numpy(color).float() * float(self.color)
        if self.evaluate:
            sample["rgb"] = torch.from_numpy(raw["rgb"])
        sample = thinned(sample, self.augment.max_points)
        xyz = moved(sample["original_xyz"].numpy(), self.augment)
        grid = xyz
        if np.random.random() < self.augment.elastic:
            grid = xyz / np.float32(_VOXEL)
            for granularity, magnitude in STEPS:
                grid = distorted(grid, granularity, magnitude)
            grid = grid * np.float32(_VOXEL)
        sample["xyz"], sample["grid_xyz"] = torch.from_numpy(xyz), torch.from_numpy(grid)
        if self.image_height is not None:
            sample["image"] = clip_image(raw["image"], self.image_height)
        sample["image_size"] = torch.tensor(raw["image_size"])
        sample["pose"] = torch.from_numpy(raw["pose"]).float()
        sample["intrinsics"] = torch.from_numpy(raw["intrinsics"]).float()
        return sample | {"frame": raw["frame"], "index": raw["index"]}


def pixels_of(raw: Sample) -> tuple[Tensor, Tensor]:
    """Pixels (P, 2) of a raw sample's points in its image, and whether they lie in it, (P,)."""
    xyz = torch.from_numpy(raw["xyz"]).double()
    pose, intrinsics = (torch.from_numpy(raw[key]).double() for key in ("pose", "intrinsics"))
    uv, depth = project_points(xyz, pose, intrinsics)
    width, height = raw["image_size"]
    return uv, in_view(uv, depth, width, height)


def moved(xyz: Array, augment: PointAugment) -> Array:
    """Points after flips, a turn about the vertical axis, scaling and a shift."""
    signs = np.where(np.random.random(2) < augment.flip, -1.0, 1.0)
    angle = np.random.uniform(-augment.rotate, augment.rotate)
    scale = np.random.uniform(*augment.scale)
    shift = np.random.normal(0, augment.translate, 3)
    cos, sin = np.cos(angle), np.sin(angle)
    turn = np.array([(cos, -sin, 0), (sin, cos, 0), (0, 0, 1)]) * (*signs, 1)
    out: Array = (xyz @ (scale * turn).T + shift).astype(np.float32)
    return out


def thinned(sample: Sample, most: int | None) -> Sample:
    """A random part of the points, with superpoints numbered anew; all if there are not too many.

    Args:
        sample: Tensors by name; every one has a row for each point.
        most: Points to keep.
    """
    count = len(sample["superpoint"])
    if most is None or count <= most:
        return sample
    kept = torch.from_numpy(np.sort(np.random.permutation(count)[:most]))
    sample = {name: values[kept] for name, values in sample.items()}
    sample["superpoint"] = sample["superpoint"].unique(return_inverse=True)[1]
    return sample


def clip_size(width: int, height: int, clip_height: int) -> tuple[int, int]:
    """Width and height for CLIP: the aspect is kept to a whole patch of 16 pixels."""
    return max(round(clip_height * width / height / _PATCH), 1) * _PATCH, clip_height


def clip_image(image: Image.Image, clip_height: int) -> Tensor:
    """An image as CLIP wants it, (3, h, w)."""
    size = clip_size(*image.size, clip_height)
    resized = image.convert("RGB").resize(size, Image.Resampling.BICUBIC)
    pixels = torch.from_numpy(np.array(resized)).permute(2, 0, 1).float() / 255
    mean, std = torch.tensor(CLIP_MEAN), torch.tensor(CLIP_STD)
    return (pixels - mean.view(3, 1, 1)) / std.view(3, 1, 1)


def _check_view(valid: Tensor, frame: str) -> None:
    share = valid.float().mean().item()
    if share < _LEAST_IN_VIEW:
        raise SuiteError(
            expected=f"at least {_LEAST_IN_VIEW:.0%} of the points inside their own image",
            found=f"{share:.1%}",
            where=f"frame {frame}",
            cure="check its pose (camera to world, less the frame's mean point) and the units: "
            "points in metres, intrinsics for 640 x 480; `bimamba data validate` lists all such "
            "frames",
        )
