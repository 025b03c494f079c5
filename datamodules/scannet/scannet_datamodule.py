"""What the data modules of this wing share: batches, loaders, and facts about them."""

from abc import abstractmethod

from torch.utils.data import DataLoader

from blocks.errors import SuiteError
from datamodules.resumable import ResumableDataModule
from datamodules.sampling import Reader
from datamodules.scannet.batches import Batch, collate
from datamodules.scannet.scannet_info import ScanNetInfo
from datamodules.scannet.transforms import NO_AUGMENT, PointAugment, PointTransform


class ScanNetDataModule(ResumableDataModule[ScanNetInfo]):
    """Clouds of points with instances, labels and superpoints.

    A batch; P points of all samples one after the other, B samples:

    | key              | type      | shape        | meaning                                       |
    |------------------|-----------|--------------|-----------------------------------------------|
    | xyz              | float32   | (P, 3)       | metres, z up, after flips, turn, scale, shift |
    | grid_xyz         | float32   | (P, 3)       | xyz after elastic distortion; voxels, pooling |
    |                  |           |              | and decoder use these                         |
    | original_xyz     | float32   | (P, 3)       | before augmentation                           |
    | color            | float32   | (P, 3)       | normalised; zeros where colour is withheld    |
    | rgb              | uint8     | (P, 3)       | in evaluation only, for pictures              |
    | sample           | int64     | (P,)         | sample of the batch                           |
    | superpoint       | int64     | (P,)         | numbered through the batch without gaps       |
    | instance         | int64     | (P,)         | id in the sample, -1 for none                 |
    | semantic         | int64     | (P,)         | 0..199 in official order, 200 = ignore        |
    | uv               | float32   | (P, 2)       | pixel before augmentation; centres are whole  |
    | uv_valid         | bool      | (P,)         | whether it lies in the image, and is seen     |
    | image            | float32   | (B, 3, h, w) | with images only: resized, CLIP's mean, std   |
    | image_size       | int64     | (B, 2)       | width and height that uv refers to            |
    | pose             | float32   | (B, 4, 4)    | camera to the axes of original_xyz            |
    | intrinsics       | float32   | (B, 3, 3)    | for image_size                                |
    | frame            | list[str] | B            | such as scene0000_00/200                      |
    | index            | int64     | (B,)         | place in its split                            |

    Training drops the last incomplete batch; evaluation sees each sample once on any number of
    processes. `test` sees what `validate` sees.

    Args:
        root: Folder of the data set.
        image: Whether batches have images.
        image_height: Height of the images for CLIP; the width keeps the aspect to 16 pixels.
        color: Whether points have their colour.
        augment: Augmentation of training samples.
        batch_size: Training samples per process and step; a smaller set is one batch, with a
            warning.
        val_batch_size: Evaluation samples per process and step; null for `batch_size`.
        num_workers: Loader processes per training process; 0 loads in the training process. The
            number does not change the samples.
        pin_memory: Page-locked batches, for faster copies to a CUDA device.
    """

    # Whether a sample is one frame, whose points all lie in its image.
    one_frame = True

    def __init__(
        self,
        root: str | None,
        image: bool,
        image_height: int,
        color: bool,
        augment: PointAugment,
        batch_size: int,
        val_batch_size: int | None,
        num_workers: int,
        pin_memory: bool,
    ) -> None:
        super().__init__(num_workers, pin_memory)
        if image_height < 16 or image_height % 16:
            raise SuiteError(
                expected="a multiple of CLIP's patch of 16 pixels",
                found=str(image_height),
                where="data.init_args.image_height",
                cure="use 224, the height CLIP was trained with",
            )
        self.root = root
        self.image, self.image_height, self.color = image, image_height, color
        self.augment = augment
        self.batch_size = batch_size
        self.val_batch_size = val_batch_size or batch_size
        self._train: Reader | None = None
        self._eval: Reader | None = None

    @abstractmethod
    def setup(self, stage: str) -> None:
        """Lists the samples; sets `_train`, `_eval` and `_info`."""

    def train_dataloader(self) -> DataLoader[Batch]:
        """Shuffled, augmented samples in batches of equal size."""
        assert self._train is not None, "setup('fit') lists the training samples"
        transform = self._transform(self.augment, evaluate=False)
        return self._train_loader(
            self._train, transform, self.batch_size, "samples", collate=collate
        )

    def val_dataloader(self) -> DataLoader[Batch]:
        """Every evaluation sample once, in order."""
        assert self._eval is not None, "setup lists the evaluation samples"
        transform = self._transform(NO_AUGMENT, evaluate=True)
        return self._eval_loader(
            self._eval, transform, self.val_batch_size, "samples", collate=collate
        )

    def _transform(self, augment: PointAugment, evaluate: bool) -> PointTransform:
        height = self.image_height if self.image else None
        return PointTransform(augment, self.color, evaluate, height, self.one_frame)
