"""Your own rooms, to be segmented: `.ply` clouds or meshes, or folders of RGB-D frames."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from blocks.errors import SuiteError
from blocks.geometry.projection import unproject
from datamodules.info import digest
from datamodules.scannet.classes import CLASS_IDS, IGNORE, THINGS
from datamodules.scannet.oversegmentation import oversegment
from datamodules.scannet.scan_files import read_ply
from datamodules.scannet.scannet_datamodule import ScanNetDataModule
from datamodules.scannet.scannet_info import CLASS_NAMES, GROUPS, ScanNetInfo
from datamodules.scannet.sv_files import read_image
from datamodules.scannet.transforms import NO_AUGMENT, clip_size
from datamodules.scannet.views import View, read_view, view_names

Array = npt.NDArray[Any]

# Nearer is the sensor's own shadow (metres).
_NEAREST = 0.1
# Without a pose the camera is taken to look straight ahead, z up.
_LEVEL = np.array([(1, 0, 0, 0), (0, 0, 1, 0), (0, -1, 0, 0), (0, 0, 0, 1)], float)


class OwnScansDataModule(ScanNetDataModule):
    """Unlabelled clouds or RGB-D frames of your own; for `bimamba predict` alone.

    Batches are those of `ScanNetDataModule` with instance -1 and semantic 200 everywhere.
    Superpoints are a graph-based over-segmentation of the points, made when they are read.

    A `.ply` needs vertices in metres with z up, and has no image. A folder of frames needs
    color/N.jpg, depth/N.png (16 bit, millimetres), intrinsic/intrinsic_depth.txt (of the depth
    image), and pose/N.txt (camera to world, z up) unless the camera was held level; every frame
    becomes one sample, as in ScanNet200-SV.

    Args:
        root: A .ply file, a folder of them, or a folder with color/ and depth/.
        num_points: Points drawn from a frame; a .ply keeps all of its own.
        grain: Of the over-segmentation: larger makes larger superpoints.
        image: Whether batches have images; frames only.
        image_height: Height of the images for CLIP, as in training.
        color: Whether points have their colour, as in training.
        batch_size: Samples per step.
        num_workers: Loader processes.
    """

    def __init__(
        self,
        root: str,
        num_points: int = 20_000,
        grain: float = 0.03,
        image: bool = True,
        image_height: int = 224,
        color: bool = True,
        batch_size: int = 1,
        num_workers: int = 0,
    ) -> None:
        super().__init__(
            root,
            image,
            image_height,
            color,
            NO_AUGMENT,
            batch_size,
            batch_size,
            num_workers,
            pin_memory=False,
        )
        for name, value in (("num_points", num_points), ("grain", grain)):
            if not value > 0:
                raise SuiteError(
                    expected="a number above 0",
                    found=str(value),
                    where=f"data.init_args.{name}",
                    cure="correct it",
                )
        self.num_points, self.grain = num_points, grain

    def setup(self, stage: str) -> None:
        """Lists the files.

        Args:
            stage: `predict`; there is no truth for anything else.

        Raises:
            SuiteError: Another stage, or no files.
        """
        if stage != "predict":
            raise SuiteError(
                expected="bimamba predict",
                found=stage,
                where=type(self).__name__,
                cure="train on ScanNet200SVDataModule: these clouds have no labels",
            )
        root = Path(str(self.root))
        clouds = [root] if root.suffix == ".ply" else sorted(root.glob("*.ply"))
        frames = [] if clouds else view_names(root)
        if not clouds and not frames:
            raise SuiteError(
                expected="a .ply file, a folder of them, or a folder with color/N.jpg, "
                "depth/N.png, pose/N.txt and intrinsic/intrinsic_depth.txt",
                found="none" if root.is_dir() else "no such file or folder",
                where=str(root),
                cure="correct data.init_args.root",
            )
        if clouds and self.image:
            raise SuiteError(
                expected="a folder of RGB-D frames, for images are asked for",
                found=f".ply files, which have none: {clouds[0].name}",
                where="data.init_args.image",
                cure="set it to false and use a model without an image branch (baseline3d)",
            )
        self.one_frame = not clouds
        self._eval = (
            CloudReader(clouds, self.grain)
            if clouds
            else FrameReader(root, frames, self.num_points, self.grain, self.image)
        )
        names = [path.name for path in clouds] or frames
        # Frames of a folder have one size.
        native = read_view(root, frames[0]).size if frames else (0, 0)
        self._info = ScanNetInfo(
            batch_size=self.batch_size,
            protocol="prediction on own scans",
            root=str(root),
            synthetic=False,
            hash=digest(names),
            view="scene" if clouds else "sv",
            class_names=CLASS_NAMES,
            class_ids=CLASS_IDS,
            class_groups=GROUPS,
            things=THINGS,
            superpoints=f"over-segmentation, grain {self.grain:g}",
            image=self.image,
            image_size=clip_size(*native, self.image_height) if self.image else (0, 0),
            color=self.color,
            num_train=0,
            num_eval=len(names),
            left_out=0,
        )


class CloudReader:
    """Raw samples of .ply files.

    Args:
        paths: The files.
        grain: Of the over-segmentation.
    """

    def __init__(self, paths: list[Path], grain: float) -> None:
        self.paths, self.grain = paths, grain

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> dict[str, Any]:
        path = self.paths[index]
        xyz, rgb = read_ply(path)
        if not len(xyz) or not np.isfinite(xyz).all():
            raise SuiteError(
                expected="vertices with finite coordinates",
                found=f"{(~np.isfinite(xyz)).any(1).sum():,} others of {len(xyz):,}",
                where=str(path),
                cure="remove these vertices",
            )
        nowhere = {
            "uv": np.zeros((len(xyz), 2), dtype=np.float32),
            "uv_valid": np.zeros(len(xyz), dtype=bool),
            "image_size": (1, 1),
            "pose": np.eye(4),
            "intrinsics": np.eye(3),
        }
        return _unlabelled(xyz, rgb, self.grain) | nowhere | {"frame": path.stem, "index": index}


class FrameReader:
    """Raw samples of RGB-D frames, as ScanNet200-SV makes them.

    Args:
        folder: With color/, depth/, pose/ and intrinsic/.
        names: Of the frames.
        num_points: Points drawn from each.
        grain: Of the over-segmentation.
        image: Whether samples have their image.
    """

    def __init__(
        self, folder: Path, names: list[str], num_points: int, grain: float, image: bool
    ) -> None:
        self.folder, self.names = folder, names
        self.num_points, self.grain, self.image = num_points, grain, image

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> dict[str, Any]:
        name = self.names[index]
        view = read_view(self.folder, name, level=_LEVEL)
        v, u = np.nonzero(view.depth > _NEAREST)
        if not len(v) or not np.isfinite(view.pose).all():
            raise SuiteError(
                expected="a frame with depth and a finite pose",
                found="no depth" if not len(v) else "a pose that is not finite",
                where=f"frame {name} in {self.folder}",
                cure="remove the frame; depth is 16-bit PNG in millimetres",
            )
        image = read_image(view.color)
        xyz = _points(view, v, u)
        centre = xyz.mean(0)
        chosen = np.random.default_rng(index).choice(
            len(v), self.num_points, replace=len(v) < self.num_points
        )
        # Colour and depth show the same, though perhaps at another resolution.
        colors = np.asarray(image.resize(view.size))[v[chosen], u[chosen]]
        pose = view.pose.copy()
        pose[:3, 3] -= centre
        sample = _unlabelled((xyz[chosen] - centre).astype(np.float32), colors, self.grain)
        if self.image:
            sample["image"] = image
        return sample | {
            "image_size": view.size,
            "pose": pose,
            "intrinsics": view.intrinsics,
            "frame": f"{self.folder.name}/{name}",
            "index": index,
        }


def _points(view: View, v: Array, u: Array) -> Array:
    """World coordinates (P, 3) float64 of pixels."""
    pixels = torch.from_numpy(np.stack((u, v), 1)).double()
    depth = torch.from_numpy(view.depth[v, u]).double()
    pose, intrinsics = torch.from_numpy(view.pose), torch.from_numpy(view.intrinsics)
    return unproject(pixels, depth, pose, intrinsics).numpy()


def _unlabelled(xyz: Array, rgb: Array, grain: float) -> dict[str, Any]:
    return {
        "xyz": xyz,
        "rgb": rgb,
        "instance": np.full(len(xyz), -1),
        "semantic": np.full(len(xyz), IGNORE),
        "superpoint": oversegment(xyz, rgb, grain=grain),
    }
