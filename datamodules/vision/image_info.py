"""What a vision module may know about its images."""

from dataclasses import dataclass

from datamodules.info import DataInfo


@dataclass(frozen=True)
class ImageInfo(DataInfo):
    """Facts about a set of labelled images.

    Args:
        class_names: Name of class 0, 1, ...; empty for a plain folder of images to predict.
        img_size: Side, or (height, width), of a batch's images in pixels.
        mean: Channel means that were subtracted, in units of [0, 1].
        std: Channel deviations that were divided by, same units.
        num_train: Training images read for this stage.
        num_val: Validation images read for this stage.
    """

    class_names: tuple[str, ...]
    img_size: int | tuple[int, int]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    num_train: int
    num_val: int
