"""Whole scenes of ScanNet200, from ScanNet's own files or from Pointcept's arrays."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from datamodules.embedded import generate_once
from datamodules.info import digest
from datamodules.inspection import Progress, Remark
from datamodules.scannet.classes import CLASS_IDS, THINGS
from datamodules.scannet.embedded_scans import generate_scans
from datamodules.scannet.embedded_sv import Preset
from datamodules.scannet.inspection import describe_samples, validate_samples
from datamodules.scannet.oversegmentation import surface_normals
from datamodules.scannet.pointcept_files import pointcept_folders, write_pointcept
from datamodules.scannet.scannet_datamodule import ScanNetDataModule
from datamodules.scannet.scannet_info import CLASS_NAMES, GROUPS, ScanNetInfo
from datamodules.scannet.scenes import PointceptReader, SceneReader, open_scans
from datamodules.scannet.sv_layout import IMAGE_SIZE, Split
from datamodules.scannet.transforms import PointAugment, clip_size

# Scenes have up to half a million points, four times of what memory usually allows to train on.
_RECIPE = PointAugment(max_points=120_000)
_SPLITS: tuple[Split, ...] = ("train", "val")
_POINTCEPT_VERSION = 1


class ScanNetScenesDataModule(ScanNetDataModule):
    """Whole scenes in plain ScanNet's files; embedded rooms without a root.

    Batches are those of `ScanNetDataModule`. Superpoints are the segments of segs.json; points
    stand in aligned axes. With images, `uv` refers to the exported frame that sees most of the
    scene, and `uv_valid` is true where that frame's depth agrees.

    Args:
        root: Folder with scans/, scannetv2_{train,val}.txt and scannetv2-labels.combined.tsv; null
            for the embedded rooms, which are rendered on first use.
        preset: Number of embedded rooms: tiny 6 + 2, small 16 + 4, base 64 + 16.
        image: Whether batches have images; scans need color/, depth/, pose/ and intrinsic/ then.
        image_height: Height of the images for CLIP; the width keeps the aspect to 16 pixels.
        color: Whether points have their colour.
        augment: Augmentation of training scenes; `max_points` limits their size.
        batch_size: Training scenes per process and step; a smaller set is one batch, with a
            warning.
        val_batch_size: Evaluation scenes per process and step.
        num_workers: Loader processes per training process; 0 loads in the training process. The
            number does not change the samples.
        pin_memory: Page-locked batches, for faster copies to a CUDA device.
    """

    one_frame = False
    superpoints = "segs.json"

    def __init__(
        self,
        root: str | None = None,
        preset: Preset = "small",
        image: bool = False,
        image_height: int = 224,
        color: bool = True,
        augment: PointAugment = _RECIPE,
        batch_size: int = 4,
        val_batch_size: int | None = 1,
        num_workers: int = 4,
        pin_memory: bool = True,
    ) -> None:
        super().__init__(
            root,
            image,
            image_height,
            color,
            augment,
            batch_size,
            val_batch_size,
            num_workers,
            pin_memory,
        )
        self.preset: Preset = preset

    def prepare_data(self) -> None:
        """Renders the embedded rooms."""
        self._home()

    def setup(self, stage: str) -> None:
        """Lists the scenes; reads none.

        Args:
            stage: `fit`, `validate`, `test` or `predict`.

        Raises:
            SuiteError: Files are missing.
        """
        home = self._home()
        self._train = train = self._open(home, "train") if stage == "fit" else None
        self._eval = self._open(home, "val")
        parts = {"train": train, "val": self._eval}
        lines = [f"{split} {f.name}" for split, part in parts.items() if part for f in part.folders]
        count = len(self._eval)
        protocol = f"scene, {count} whole scenes, superpoints of {self.superpoints}"
        size = clip_size(*IMAGE_SIZE, self.image_height) if self.image else (0, 0)
        self._info = ScanNetInfo(
            batch_size=self.batch_size,
            protocol=f"synthetic ({self.preset}) {protocol}" if self.root is None else protocol,
            root=str(home),
            synthetic=self.root is None,
            hash=digest(lines),
            view="scene",
            class_names=CLASS_NAMES,
            class_ids=CLASS_IDS,
            class_groups=GROUPS,
            things=THINGS,
            superpoints=self.superpoints,
            image=self.image,
            image_size=size,
            color=self.color,
            num_train=len(train) if train else 0,
            num_eval=count,
            left_out=0,
        )

    def describe(self) -> Mapping[str, str | int | float]:
        """Facts: scenes, points, labels, superpoints and what they allow."""
        home = self._home()
        facts: dict[str, str | int | float] = {
            "root": str(home) + (" (embedded, synthetic)" if self.root is None else ""),
            "superpoints": self.superpoints,
        }
        return facts | describe_samples({split: self._open(home, split) for split in _SPLITS})

    def validate(self, sample: int | None = None) -> Iterator[Remark | Progress]:
        """Reads the scenes and yields what is wrong, as it is found.

        Args:
            sample: Scenes of each split to read at most; null reads all.
        """
        home = self._home()
        return validate_samples(lambda split: self._open(home, split), sample, one_frame=False)

    def convert(self, to: Path) -> Iterator[Path | Progress]:
        """Writes the scenes as Pointcept's arrays, with superpoints, which read much faster.

        Args:
            to: Folder to write to.
        """
        home = self._home()
        return _write_arrays({split: self._open(home, split) for split in _SPLITS}, to)

    def _home(self) -> Path:
        return generate_scans(self.preset) if self.root is None else Path(self.root)

    def _open(self, home: Path, split: Split) -> SceneReader:
        return open_scans(home, split, self.image)


class PointceptDataModule(ScanNetScenesDataModule):
    """Whole scenes that Pointcept prepared; embedded rooms without a root.

    Batches are those of `ScanNetDataModule`, without images. Superpoints are those of
    superpoint.npy, or an over-segmentation of the points, which is kept in the cache.

    Args:
        root: Folder with {train,val}/sceneXXXX_XX/coord.npy and its companions; null for the
            embedded rooms, which are rendered on first use.
        preset: Number of embedded rooms: tiny 6 + 2, small 16 + 4, base 64 + 16.
        color: Whether points have their colour.
        augment: Augmentation of training scenes; `max_points` limits their size.
        batch_size: Training scenes per process and step; a smaller set is one batch, with a
            warning.
        val_batch_size: Evaluation scenes per process and step.
        num_workers: Loader processes per training process; 0 loads in the training process. The
            number does not change the samples.
        pin_memory: Page-locked batches, for faster copies to a CUDA device.
    """

    superpoints = "superpoint.npy, or an over-segmentation"

    def __init__(
        self,
        root: str | None = None,
        preset: Preset = "small",
        color: bool = True,
        augment: PointAugment = _RECIPE,
        batch_size: int = 4,
        val_batch_size: int | None = 1,
        num_workers: int = 4,
        pin_memory: bool = True,
    ) -> None:
        super().__init__(
            root,
            preset,
            image=False,
            color=color,
            augment=augment,
            batch_size=batch_size,
            val_batch_size=val_batch_size,
            num_workers=num_workers,
            pin_memory=pin_memory,
        )

    def _home(self) -> Path:
        if self.root is not None:
            return Path(self.root)
        scans = generate_scans(self.preset)

        def write(folder: Path) -> None:
            readers = {split: open_scans(scans, split, image=False) for split in _SPLITS}
            for _ in _write_arrays(readers, folder):
                pass

        name = f"{scans.name}_pointcept_v{_POINTCEPT_VERSION}"
        return generate_once(name, write)

    def _open(self, home: Path, split: Split) -> SceneReader:
        return PointceptReader(pointcept_folders(home, split))


def _write_arrays(readers: Mapping[Split, SceneReader], to: Path) -> Iterator[Path | Progress]:
    """Writes every scene of the readers as Pointcept's arrays."""
    from scipy.spatial import cKDTree

    total, done = sum(len(reader) for reader in readers.values()), 0
    for split, reader in readers.items():
        for folder in reader.folders:
            scene = reader.read(folder)
            near = cKDTree(scene["xyz"]).query(scene["xyz"], k=min(16, len(scene["xyz"])))[1]
            normals = surface_normals(scene["xyz"], near)
            yield from write_pointcept(to / split / folder.name, scene, normals)
            done += 1
            yield Progress(done, total, "scenes")
